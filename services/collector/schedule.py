"""When to scrape: every target at its own place in the interval, on whole multiples of it by the wall clock.

All times are whole milliseconds since the epoch. A target's place (phase) is a hash of its name, so that it is the same
after a restart and load is spread; ticks are `k * interval + phase`, so that two collectors agree on them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tick:
    planned: int
    """When the scrape should begin."""
    missed: int
    """Ticks that passed unused since the last one: counted, not made up for."""


def phase(name: str, interval: int) -> int:
    """A stable place in [0, interval)."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % interval


class Schedule:
    """The ticks of one target."""

    def __init__(self, name: str, interval: int) -> None:
        self._interval = interval
        self._phase = phase(name, interval)
        self._last: int | None = None

    def next(self, now: int) -> Tick:
        """The first tick behind `now` that was not given out yet.

        A wall clock set back by more than an interval starts the count anew, rather than waiting for it to catch up.
        """
        planned = (now - self._phase) // self._interval * self._interval + self._phase + self._interval
        last = self._last
        if last is None or planned + self._interval < last:
            self._last = planned
            return Tick(planned, 0)
        planned = max(planned, last + self._interval)
        self._last = planned
        return Tick(planned, (planned - last) // self._interval - 1)


def sample_time(planned: int, started: int, tolerance: int) -> int:
    """The timestamp of a sample: the plan where the scrape began close to it, else the truth.

    Equal distances compress better (delta of delta zero); an error below the tolerance is far below what an exporter
    itself adds by sampling its GPUs once a second or less.
    """
    return planned if 0 <= started - planned <= tolerance else started
