"""The `cluster` profile against the distributions of a production A100 cluster (AcmeTrace Kalos, CC BY 4.0)."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mock_dcgm.fleet import build, spread
from mock_dcgm.simulator import Simulator
from tests.support.prerequisites import missing

Floats = npt.NDArray[np.float64]

RANKS = [5, 10, 25, 40, 50, 60, 70, 80, 90, 95]
KALOS: dict[str, list[float]] = {
    "power_usage": [61.9, 63.0, 66.4, 94.0, 101.4, 148.7, 325.3, 388.7, 403.6, 413.0],
    "gpu_temp": [25, 27, 30, 36, 40, 44, 49, 54, 58, 62],
    "memory_temp": [40, 42, 46, 49, 51, 53, 56, 58, 61, 64],
    "gpu_util": [0, 0, 0, 97, 98, 99, 99, 100, 100, 100],
    "fb_used": [0, 0, 0, 39_900, 61_770, 63_000, 63_240, 63_650, 72_170, 76_590],
    "sm_active": [0, 0, 0, 0.018, 0.333, 0.651, 0.713, 0.769, 0.913, 0.941],
}
"""Quantiles at `RANKS` per cent, rounded."""
TOLERANCE = {  # power: the cluster's boards pass their 400 W cap by more than the mock's do
    "power_usage": 15.0, "gpu_temp": 4.0, "memory_temp": 4.0, "gpu_util": 3.0, "fb_used": 4_000.0, "sm_active": 0.05,
}  # fmt: skip
IDLE_SHARE = 0.258
"""Samples at 0 % utilisation."""


@pytest.fixture(scope="module")
def day() -> dict[str, Floats]:
    """A day of 512 A100, a sample of each every five minutes."""
    simulator = Simulator(build(spread(512, 64, [("A100", 1)], "cluster", 3)))
    rows = [s.columns for s in simulator.run(86_400, 300)]
    return {name: np.concatenate([row[name] for row in rows]).astype(np.float64) for name in KALOS}


@pytest.mark.parametrize("column", KALOS)
def test_a_day_is_spread_as_in_the_cluster(day: dict[str, Floats], column: str) -> None:
    """Each quantile is near in value, or (where the distribution is steep) near in rank: within three points."""
    for rank, target in zip(RANKS, KALOS[column], strict=True):
        value = float(np.percentile(day[column], rank))
        reached = 100 * float((day[column] <= target).mean())
        near = abs(value - target) <= TOLERANCE[column] or abs(reached - rank) <= 3.0
        assert near, f"p{rank}: {value:g} instead of {target:g}, which the mock reaches at p{reached:.1f}"


def test_a_quarter_of_the_samples_is_idle(day: dict[str, Floats]) -> None:
    assert (day["gpu_util"] == 0).mean() == pytest.approx(IDLE_SHARE, abs=0.03)
    assert (day["sm_active"] == 0).mean() == pytest.approx(0.376, abs=0.04)


def test_the_committed_targets_are_those_of_the_traces() -> None:
    folder = os.environ.get("GPUMON_TRACES_DIR")  # noqa: TID251 - the tests' own switch, no setting of the product
    if not folder:
        missing("traces", "GPUMON_TRACES_DIR names no folder with the AcmeTrace distributions")
    source = {
        "power_usage": ("gpu_power_kalos_cdf.csv", 0, 1.0),
        "gpu_temp": ("gpu_temp_kalos_cdf.csv", 0, 1.0),
        "memory_temp": ("gpu_temp_kalos_cdf.csv", 2, 1.0),
        "gpu_util": ("util_gpu_kalos_full_cdf.csv", 0, 1.0),
        "fb_used": ("util_gpu_kalos_full_cdf.csv", 2, 819.2),
        "sm_active": ("util_gpu_kalos_full_cdf.csv", 4, 0.01),
    }
    for column, (name, field, scale) in source.items():
        with Path(folder, name).open() as file:
            rows = np.array([[float(cell) for cell in row] for row in [*csv.reader(file)][1:]])
        real = np.interp(RANKS, rows[:, field + 1], rows[:, field]) * scale
        assert real == pytest.approx(KALOS[column], rel=0.01, abs=0.6), column
