"""A clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class HandClock:
    """Wall clock and monotonic clock in one, moved by whoever sleeps; `then` is told the time after each sleep."""

    now: float = 0.0
    then: Callable[[float], None] | None = None

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.then is not None:
            self.then(self.now)
