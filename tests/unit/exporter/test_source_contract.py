"""The contract every source keeps, and the sources against each other: identical values or absent, never different.

The same GPUs (tests/support/gpu_worlds.py) are seen through NVML and through nvidia-smi, each by way of a fake of the
driver's own outer edge. The mock makes its own GPUs; it keeps the rules that need no second source.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.contract.catalogue import BY_COLUMN, Metric, Unit
from services.contract.sentinels import Missing
from services.exporter.mock_source import MockSource, fleet
from services.exporter.reading import Device, Number, Reading, Source, SourceError, Sweep, Trouble
from tests.support.gpu_worlds import H100S, MIG, P40, WORLDS, Stage, World, nvml_stage, smi_stage, with_values


class OpenStage(Protocol):
    def __call__(self, world: World, directory: Path, processes: bool = False) -> AbstractContextManager[Stage]: ...


STAGES: dict[str, OpenStage] = {"nvml": nvml_stage, "nvidia-smi": smi_stage}
SAME_TEXT = ("DCGM_FI_DRIVER_VERSION", "DCGM_FI_DEV_VBIOS_VERSION", "DCGM_FI_DEV_SERIAL", "DCGM_FI_DEV_BRAND")
on_each_source = pytest.mark.parametrize("stage_of", STAGES.values(), ids=STAGES)
in_each_world = pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
COARSEST = {Unit.MEBIBYTE: 1.0, Unit.WATT: 0.005 + 1e-9}
"""Where nvidia-smi prints less than NVML tells: whole MiB, cut by older and rounded by newer drivers (NVML's bytes are
cut to MiB, as DCGM does); W with two of three decimals."""


@contextmanager
def both(world: World, directory: Path, processes: bool = False) -> Iterator[tuple[Stage, Stage]]:
    with nvml_stage(world, directory, processes) as nvml, smi_stage(world, directory, processes) as smi:
        yield nvml, smi


def key(device: Device) -> tuple[str, int | None]:
    return device.uuid, device.instance_id


def agree(metric: Metric, one: Number, other: Number, within: float = 0.0) -> bool:
    return abs(one - other) <= within if metric.unit in COARSEST else one == other


def compare(one: Sweep, other: Sweep, coarse: bool = False) -> int:
    """How many values both have; each must be the same. Fails on the first that is not."""
    others = {key(reading.device): reading for reading in other.readings}
    assert [key(reading.device) for reading in one.readings] == list(others)
    shared = 0
    for reading in one.readings:
        twin = others[key(reading.device)]
        same_identity(reading, twin)
        for column in reading.values.keys() & twin.values.keys():
            metric, shared = BY_COLUMN[column], shared + 1
            a, b = reading.values[column], twin.values[column]
            assert agree(metric, a, b, COARSEST.get(metric.unit, 0.0) if coarse else 0.0), (column, a, b)
        for column in reading.missing.keys() & twin.missing.keys():
            assert reading.missing[column] == twin.missing[column], column
    return shared


def same_identity(one: Reading, other: Reading) -> None:
    for name in ("uuid", "index", "pci_bus_id", "model", "instance_id", "instance_profile"):
        assert getattr(one.device, name) == getattr(other.device, name), name
    for name in SAME_TEXT:
        assert one.device.labels.get(name) == other.device.labels.get(name), name


def check_rules(sweep: Sweep, source: Source) -> None:
    assert sweep.source == source.name
    order = [(r.device.index, -1 if r.device.instance_id is None else r.device.instance_id) for r in sweep.readings]
    assert order == sorted(set(order))
    for reading in sweep.readings:
        device = reading.device
        assert device.uuid.startswith("GPU-")
        assert device.model
        assert device.pci_bus_id == device.pci_bus_id.upper()
        assert len(device.pci_bus_id) == len("00000000:31:00.0")
        assert set(device.labels.values()) & {"", "N/A", "[N/A]"} == set()
        check_values(reading)


def check_values(reading: Reading) -> None:
    assert not reading.values.keys() & reading.missing.keys()
    assert reading.values.keys() | reading.missing.keys() <= BY_COLUMN.keys()
    assert set(reading.missing.values()) <= {Missing.UNSUPPORTED, Missing.PERMISSION, Missing.FAILED}
    for column, value in reading.values.items():
        metric = BY_COLUMN[column]
        assert metric.low <= value <= metric.high, column
        assert isinstance(value, int) == metric.sql.is_integer, column


@on_each_source
@in_each_world
def test_rules(stage_of: OpenStage, world: World, tmp_path: Path) -> None:
    with stage_of(world, tmp_path) as stage:
        for _ in range(2):
            sweep = stage.source.read()
            check_rules(sweep, stage.source)
            assert len({r.device.uuid for r in sweep.readings}) == len(world.gpus)
            assert sweep.lost == ()


def test_rules_of_the_mock() -> None:
    source = MockSource(fleet("h", [("A100", 2), ("P40", 1)]))
    for _ in range(2):
        sweep = source.read()
        check_rules(sweep, source)
        assert len(sweep.readings) == 3


@on_each_source
@in_each_world
def test_what_was_put_in_comes_out_or_is_absent(stage_of: OpenStage, world: World, tmp_path: Path) -> None:
    with stage_of(world, tmp_path) as stage:
        readings = {key(r.device): r for r in stage.source.read().readings}
    for gpu in world.gpus:
        reading = readings[gpu.uuid, None]
        for column, value in gpu.values.items():
            assert reading.values.get(column, value) == value, column
            if value is None:
                assert reading.missing.get(column, Missing.UNSUPPORTED) is Missing.UNSUPPORTED, column
        assert len(reading.values) >= 20
        for number, profile, memory in gpu.instances:
            row = readings[gpu.uuid, number]
            assert row.device.instance_profile == profile
            assert {column: row.values[column] for column in memory} == memory
            assert row.missing["gpu_util"] is Missing.UNSUPPORTED


def told(world: World) -> int:
    """Values that are put in, each of which both sources have: one that has fallen silent is seen."""
    values = [value for gpu in world.gpus for value in gpu.values.values() if value is not None]
    return len(values) + sum(len(memory) for gpu in world.gpus for _, _, memory in gpu.instances)


@in_each_world
def test_nvml_and_nvidia_smi_say_the_same(world: World, tmp_path: Path) -> None:
    with both(world, tmp_path) as (nvml, smi):
        assert compare(nvml.source.read(), smi.source.read()) == told(world)


NUMBERS = {
    "sm_clock": st.integers(0, 3000), "mem_clock": st.integers(0, 20000), "clocks_event_reasons": st.integers(0, 0x1FF),
    "pstate": st.integers(0, 15), "gpu_temp": st.integers(0, 120), "fan_speed": st.none() | st.integers(0, 100),
    "power_usage": st.none() | st.integers(0, 80_000).map(lambda hundredths: hundredths / 100),
    "power_limit": st.integers(0, 80_000).map(lambda hundredths: hundredths / 100),
    "pcie_replay_counter": st.integers(0, 2**32 - 2), "pcie_link_gen": st.integers(0, 7),
    "pcie_link_width": st.sampled_from([0, 1, 4, 8, 16]), "gpu_util": st.none() | st.integers(0, 100),
    "mem_copy_util": st.integers(0, 100), "fb_used": st.integers(0, 200_000), "fb_free": st.integers(0, 200_000),
    "ecc_sbe_vol_total": st.integers(0, 2**40), "ecc_dbe_agg_total": st.integers(0, 2**40),
    "retired_sbe": st.integers(0, 64), "retired_pending": st.sampled_from([0, 1]),
    "correctable_remapped_rows": st.integers(0, 512), "row_remap_failure": st.sampled_from([0, 1]),
}  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.fixed_dictionaries({}, optional=NUMBERS), st.sampled_from([11, 12, 13]))
def test_they_say_the_same_of_any_numbers(values: dict[str, float | int | None], schema: int) -> None:
    changed = with_values(H100S, values)
    world = World("any", changed.gpus[:1], changed.driver, schema)
    with TemporaryDirectory() as directory, both(world, Path(directory)) as (nvml, smi):
        assert compare(nvml.source.read(), smi.source.read()) >= 25


def test_where_nvidia_smi_prints_less_than_nvml_tells(tmp_path: Path) -> None:
    """Milliwatts and bytes that are no whole hundredths or MiB: the same number to the last digit that is printed."""
    with nvml_stage(P40, tmp_path) as nvml, smi_stage(P40, tmp_path) as smi:
        native = nvml.fake.gpus[0].native
        native |= {"power_usage": 187_456, "power_limit": 179_996}
        native |= {"fb_used": 22_010 * 2**20 + 700_000, "fb_reserved": 94 * 2**20 + 1_000_000}
        smi.fake.state(0, power_usage=187.46, power_limit=180.0, fb_used=22_011, fb_reserved=95)  # rounded, as from 545
        shared = compare(nvml.source.read(), smi.source.read(), coarse=True)
    assert shared == told(P40)


@on_each_source
@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_lost_gpu_leaves_the_others(stage_of: OpenStage, gone: int, tmp_path: Path) -> None:
    with stage_of(H100S, tmp_path) as stage:
        before = {r.device.uuid: r for r in stage.source.read().readings}
        stage.lose(gone)
        sweep = stage.source.read()
        check_rules(sweep, stage.source)
        left = [gpu for number, gpu in enumerate(H100S.gpus) if number != gone]
        assert [r.device.uuid for r in sweep.readings] == [gpu.uuid for gpu in left]
        for reading in sweep.readings:
            assert reading.device == before[reading.device.uuid].device
            assert reading.values["gpu_temp"] == before[reading.device.uuid].values["gpu_temp"]
        (lost,) = sweep.lost
        wanted = H100S.gpus[gone]
        assert (lost.uuid, lost.index, lost.pci_bus_id, lost.model) == (
            wanted.uuid, gone, wanted.pci_bus_id, wanted.model,
        )  # fmt: skip
        assert lost.reason == "GPU is lost"


@on_each_source
def test_the_only_gpu_is_lost_and_the_source_is_not(stage_of: OpenStage, tmp_path: Path) -> None:
    with stage_of(P40, tmp_path) as stage:
        stage.source.read()
        stage.lose(0)
        sweep = stage.source.read()
    assert sweep.readings == ()
    assert [(lost.uuid, lost.reason) for lost in sweep.lost] == [("GPU-p40", "GPU is lost")]


@on_each_source
@pytest.mark.parametrize("outcome", ["unsupported", "permission", "failed"])
@pytest.mark.parametrize("column", ["gpu_temp", "power_usage", "fan_speed", "memory_temp", "pcie_replay_counter"])
def test_why_a_metric_is_missing(stage_of: OpenStage, column: str, outcome: str, tmp_path: Path) -> None:
    with stage_of(with_values(H100S, {"fan_speed": 30}), tmp_path) as stage:
        stage.refuse(1, column, outcome)
        first, second, third = stage.source.read().readings
    assert second.missing[column] == Missing(outcome)
    assert column not in second.values
    assert "sm_clock" in second.values
    assert column == "fan_speed" or (column in first.values and column in third.values)


@on_each_source
@pytest.mark.parametrize("trouble", ["no_driver", "mismatch", "permission"])
def test_the_host_as_a_whole(stage_of: OpenStage, trouble: str, tmp_path: Path) -> None:
    with stage_of(P40, tmp_path) as stage:
        stage.break_down(trouble)
        with pytest.raises(SourceError) as error:
            stage.fresh().read()
    assert error.value.trouble is Trouble(trouble)
    assert len(str(error.value)) > 40  # it says what to do


@on_each_source
def test_closing_twice_does_no_harm(stage_of: OpenStage, tmp_path: Path) -> None:
    with stage_of(P40, tmp_path) as stage:
        stage.source.close()
        stage.source.close()


@on_each_source
def test_processes_are_asked_for(stage_of: OpenStage, tmp_path: Path) -> None:
    busy = replace(P40, gpus=(replace(P40.gpus[0], processes=((4_999_998, "C", 512), (4_999_999, "G", 7))),))
    with stage_of(busy, tmp_path) as stage:
        assert stage.source.read().readings[0].processes is None
    with stage_of(busy, tmp_path, processes=True) as stage:
        processes = stage.source.read().readings[0].processes
    assert processes is not None
    assert [(p.pid, p.kind, p.used_memory) for p in processes] == [(4_999_998, "C", 512), (4_999_999, "G", 7)]


def test_mig_rows_are_equal_with_processes_too(tmp_path: Path) -> None:
    with both(MIG, tmp_path, processes=True) as (nvml, smi):
        found = [[r.processes for r in stage.source.read().readings] for stage in (nvml, smi)]
    assert found == [[(), (), ()]] * 2
