"""The data of a picture, whatever it came from: lines, what the host was doing, when GPUs were held back. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from services.contract.catalogue import Metric
from services.contract.clocks_event import THERMAL

Floats = npt.NDArray[np.float64]

GAP_STEPS: Final = 2.5
"""Usual distances of points around: where two are farther apart, at least two samples are missing."""
HEAT: Final = THERMAL | 0x8
"""Bits shown as heat. hw_slowdown is heat or an external brake; heat is what an operator must look at first."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU or MIG instance and its limits, None where not known."""

    gpu_id: int
    uuid: str
    hostname: str
    index: int | None = None
    model: str | None = None
    instance_id: int | None = None
    slowdown_temp: float | None = None
    """C."""
    memory_total: float | None = None
    """MiB."""
    power_limit: float | None = None
    """W; the largest in the range."""

    @property
    def name(self) -> str:
        """`0 Tesla P40`, `3/7 A100-SXM4-80GB`; without the maker's name."""
        number = "?" if self.index is None else str(self.index)
        number += "" if self.instance_id is None else f"/{self.instance_id}"
        return f"{number} {(self.model or self.uuid).removeprefix('NVIDIA ')}"


@dataclass(frozen=True, slots=True)
class Series:
    """One metric of one GPU over time. All arrays have one element per point; NaN: no value."""

    gpu: Gpu
    metric: Metric
    times: Floats
    """Seconds since the epoch, rising; of a bucket its middle."""
    values: Floats
    """Means over buckets, or the rows' values, in the catalogue's unit."""
    low: Floats | None
    """Minima of the buckets; None where points are rows."""
    high: Floats | None
    counts: Floats
    """Samples with a value behind each point."""

    def summary(self) -> tuple[float, float, float] | None:
        """Minimum, mean of the samples, maximum; None without values."""
        known = ~np.isnan(self.values)
        if not known.any():
            return None
        low = self.values if self.low is None else self.low
        high = self.values if self.high is None else self.high
        mean = float(np.average(self.values[known], weights=np.maximum(self.counts[known], 1)))
        return float(np.nanmin(low)), mean, float(np.nanmax(high))


@dataclass(frozen=True, slots=True)
class Run:
    """A time during which a host said it was doing one thing."""

    hostname: str
    start: float
    """Seconds since the epoch."""
    end: float
    tag: str | None
    memo: str | None


@dataclass(frozen=True, slots=True)
class Throttled:
    """A time during which a GPU was held back."""

    gpu: Gpu
    start: float
    end: float
    bits: int
    """All clock event reasons seen in it."""

    @property
    def by_heat(self) -> bool:
        return bool(self.bits & HEAT)


@dataclass(frozen=True, slots=True)
class Picture:
    """All that is drawn."""

    start: float
    """Begin of the range asked for, seconds since the epoch."""
    end: float
    gpus: tuple[Gpu, ...]
    metrics: tuple[Metric, ...]
    series: tuple[Series, ...]
    runs: tuple[Run, ...]
    throttled: tuple[Throttled, ...]
    relation: str
    """The table the points come from."""
    bucket: float
    """Seconds a point stands for; 0: points are rows."""
    notes: tuple[str, ...] = ()

    @property
    def extent(self) -> tuple[float, float]:
        """Time of the first and the last point."""
        times = [s.times for s in self.series if len(s.times)]
        return min(float(t[0]) for t in times), max(float(t[-1]) for t in times)

    @property
    def points(self) -> int:
        return max((len(s.times) for s in self.series), default=0)


_AROUND: Final = 11
"""Distances that say what is usual at a place. Fewer would take two gaps in a row for it; more would be slow to notice
that somebody has changed the interval."""


def usual_steps(times: Floats) -> Floats:
    """For each distance of two points the usual one around it (the lower median), seconds; one fewer than points."""
    steps = np.diff(times)
    if len(steps) < 2:
        return steps
    padded = np.pad(steps, _AROUND // 2, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, _AROUND)
    usual: Floats = np.nanquantile(windows, 0.5, axis=1, method="lower")
    return usual


def with_gaps(series: Series) -> Series:
    """A point without a value in each gap, so that lines and bands break there."""
    usual = usual_steps(series.times)
    where = np.flatnonzero(np.diff(series.times) > GAP_STEPS * usual) + 1
    if not len(where):
        return series

    def broken(values: Floats | None) -> Floats | None:
        return None if values is None else np.insert(values, where, np.nan)

    times = np.insert(series.times, where, series.times[where - 1] + usual[where - 1])
    values, counts = np.insert(series.values, where, np.nan), np.insert(series.counts, where, 0.0)
    return replace(series, times=times, values=values, counts=counts, low=broken(series.low), high=broken(series.high))


def lonely(values: Floats) -> npt.NDArray[np.bool_]:
    """Points with nothing on either side, which a line would not show."""
    missing = np.isnan(np.concatenate(([np.nan], values, [np.nan])))
    return ~missing[1:-1] & missing[:-2] & missing[2:]


def merge_runs(found: Iterable[Run], gap: float) -> list[Run]:
    """The GPUs of a host tell of the same runs: one of each. Runs at most `gap` seconds apart are one."""
    merged: list[Run] = []
    for run in sorted(found, key=lambda r: (r.hostname, r.start, r.end)):
        last = next((m for m in reversed(merged) if m.hostname == run.hostname), None)
        if last and (last.tag, last.memo) == (run.tag, run.memo) and run.start <= last.end + gap:
            merged[merged.index(last)] = replace(last, end=max(last.end, run.end))
        else:
            merged.append(run)
    return merged


def hosts(gpus: Sequence[Gpu]) -> list[str]:
    """Distinct, in order."""
    return list(dict.fromkeys(gpu.hostname for gpu in gpus))
