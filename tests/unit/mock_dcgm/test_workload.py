from __future__ import annotations

import numpy as np
import pytest

from mock_dcgm.simulator import Simulator
from mock_dcgm.workload import PROFILES, Step
from tests.unit.mock_dcgm.fleets import START, fleet_of, simulator_of

HOUR = 3600.0


def test_the_cycle_keeps_the_times_of_the_five_minutes() -> None:
    simulator = simulator_of("A100", profile="cycle", count=8)
    util = {s.elapsed: s.columns["gpu_util"].mean() for s in simulator.run(600, 10)}
    for start in (0, 300):
        assert util[start + 30] == pytest.approx(10, abs=2)
        assert util[start + 60] == pytest.approx(10, abs=2)
        assert util[start + 90] == pytest.approx(50, abs=2)
        assert util[start + 120] == pytest.approx(90, abs=2)
        assert util[start + 240] == pytest.approx(90, abs=2)
        assert util[start + 270] == pytest.approx(50, abs=2)


def test_memory_follows_the_load() -> None:
    simulator = simulator_of("A100", profile="cycle")
    used = {s.elapsed: float(s.columns["fb_used"][0]) / 81_920 for s in simulator.run(300, 10)}
    assert used[50] == pytest.approx(0.1, abs=0.02)
    assert used[240] == pytest.approx(0.9, abs=0.02)


def test_training_dips_for_checkpoints_and_is_steady_between() -> None:
    simulator = simulator_of("H100", profile="training")
    util = np.array([s.columns["gpu_util"][0] for s in simulator.run(4 * HOUR, 10)])
    dips = np.diff((util < 50).astype(int)) == 1
    assert 5 <= dips.sum() <= 12  # every 20 to 40 minutes
    assert 0.01 < (util < 50).mean() < 0.05
    assert np.percentile(util[util >= 50], 1) >= 95


def test_inference_follows_the_day() -> None:
    simulator = Simulator(fleet_of("H100", profile="inference", count=8), start=0.0)  # midnight UTC
    power = {s.elapsed / HOUR: s.columns["gpu_util"].mean() for s in simulator.run(24 * HOUR, 600)}
    at = {hour: np.mean([power[h] for h in power if abs(h - hour) < 1]) for hour in (3, 9, 15, 21)}
    assert at[3] < 20
    assert at[15] > 55
    assert at[3] < at[9] < at[15] > at[21] > at[3]


def test_an_idle_gpu_reports_exact_zeros_and_steady_values() -> None:
    simulator = simulator_of("A100", profile="idle", count=4)
    rows = list(simulator.run(600, 10))
    zeros = ("gpu_util", "mem_copy_util", "sm_active", "gr_engine_active", "tensor_active", "dram_active", "fb_used")
    assert all((row.columns[name] == 0).all() for row in rows for name in zeros)
    assert all((row.columns["clocks_event_reasons"] == 1).all() for row in rows)
    power = np.array([row.columns["power_usage"] for row in rows])
    temperature = np.array([row.columns["gpu_temp"] for row in rows])
    assert power.std(axis=0).max() < 0.1
    assert np.ptp(temperature, axis=0).max() <= 1


def test_held_memory_without_work_costs_power_and_shows_no_utilisation() -> None:
    simulator = simulator_of("H100", profile="held", count=4)
    columns = simulator.step(60).columns
    assert (columns["gpu_util"] == 0).all()
    assert (columns["fb_used"] > 5_000).all()
    assert columns["power_usage"] == pytest.approx(120, abs=8)
    assert (columns["clocks_event_reasons"] == 0).all()
    assert (columns["sm_clock"] == 1_980).all()


def test_bursts_come_and_go() -> None:
    simulator = simulator_of("T4", profile="bursty", count=32)
    busy = np.array([s.columns["gpu_util"] > 0 for s in simulator.run(2 * HOUR, 10)])
    assert busy.mean() == pytest.approx(120 / 420, abs=0.08)
    assert (busy.any(axis=0) & ~busy.all(axis=0)).all()


def test_the_gpus_of_a_host_run_one_job() -> None:
    simulator = simulator_of("A100", profile="cluster", count=8)
    spread = [np.ptp(s.columns["sm_active"]) for s in simulator.run(4 * HOUR, 60)]
    assert np.median(spread) < 0.25


@pytest.mark.parametrize("profile", PROFILES)
def test_activity_is_made_of_ratios(profile: str) -> None:
    rng = np.random.default_rng(3)
    made = PROFILES[profile](np.repeat(np.arange(20), 8), rng)
    for elapsed in range(10, 6_000, 130):
        activity = made.step(Step(elapsed, START + elapsed, 130.0))
        for name in activity.__dataclass_fields__:
            values = getattr(activity, name)
            assert values.shape == (160,), name
            assert values.min() >= 0.0, name
            assert values.max() <= 1.0, name
