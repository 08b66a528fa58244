"""A clock that the test moves."""

from __future__ import annotations


class HandClock:
    """Wall clock and monotonic clock, moved by `advance` and by whoever sleeps."""

    def __init__(self, wall: float = 1_763_790_000.0) -> None:
        self._wall = wall
        self._monotonic = 0.0

    def time(self) -> float:
        return self._wall

    def monotonic(self) -> float:
        return self._monotonic

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self._wall += seconds
        self._monotonic += seconds
