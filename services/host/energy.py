"""The energy of a run from samples: the energy counter where the card has one, else its power readings. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from services.host.series import Points, Series, integral, longest_step, usual_step

COVERED: Final = 0.95
"""Part of the time that samples must cover before a sum over all of it is told: the watts themselves may be off
by about as much (nvidia-smi's manual: to within 5 W)."""


@dataclass(frozen=True, slots=True)
class Energy:
    joules: float | None
    method: str | None
    """`counter`: total_energy_consumption; `power`: integral of power_usage."""
    covered: float
    """Seconds the samples speak for."""
    reason: str | None = None
    """Why there is no value."""


def energy(series: Series, begin: float, end: float) -> Energy:
    """Joules from `begin` to `end`: difference of the energy counter (read between two samples along a straight line)
    where the card has one and it did not start again, else the integral of the power readings."""
    counter: Points = [(s.time, float(s.energy)) for s in series if s.energy is not None]
    power: Points = [(s.time, s.power) for s in series if s.power is not None]
    if not power and not counter:
        return Energy(None, None, 0.0, "neither an energy counter nor power readings")
    for method, points, value in (("counter", counter, _counted), ("power", power, integral)):
        if len(points) > 1:
            step = usual_step([t for t, _ in points])
            if end - begin < 2 * step:
                return Energy(None, None, 0.0, f"{end - begin:.1f} s are less than two samples, {step:.1f} s apart")
            joules, covered = value(points, begin, end)
            if covered >= COVERED * (end - begin):
                return Energy(joules, method, covered)
    covered = integral(power or counter, begin, end)[1]
    return Energy(None, None, covered, f"samples cover {covered:.0f} of {end - begin:.0f} s")


def _counted(counter: Points, begin: float, end: float) -> tuple[float, float]:
    """(joules, seconds covered). A gap in a counter loses nothing: only its ends must be near samples. One that started
    again covers nothing: what it had reached is not known."""
    if any(later < earlier for (_, earlier), (_, later) in pairwise(counter)):
        return 0.0, 0.0
    low, high = _at(counter, max(begin, counter[0][0])), _at(counter, min(end, counter[-1][0]))
    if low is None or high is None:
        return 0.0, 0.0
    return (high - low) / 1000, min(end, counter[-1][0]) - max(begin, counter[0][0])


def _at(points: Points, time: float) -> float | None:
    """The value at `time`; None where the samples around it are too far apart, or do not reach there."""
    limit = longest_step([t for t, _ in points])
    for (t0, v0), (t1, v1) in pairwise(points):
        if t0 <= time <= t1 and t1 - t0 <= limit:
            return v0 + (v1 - v0) * (time - t0) / (t1 - t0)
    return None
