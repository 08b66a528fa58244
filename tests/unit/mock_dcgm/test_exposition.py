"""The exposition against a golden file, against the catalogue, and read back by prometheus_client.

GPUMON_UPDATE_GOLDEN=1 writes the golden file anew; look at the difference before committing it.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mock_dcgm.exposition import DEFAULT, Exposition, exposition_order, format_values
from mock_dcgm.faults import FaultSpec, Kind
from mock_dcgm.models import MODELS
from mock_dcgm.simulator import Simulator
from services.contract.catalogue import BY_COLUMN, BY_DCGM_NAME, METRICS, Unit
from tests.support.golden import check_golden
from tests.unit.mock_dcgm.fleets import START, all_models, simulator_of, text_of

GOLDEN = Path(__file__).parents[2] / "golden" / "mock_all_models.prom"


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    made = Simulator(all_models(), START)
    for _ in range(3):
        made.step(10)
    return made


def test_the_golden_file(simulator: Simulator) -> None:
    text = text_of(simulator)
    check_golden(GOLDEN, text)


def test_prometheus_client_reads_back_what_was_simulated(simulator: Simulator) -> None:
    rows = {
        (e.gpu.uuid, e.instance and str(e.instance.id)): i for i, e in enumerate(simulator.layout.entities)
    }  # fmt: skip
    seen = 0
    for family in text_string_to_metric_families(text_of(simulator, METRICS)):
        for sample in family.samples:
            name = sample.name if sample.name in BY_DCGM_NAME else sample.name.removesuffix("_total")
            column = BY_DCGM_NAME[name].column
            row = rows[sample.labels["UUID"], sample.labels.get("GPU_I_ID")]
            assert sample.value == pytest.approx(simulator.snapshot.columns[column][row], rel=1e-12)
            seen += 1
    assert seen == sum(int(mask.sum()) for mask in simulator.present.values())


def test_labels_come_in_dcgm_exporters_order(simulator: Simulator) -> None:
    order = ["gpu", "UUID", "pci_bus_id", "device", "modelName", "GPU_I_PROFILE", "GPU_I_ID", "Hostname",
             "DCGM_FI_DRIVER_VERSION", "container", "namespace", "pod"]  # fmt: skip
    for line in text_of(simulator).splitlines():
        if not line.startswith("#"):
            names = re.findall(r'(\w+)="', line.replace('odd \\"pod', ""))
            assert names == [name for name in order if name in names]
            assert {"gpu", "UUID", "modelName", "Hostname", "DCGM_FI_DRIVER_VERSION"} <= set(names)


def test_default_counters_come_first_and_each_block_has_help_and_type(simulator: Simulator) -> None:
    lines = text_of(simulator).splitlines()
    names = [line.split()[2] for line in lines if line.startswith("# HELP")]
    assert names == [m.dcgm for m in exposition_order(DEFAULT) if simulator.present[m.column].any()]
    defaults = [BY_DCGM_NAME[name].default for name in names]
    assert defaults == sorted(defaults, reverse=True)
    for position, line in enumerate(lines):
        if line.startswith("# HELP"):
            metric = BY_DCGM_NAME[line.split()[2]]
            assert line == f"# HELP {metric.dcgm} {metric.help}"
            assert lines[position + 1] == f"# TYPE {metric.dcgm} {metric.exposition_type}"
            assert lines[position + 2].startswith(metric.dcgm + "{")


def test_whole_numbers_are_whole_and_others_have_six_decimals(simulator: Simulator) -> None:
    for line in text_of(simulator, METRICS).splitlines():
        if not line.startswith("#"):
            metric = BY_DCGM_NAME[line.partition("{")[0]]
            pattern = r"-?\d+" if metric.sql.is_integer else r"\d+\.\d{6}"
            assert re.fullmatch(pattern, line.rpartition(" ")[2]), line
            if metric.unit is Unit.WATT:
                assert line.endswith("000"), line  # milliwatts


def test_what_a_model_lacks_is_absent(simulator: Simulator) -> None:
    text = text_of(simulator, METRICS, host="node-a")
    for index, model in enumerate(MODELS.values()):
        names = {line.partition("{")[0] for line in text.splitlines() if f'gpu="{index}"' in line}
        assert names == {m.dcgm for m in METRICS if m.column not in model.lacks}, model.key


def test_mig_gives_instances_their_own_lines_and_takes_utilisation_away(simulator: Simulator) -> None:
    text = text_of(simulator, host="node-b")
    profiles = re.findall(r'GPU_I_PROFILE="(\S+?)",GPU_I_ID="(\d+)"', text)
    assert {*profiles} == {("3g.40gb", "1"), ("2g.20gb", "3"), ("1g.10gb", "7")}
    assert [line for line in text.splitlines() if line.startswith("DCGM_FI_DEV_GPU_UTIL{") and 'gpu="0"' in line] == []
    instance = {line.partition("{")[0] for line in text.splitlines() if 'GPU_I_ID="3"' in line}
    assert {"DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_XID_ERRORS"} <= instance
    assert not instance & {"DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_GPU_UTIL"}


def test_the_work_of_a_mig_board_is_that_of_its_instances(simulator: Simulator) -> None:
    layout, columns = simulator.layout, simulator.snapshot.columns
    rows = layout.instance_rows
    share = layout.unit_share[layout.instance_units]
    board = rows[0] - 1
    assert columns["sm_active"][board] == pytest.approx((columns["sm_active"][rows] * share).sum(), abs=1e-5)
    assert (columns["fb_total"][rows] == [40_960, 20_480, 10_240]).all()
    assert columns["fb_used"][board] == pytest.approx(columns["fb_used"][rows].sum(), rel=0.03)


def test_hosts_together_say_what_the_fleet_says(simulator: Simulator) -> None:
    whole = sorted(line for line in text_of(simulator).splitlines() if not line.startswith("#"))
    parts = [line for host in simulator.layout.hosts for line in text_of(simulator, host=host).splitlines()]
    assert sorted(line for line in parts if not line.startswith("#")) == whole
    assert 'Hostname="node-b"' not in text_of(simulator, host="node-a")


def test_default_leaves_the_costly_fields_out() -> None:
    names = {m.column for m in METRICS} - {m.column for m in DEFAULT}
    assert names == {"fp64_active", "fp32_active", "fp16_active", "sm_occupancy", "nvlink_tx_bytes", "nvlink_rx_bytes"}


def test_a_host_without_living_gpus_answers_nothing() -> None:
    simulator = simulator_of("A100")
    simulator.faults.add(FaultSpec(Kind.GPU_LOST), 0.0)
    simulator.step(10)
    assert text_of(simulator) == text_of(simulator, host="node") == ""


def test_blocks_that_did_not_change_are_reused_and_those_that_did_are_not() -> None:
    simulator = simulator_of("A100", profile="idle")
    exposition = Exposition(simulator.layout, simulator.present)
    exposition.update(simulator.step(10))
    first = exposition.fleet()
    exposition.update(simulator.step(10))
    second = exposition.fleet()
    same = [one is two for one, two in zip(first, second, strict=True)]
    energy = [b"ENERGY" in block for block in first].index(True)
    assert same.count(True) > len(same) // 2
    assert not same[energy]
    assert b"".join(second).decode() == text_of(simulator)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0, 4_999], ["0\n", "4999\n"]),
        ([5_000, 2**53], ["5000\n", "9007199254740992\n"]),
        ([-3, 7], ["-3\n", "7\n"]),
        ([0.0, 409.692, 1.0, 0.000001], ["0.000000\n", "409.692000\n", "1.000000\n", "0.000001\n"]),
        ([], []),
    ],
)
def test_number_formats(values: list[float], texts: list[str]) -> None:
    fractions = any(isinstance(v, float) for v in values)
    column = np.array(values, dtype=np.float64) if fractions else np.array(values, dtype=np.int64)
    assert format_values(column) == texts


def test_every_default_metric_of_the_catalogue_is_shown_by_some_model(simulator: Simulator) -> None:
    text = text_of(simulator, METRICS)
    nobody = frozenset.intersection(*(m.lacks for m in MODELS.values()))
    assert nobody == {"fan_speed"}
    for column in set(BY_COLUMN) - nobody:
        assert f"\n{BY_COLUMN[column].dcgm}{{" in text
