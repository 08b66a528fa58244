from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from mock_dcgm.columns import Column
from mock_dcgm.models import MODELS
from mock_dcgm.physics import GPU_IDLE, HW_SLOWDOWN, HW_THERMAL, SW_POWER_CAP, SW_THERMAL, Ints
from mock_dcgm.simulator import Simulator
from services.contract.catalogue import COUNTERS
from tests.unit.mock_dcgm.fleets import START, fleet_of, simulator_of

PROFILES = ["cycle", "training", "inference", "idle", "held", "bursty", "cluster"]


def _reasons(columns: Mapping[str, Column]) -> Ints:
    return columns["clocks_event_reasons"].astype(np.int64)


@pytest.mark.parametrize("interval", [1.0, 10.0, 7.3])
def test_energy_is_the_integral_of_the_reported_power(interval: float) -> None:
    simulator = simulator_of("T4", "A100", "H100", "H200", profile="cycle")
    joules = np.zeros(4)
    for snapshot in simulator.run(900, interval):
        joules += snapshot.columns["power_usage"] * interval
        assert snapshot.columns["total_energy_consumption"] == pytest.approx(joules * 1e3, abs=1.0)


@pytest.mark.parametrize("profile", PROFILES)
def test_without_a_fault_nothing_reaches_the_slowdown_temperature(profile: str) -> None:
    simulator = simulator_of(*MODELS, profile=profile, count=4, seed=5)
    limits = np.repeat([m.slowdown_temp for m in MODELS.values()], 4)
    hottest = np.max([s.columns["gpu_temp"] for s in simulator.run(7_200, 10)], axis=0)
    assert (hottest < limits).all()


@pytest.mark.parametrize("profile", PROFILES)
def test_a_reduced_clock_has_a_reason_and_a_reason_a_reduced_clock(profile: str) -> None:
    simulator = simulator_of(*MODELS, profile=profile, count=4)
    top = np.repeat([m.sm_clock_max for m in MODELS.values()], 4)
    for snapshot in simulator.run(1_200, 10):
        reasons, clock = snapshot.columns["clocks_event_reasons"], snapshot.columns["sm_clock"]
        assert ((reasons != 0) == (clock < top)).all()


def test_the_power_cap_holds_on_average_and_lowers_the_clock() -> None:
    simulator = simulator_of("A100", "H100", "T4", profile="training", count=8)
    rows = [s.columns for s in simulator.run(1_200, 10)]
    capped = np.array([_reasons(row) & SW_POWER_CAP > 0 for row in rows])
    power = np.array([row["power_usage"] for row in rows])
    limit = rows[0]["power_limit"]
    assert capped.any(axis=0).sum() > 8
    for gpu in np.flatnonzero(capped.sum(axis=0) > 20):
        assert power[capped[:, gpu], gpu].mean() == pytest.approx(limit[gpu], rel=0.03)
    assert (power <= limit * 1.1).all()


def test_violations_count_the_time_under_their_reason() -> None:
    simulator = simulator_of("A100", profile="cycle", count=4)
    under_cap, idle = np.zeros(4), np.zeros(4)
    for snapshot in simulator.run(600, 10):
        columns = snapshot.columns
        under_cap += np.where(_reasons(columns) & SW_POWER_CAP, 10e9, 0)
        idle += np.where(_reasons(columns) & GPU_IDLE, 10e9, 0)
        assert (columns["power_violation"] == under_cap).all()
        assert (columns["low_util_violation"] == idle).all()
        assert (columns["thermal_violation"] == 0).all()
    assert under_cap.min() > 0


def test_temperature_follows_power_with_inertia() -> None:
    simulator = simulator_of("H100", profile="cycle")
    rows = {s.elapsed: s.columns for s in simulator.run(300, 1)}
    start, rising, settled = (rows[t]["gpu_temp"][0] for t in (60, 121, 235))
    assert start < rising < settled
    assert rows[121]["power_usage"][0] == pytest.approx(rows[235]["power_usage"][0], rel=0.1)
    assert settled - start == pytest.approx(0.062 * (rows[235]["power_usage"][0] - rows[60]["power_usage"][0]), rel=0.3)


@pytest.mark.parametrize(("model", "idle", "busy"), [("H100", 70, 700), ("A100", 62, 400), ("T4", 14.5, 70)])
def test_idle_and_full_power_are_those_of_the_board(model: str, idle: float, busy: float) -> None:
    assert simulator_of(model, profile="idle").step(60).columns["power_usage"][0] == pytest.approx(idle, rel=0.1)
    peak = max(s.columns["power_usage"][0] for s in simulator_of(model, profile="cycle").run(300, 10))
    assert peak == pytest.approx(busy, rel=0.1)


def test_framebuffer_adds_up() -> None:
    simulator = simulator_of(*MODELS, profile="cycle")
    for snapshot in simulator.run(600, 10):
        columns = snapshot.columns
        assert (columns["fb_free"] + columns["fb_used"] + columns["fb_reserved"] == columns["fb_total"]).all()
        assert (columns["fb_free"] >= 0).all()


@pytest.mark.parametrize("profile", PROFILES)
def test_counters_only_grow(profile: str) -> None:
    simulator = simulator_of(*MODELS, profile=profile, count=4)
    last = simulator.step(10).columns
    for snapshot in simulator.run(3_600, 30):
        for metric in COUNTERS:
            assert (snapshot.columns[metric.column] >= last[metric.column]).all(), metric.column
        last = snapshot.columns


def test_the_same_seed_gives_the_same_columns_and_another_seed_others() -> None:
    def columns(seed: int) -> list[dict[str, list[float]]]:
        simulator = Simulator(fleet_of("A100", "T4", profile="cluster", count=4, seed=seed), START)
        return [{n: v.tolist() for n, v in s.columns.items()} for s in simulator.run(600, 10)]

    assert columns(1) == columns(1)
    assert columns(1) != columns(2)


def test_a_long_step_is_cut_so_that_limits_act() -> None:
    short, long = (simulator_of("A100", profile="cycle") for _ in range(2))
    for _ in range(10):
        short.step(10)
    long.step(100)
    assert short.snapshot.columns["gpu_temp"].tolist() == long.snapshot.columns["gpu_temp"].tolist()
    assert short.elapsed == long.elapsed == 100


def test_reason_bits_are_nvidias() -> None:
    assert (GPU_IDLE, SW_POWER_CAP, HW_SLOWDOWN, SW_THERMAL, HW_THERMAL) == (0x1, 0x4, 0x8, 0x20, 0x40)
