"""What a load did to a GPU: temperatures, throttling, watts, energy, from its samples. Pure functions.

What cannot be said is None, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from typing import Final

from services.contract.clocks_event import THERMAL, THROTTLING
from services.host.energy import Energy, energy
from services.host.series import Points, Series, gaps, integral, longest_step

STEADY_WINDOW: Final = 60.0
"""Seconds. The steady temperature is the mean of the last minute under load: longer than a fan controller's swing of 10
to 30 s, and short against the 5 to 15 minutes in which a board warms through."""
STEADY_TOLERANCE: Final = 1.0
"""C, the resolution of the sensor: a smaller difference between two minutes cannot be measured."""
START_WINDOW: Final = 60.0
"""Seconds before the load in which its last sample tells the temperature at the start."""
POWER_REASONS: Final = 0x4 | 0x80
"""Power cap and external power brake."""


@dataclass(frozen=True, slots=True)
class Throttled:
    """Seconds under load in which the clocks were held back. None: the card or the exporter does not say why."""

    thermal: float | None
    """Software or hardware thermal slowdown."""
    power: float | None
    """Power cap or power brake."""
    other: float | None
    """Hardware slowdown that names neither."""
    any: float | None
    """Any of them; less than their sum where several held at once."""


@dataclass(frozen=True, slots=True)
class Summary:
    """One GPU under load from `begin` to `end` (seconds since the epoch). Temperatures in C."""

    begin: float
    end: float
    samples: int
    gaps: int
    gap_seconds: float
    start: float | None
    peak: float | None
    steady: float | None
    time_to_steady: float | None
    """Seconds from the start of the load until the temperature is within a degree of the steady one, and stays so for a
    minute on average."""
    throttled: Throttled
    mean_watts: float | None
    energy: Energy
    degrees_per_watt: float | None
    """(steady - start) / mean watts."""
    unknown: dict[str, str] = field(default_factory=dict)
    """Field -> why it is None."""


def summarise(series: Series, begin: float, end: float) -> Summary:
    """`series` may reach beyond the load: what lies before tells the start, what lies around closes the edges."""
    unknown: dict[str, str] = {}
    temps: Points = [(s.time, s.temp) for s in series if s.temp is not None]
    inside = [s for s in series if begin <= s.time <= end]
    missing = gaps([s.time for s in series], begin, end)
    steady, why = steady_temperature(temps, begin, end)
    _note(unknown, "steady", steady, why)
    start = start_temperature(temps, begin)
    _note(unknown, "start", start, f"no temperature in the {START_WINDOW:.0f} s before the load, nor at its start")
    peak = max((v for t, v in temps if begin <= t <= end), default=None)
    _note(unknown, "peak", peak, "no temperature under load")
    watts = mean_watts(series, begin, end)
    _note(unknown, "mean_watts", watts, "no power readings under load")
    throttled = throttled_seconds(series, begin, end)
    _note(unknown, "throttled", throttled.any, "no clocks_event_reasons under load")
    used = energy(series, begin, end)
    _note(unknown, "energy", used.joules, used.reason or "")
    per_watt = (steady - start) / watts if steady is not None and start is not None and watts else None
    lacking = " and ".join(
        n for n, v in (("start", start), ("steady", steady), ("mean_watts", watts or None)) if v is None
    )
    _note(unknown, "degrees_per_watt", per_watt, f"{lacking} unknown")
    return Summary(
        begin=begin,
        end=end,
        samples=len(inside),
        gaps=len(missing),
        gap_seconds=sum(later - earlier for earlier, later in missing),
        start=start,
        peak=peak,
        steady=steady,
        time_to_steady=None if steady is None else time_to_steady(temps, begin, end, steady),
        throttled=throttled,
        mean_watts=watts,
        energy=used,
        degrees_per_watt=per_watt,
        unknown=unknown,
    )


def _note(unknown: dict[str, str], name: str, value: float | None, reason: str) -> None:
    if value is None:
        unknown[name] = reason


def start_temperature(temps: Points, begin: float) -> float | None:
    """The last one before the load, not older than START_WINDOW; else the first one within a sample's distance of its
    start, when the board has not warmed yet."""
    before = [v for t, v in temps if begin - START_WINDOW <= t <= begin]
    if before:
        return before[-1]
    limit = min(longest_step([t for t, _ in temps]), START_WINDOW)
    return next((v for t, v in temps if begin < t <= begin + limit), None)


def steady_temperature(temps: Points, begin: float, end: float) -> tuple[float | None, str]:
    """(mean of the last minute, "") where it differs from the minute before by no more than STEADY_TOLERANCE, else
    (None, why)."""
    if end - begin < 2 * STEADY_WINDOW:
        return None, f"the load ran for less than {2 * STEADY_WINDOW:.0f} s"
    last = [v for t, v in temps if end - STEADY_WINDOW < t <= end]
    before = [v for t, v in temps if end - 2 * STEADY_WINDOW < t <= end - STEADY_WINDOW]
    if len(last) < 2 or len(before) < 2:
        return None, "fewer than two temperatures in one of the last two minutes"
    change = fmean(last) - fmean(before)
    if abs(change) > STEADY_TOLERANCE:
        return None, f"not reached: {change:+.1f} C from the last minute but one to the last"
    return fmean(last), ""


def time_to_steady(temps: Points, begin: float, end: float, steady: float) -> float | None:
    """Seconds from `begin`. The mean of the minute that follows must be within the tolerance too: a temperature that
    only passes through is not steady."""
    inside = [(t, v) for t, v in temps if begin <= t <= end]
    for at, value in inside:
        if abs(value - steady) <= STEADY_TOLERANCE:
            following = [v for t, v in inside if at <= t <= at + STEADY_WINDOW]
            if abs(fmean(following) - steady) <= STEADY_TOLERANCE:
                return at - begin
    return None


def throttled_seconds(series: Series, begin: float, end: float) -> Throttled:
    """What a sample says of the clocks holds until the next one."""
    held = {"thermal": 0.0, "power": 0.0, "other": 0.0, "any": 0.0}
    limit = longest_step([s.time for s in series])
    known = False
    for sample, following in pairwise(series):
        low, high = max(sample.time, begin), min(following.time, end)
        if sample.reasons is None or high <= low or following.time - sample.time > limit:
            continue
        known = True
        for kind in _kinds(sample.reasons):
            held[kind] += high - low
    return Throttled(**held) if known else Throttled(None, None, None, None)


def _kinds(bits: int) -> list[str]:
    if not bits & THROTTLING:
        return []
    named = [name for name, mask in (("thermal", THERMAL), ("power", POWER_REASONS)) if bits & mask]
    return [*(named or ["other"]), "any"]


def mean_watts(series: Series, begin: float, end: float) -> float | None:
    """Weighted by time, over what the samples speak for."""
    joules, covered = integral([(s.time, s.power) for s in series if s.power is not None], begin, end)
    return joules / covered if covered > 0 else None
