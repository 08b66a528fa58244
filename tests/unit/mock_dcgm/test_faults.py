"""Each fault is seen in what the exporter serves, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from mock_dcgm.faults import MEANING, ONCE, FaultError, FaultSpec, Kind
from mock_dcgm.simulator import Simulator, Snapshot
from services.contract.catalogue import COUNTERS
from tests.unit.mock_dcgm.fleets import START, fleet_of, simulator_of, text_of

ENERGY = "total_energy_consumption"


def struck(simulator: Simulator, kind: Kind, seconds: float, **values: float) -> Snapshot:
    """Add the fault to GPU 1 and wait."""
    spec = FaultSpec(kind, host="node", gpu=1, value=values.get("value"), duration=values.get("duration"))
    simulator.faults.add(spec, simulator.elapsed)
    return [*simulator.run(seconds, 10)][-1]


def test_thermal_runaway_heats_throttles_and_ends() -> None:
    simulator = simulator_of("H100", count=3)
    simulator.step(60)
    snapshot = struck(simulator, Kind.THERMAL_RUNAWAY, 300)
    assert 89 <= snapshot.columns["gpu_temp"][1] < 95
    assert snapshot.columns["clocks_event_reasons"][1] & 0x48
    assert snapshot.columns["sm_clock"][1] < 600
    assert snapshot.columns["power_usage"][1] < 250
    assert snapshot.columns["thermal_violation"][1] > 0
    assert (snapshot.columns["gpu_temp"][[0, 2]] < 85).all()
    assert snapshot.alive.all()
    simulator.faults.clear()
    cooled = [*simulator.run(600, 10)][-1]
    assert cooled.columns["gpu_temp"][1] < 85
    assert not cooled.columns["clocks_event_reasons"][1] & 0x48


def test_a_runaway_past_shutdown_takes_the_gpu_off_the_bus_until_it_has_cooled() -> None:
    simulator = simulator_of("H100", count=3)
    simulator.step(60)
    snapshot = struck(simulator, Kind.THERMAL_RUNAWAY, 300, value=99)
    assert snapshot.alive.tolist() == [True, False, True]
    assert 'gpu="1"' not in text_of(simulator)
    assert 'gpu="2"' in text_of(simulator)
    simulator.faults.clear()
    back = [*simulator.run(600, 10)][-1]
    assert back.alive.all()
    assert back.columns[ENERGY][1] < back.columns[ENERGY][0]


def test_failing_fans_heat_the_gpu_until_software_slows_it() -> None:
    simulator = simulator_of("A100", profile="cycle", count=3)
    healthy = simulator.step(200).columns["gpu_temp"]  # at the peak, as 600 s later
    snapshot = struck(simulator, Kind.FAN_FAILURE, 600)
    assert snapshot.columns["gpu_temp"][1] > healthy[1] + 15
    assert snapshot.columns["gpu_temp"][[0, 2]] == pytest.approx(healthy[[0, 2]], abs=3)
    worse = struck(simulator, Kind.FAN_FAILURE, 600, value=3)
    assert worse.columns["clocks_event_reasons"][1] & 0x68


def test_an_ecc_storm_counts_single_bit_errors_at_its_rate() -> None:
    snapshot = struck(simulator_of("T4", count=3), Kind.ECC_STORM, 100, value=5)
    assert snapshot.columns["ecc_sbe_vol_total"][1] == pytest.approx(500, rel=0.2)
    assert (snapshot.columns["ecc_sbe_vol_total"][[0, 2]] <= 2).all()
    assert snapshot.columns["ecc_sbe_agg_total"][1] >= snapshot.columns["ecc_sbe_vol_total"][1]
    assert (snapshot.columns["ecc_dbe_vol_total"] == 0).all()


@pytest.mark.parametrize(("model", "marks"), [
    ("H100", ["uncorrectable_remapped_rows", "row_remap_pending"]), ("P40", ["retired_dbe", "retired_pending"]),
])  # fmt: skip
def test_a_double_bit_error_leaves_xid_48_and_a_repair(model: str, marks: list[str]) -> None:
    simulator = simulator_of(model, count=3)
    snapshot = struck(simulator, Kind.DBE, 100)
    assert snapshot.columns["xid_errors"].tolist() == [0, 48, 0]
    for column in ("ecc_dbe_vol_total", "ecc_dbe_agg_total", *marks):
        assert snapshot.columns[column].tolist() == [0, 1, 0], column
    text = text_of(simulator)
    assert ("DCGM_FI_DEV_ROW_REMAP_PENDING" in text) == (model == "H100")
    assert ("DCGM_FI_DEV_RETIRED_DBE" in text) == (model == "P40")


def test_an_xid_stays_in_the_gauge() -> None:
    simulator = simulator_of("A100", count=3)
    snapshot = struck(simulator, Kind.XID, 10, value=79, duration=5)
    assert snapshot.columns["xid_errors"].tolist() == [0, 79, 0]
    simulator.faults.clear()
    assert simulator.step(100).columns["xid_errors"].tolist() == [0, 79, 0]


def test_row_remaps_are_pending_until_a_reset() -> None:
    simulator = simulator_of("A100", count=3)
    snapshot = struck(simulator, Kind.ROW_REMAP, 10, value=3)
    assert snapshot.columns["correctable_remapped_rows"].tolist() == [0, 3, 0]
    assert snapshot.columns["row_remap_pending"].tolist() == [0, 1, 0]
    assert snapshot.columns["xid_errors"].tolist() == [0, 63, 0]
    failed = struck(simulator, Kind.ROW_REMAP_FAILURE, 10)
    assert failed.columns["row_remap_failure"].tolist() == [0, 1, 0]
    assert failed.columns["xid_errors"].tolist() == [0, 64, 0]


def test_a_stuck_power_cap_shows_its_limit_its_reason_and_its_violation() -> None:
    simulator = simulator_of("H100", profile="cycle", count=3)
    snapshot = struck(simulator, Kind.STUCK_POWER_CAP, 200, value=300)
    assert snapshot.columns["power_limit"].tolist() == [700, 300, 700]
    assert snapshot.columns["power_usage"][1] == pytest.approx(300, rel=0.1)
    assert snapshot.columns["power_usage"][0] > 600
    assert snapshot.columns["clocks_event_reasons"][1] & 0x4
    assert snapshot.columns["power_violation"][1] > snapshot.columns["power_violation"][0]
    default = struck(simulator, Kind.STUCK_POWER_CAP, 10)
    assert default.columns["power_limit"][1] == 200  # the board's minimum


def test_a_link_that_trained_down_is_narrow_slow_and_retries() -> None:
    snapshot = struck(simulator_of("H200", count=3), Kind.PCIE_DOWNTRAIN, 100, value=2)
    assert snapshot.columns["pcie_link_gen"].tolist() == [5, 2, 5]
    assert snapshot.columns["pcie_link_width"].tolist() == [16, 4, 16]
    assert snapshot.columns["pcie_max_link_gen"].tolist() == [5, 5, 5]
    assert snapshot.columns["pcie_replay_counter"][1] > 20


def test_nvlink_errors_are_counted() -> None:
    snapshot = struck(simulator_of("A100", count=3), Kind.NVLINK_ERRORS, 100, value=4)
    assert snapshot.columns["nvlink_crc_flit_error_count"][1] == pytest.approx(400, rel=0.3)
    assert snapshot.columns["nvlink_crc_flit_error_count"][[0, 2]].tolist() == [0, 0]


def test_frozen_counters_stand_still_and_others_go_on() -> None:
    simulator = simulator_of("A100", profile="cycle", count=3)
    before = simulator.step(100)
    snapshot = struck(simulator, Kind.FROZEN_COUNTERS, 100)
    assert all(values[1] == before.columns[name][1] for name, values in snapshot.columns.items())
    assert snapshot.columns[ENERGY][0] > before.columns[ENERGY][0]
    simulator.faults.clear()
    assert simulator.step(10).columns[ENERGY][1] > snapshot.columns[ENERGY][1]


def test_a_counter_reset_starts_since_driver_load_anew() -> None:
    simulator = simulator_of("A100", profile="cycle", count=3)
    simulator.faults.add(FaultSpec(Kind.ECC_STORM), 0.0)
    simulator.faults.add(FaultSpec(Kind.XID, value=31), 0.0)
    before = simulator.step(200)
    after = struck(simulator, Kind.COUNTER_RESET, 10)
    for name in (ENERGY, "ecc_sbe_vol_total", "power_violation", "low_util_violation"):
        assert after.columns[name][1] <= before.columns[name][1], name
    assert after.columns[ENERGY][1] < before.columns[ENERGY][1] / 2
    assert after.columns["ecc_sbe_agg_total"][1] >= before.columns["ecc_sbe_agg_total"][1]
    assert after.columns["xid_errors"].tolist() == [31, 0, 31]
    assert (after.columns[ENERGY][[0, 2]] > before.columns[ENERGY][[0, 2]]).all()


def test_a_lost_gpu_has_no_series_and_returns_with_a_fresh_driver() -> None:
    simulator = simulator_of("A100", profile="cycle", count=3)
    simulator.step(100)
    snapshot = struck(simulator, Kind.GPU_LOST, 100, duration=120)
    assert snapshot.alive.tolist() == [True, False, True]
    text = text_of(simulator)
    assert {'gpu="0"' in text, 'gpu="2"' in text} == {True}
    assert 'gpu="1"' not in text
    back = [*simulator.run(60, 10)][-1]
    assert back.alive.all()
    assert back.columns[ENERGY][1] < back.columns[ENERGY][0] / 2


def test_a_schedule_in_the_fleet_starts_and_ends_by_itself() -> None:
    fault = FaultSpec(Kind.STUCK_POWER_CAP, gpu=0, start=60, duration=120, value=150)
    simulator = Simulator(fleet_of("A100", count=2, faults=(fault,)), START)
    limits = {s.elapsed: s.columns["power_limit"].tolist() for s in simulator.run(300, 10)}
    assert limits[50] == [400, 400]
    assert limits[60] == limits[170] == [150, 400]
    assert limits[180] == [400, 400]


def test_a_fault_may_name_a_uuid_a_host_or_everything() -> None:
    simulator = simulator_of("A100", count=3)
    uuid = simulator.fleet.gpus[2].uuid
    rows = [
        simulator.faults.add(FaultSpec(Kind.GPU_LOST, gpu=uuid), 0.0).gpus.tolist(),
        simulator.faults.add(FaultSpec(Kind.GPU_LOST, host="node"), 0.0).gpus.tolist(),
        simulator.faults.add(FaultSpec(Kind.GPU_LOST), 0.0).gpus.tolist(),
    ]
    assert rows == [[2], [0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (FaultSpec(Kind.DBE, host="other"), "no GPU matches host='other'"),
        (FaultSpec(Kind.DBE, gpu=7), "gpu=7"),
        (FaultSpec(Kind.XID, value=1.5), "whole numbers from 1 to 1000"),
        (FaultSpec(Kind.XID, value=0), "whole numbers from 1"),
        (FaultSpec(Kind.PCIE_DOWNTRAIN, value=17), "from 1 to 16"),
        (FaultSpec(Kind.TRUNCATED_BODY, value=1), "below 1"),
        (FaultSpec(Kind.EXPORTER_HANG, gpu=0), "name a host, no gpu"),
    ],
)
def test_an_impossible_fault_is_refused(spec: FaultSpec, words: str) -> None:
    with pytest.raises(FaultError, match=words.replace("[", r"\[")):
        simulator_of("A100", count=2).faults.add(spec, 0.0)


def test_a_board_that_retires_pages_cannot_remap_rows() -> None:
    with pytest.raises(FaultError, match="retires pages"):
        simulator_of("T4").faults.add(FaultSpec(Kind.ROW_REMAP), 0.0)
    mixed = simulator_of("T4", "A100").faults.add(FaultSpec(Kind.ROW_REMAP), 0.0)
    assert mixed.gpus.tolist() == [1]


def test_clearing_one_fault_leaves_the_others() -> None:
    book = simulator_of("A100").faults
    first, second = (book.add(FaultSpec(kind), 0.0) for kind in (Kind.GPU_LOST, Kind.FAN_FAILURE))
    assert [fault.id for fault in book.clear(first.id)] == [first.id]
    assert book.clear(first.id) == []
    assert [fault.id for fault in book.entries()] == [second.id]
    assert len(book.clear()) == 1


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_a_meaning_and_can_be_injected(kind: Kind) -> None:
    assert MEANING[kind]
    assert ("once: " in MEANING[kind]) == (kind in ONCE)
    simulator = simulator_of("A100", count=2)
    simulator.faults.add(FaultSpec(kind), 0.0)
    simulator.step(30)


def test_counters_never_fall_under_faults_that_do_not_reload_the_driver() -> None:
    simulator = simulator_of("A100", profile="cycle", count=2)
    for kind in set(Kind) - {Kind.COUNTER_RESET, Kind.GPU_LOST, Kind.THERMAL_RUNAWAY}:  # heat may take the GPU down
        simulator.faults.add(FaultSpec(kind, start=50, duration=100), 0.0)
    last = simulator.step(10).columns
    for snapshot in simulator.run(400, 10):
        assert all((snapshot.columns[m.column] >= last[m.column]).all() for m in COUNTERS)
        last = snapshot.columns
    assert np.isfinite(last["power_usage"]).all()
