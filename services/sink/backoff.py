"""How long to wait before trying again: doubling, with jitter, so that many sinks do not return at once."""

from __future__ import annotations

import random
from typing import Final

FIRST: Final = 0.1
"""Seconds. A terminated connection is back at once."""
LONGEST: Final = 5.0
"""Seconds. The delay after a long outage until rows flow again; a server that starts is not hurt by one try in 5 s."""


class Backoff:
    """One series of attempts."""

    def __init__(self, jitter: random.Random | None = None) -> None:
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._ceiling = FIRST

    def next(self) -> float:
        """Seconds to wait now: between half the ceiling and the ceiling, which doubles."""
        ceiling, self._ceiling = self._ceiling, min(self._ceiling * 2, LONGEST)
        return ceiling * self._jitter.uniform(0.5, 1.0)
