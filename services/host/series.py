"""Samples of a GPU over time: what they speak for, and where nobody knows. Pure functions.

A sample speaks for the time until the next one. Where the next one is too far off nobody knows what happened in
between: that time is a gap, counted, and left out of means and sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

GAP_FACTOR: Final = 1.5
"""Of the usual distance between samples: beyond it at least one is missing."""
GAP_SLACK: Final = 2.0
"""Seconds a busy host delays a sample without one being missing."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One GPU at one moment. None: no value."""

    time: float
    """Seconds since the epoch."""
    temp: float | None = None
    """C"""
    power: float | None = None
    """W"""
    reasons: int | None = None
    """Bits of `clocks_event_reasons`."""
    energy: int | None = None
    """mJ since the driver was loaded."""
    sm_clock: int | None = None
    """MHz"""


Series = Sequence[Sample]
"""By time, no time twice."""
Points = list[tuple[float, float]]
"""(seconds since the epoch, value)"""


def order(samples: Iterable[Sample]) -> list[Sample]:
    """By time; of two with the same time the first."""
    known: dict[float, Sample] = {}
    for sample in samples:
        known.setdefault(sample.time, sample)
    return [known[time] for time in sorted(known)]


def longest_step(times: Sequence[float]) -> float:
    """Seconds between two samples beyond which one is missing; infinite where there are fewer than two."""
    if len(times) < 2:
        return float("inf")
    usual = usual_step(times)
    return max(usual * GAP_FACTOR, usual + GAP_SLACK)


def usual_step(times: Sequence[float]) -> float:
    """Median of the seconds between samples; at least two times."""
    return median(later - earlier for earlier, later in pairwise(times))


def gaps(times: Sequence[float], begin: float, end: float) -> list[tuple[float, float]]:
    """(from, to) of each stretch within [begin, end] that no sample speaks for, the edges included."""
    if len(times) < 2:
        return [(begin, end)] if end > begin else []
    limit = longest_step(times)
    marks = [*([begin] if begin < times[0] else []), *times, *([end] if end > times[-1] else [])]
    holes = ((max(a, begin), min(b, end)) for a, b in pairwise(marks) if b - a > limit)
    return [(a, b) for a, b in holes if b > a]


def steps(points: Points, begin: float, end: float) -> list[tuple[float, float, float, float]]:
    """Straight pieces (t0, v0, t1, v1) between samples that are near enough, cut to [begin, end]."""
    limit = longest_step([t for t, _ in points])
    pieces = []
    for (t0, v0), (t1, v1) in pairwise(points):
        low, high = max(t0, begin), min(t1, end)
        if high > low and t1 - t0 <= limit:
            slope = (v1 - v0) / (t1 - t0)
            pieces.append((low, v0 + slope * (low - t0), high, v0 + slope * (high - t0)))
    return pieces


def integral(points: Points, begin: float, end: float) -> tuple[float, float]:
    """(area, seconds covered)"""
    pieces = steps(points, begin, end)
    return sum((v0 + v1) / 2 * (t1 - t0) for t0, v0, t1, v1 in pieces), sum(t1 - t0 for t0, _, t1, _ in pieces)
