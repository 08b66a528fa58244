"""The temperature limit: too hot is what several readings in a row say; and whose temperature nobody knows. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from services.host.live import Look

READINGS: Final = 3
"""In a row above the limit: one wrong reading does not end a run of an hour, and three seconds heat no board by more
than a degree or two."""
QUIET_SECONDS: Final = 30.0
"""Without a temperature of some GPU, after which it is told that no limit is kept: what nvidia-smi may take."""
BLIND_SECONDS: Final = 60.0
"""The same, after which a limit that was asked for counts as not watched: twice what nvidia-smi may take."""


@dataclass(slots=True)
class _Heard:
    called: str
    at: float
    """When its last temperature came, or it was first seen."""
    sample: float | None = None
    """The time that temperature has; the same one again is no news."""


@dataclass(slots=True)
class Watch:
    limit: float
    """C. Exactly at the limit is not above it."""
    _above: dict[str, int] = field(default_factory=dict)
    _seen: dict[str, float] = field(default_factory=dict)
    _heard: dict[str, _Heard] = field(default_factory=dict)

    def hear(self, looks: Iterable[Look], now: float) -> None:
        """Remember when each GPU last told a temperature; `now` in seconds of a monotonic clock. A GPU once seen is
        waited for, also when it is shown no more."""
        for look in looks:
            known = self._heard.setdefault(look.gpu.uuid, _Heard(called(look), now))
            if look.sample.temp is not None and look.sample.time != known.sample:
                known.sample, known.at = look.sample.time, now

    def silence(self, now: float) -> tuple[str, float]:
        """(GPU, seconds since its last temperature) of the one that is silent for longest; nobody's is 0."""
        oldest = min(self._heard.values(), key=lambda heard: heard.at, default=None)
        return ("", 0.0) if oldest is None else (oldest.called, now - oldest.at)

    def take(self, looks: Iterable[Look]) -> str | None:
        """What is too hot, once it is; None while all is well. The same reading given again counts once."""
        for look in looks:
            uuid, temp = look.gpu.uuid, look.sample.temp
            if temp is None or self._seen.get(uuid) == look.sample.time:
                continue
            self._seen[uuid] = look.sample.time
            self._above[uuid] = self._above.get(uuid, 0) + 1 if temp > self.limit else 0
            if self._above[uuid] >= READINGS:
                return f"{called(look)} is at {temp:g} C, above {self.limit:g} C in {READINGS} readings in a row"
        return None


def called(look: Look) -> str:
    return look.gpu.uuid if look.gpu.index is None else f"GPU {look.gpu.index}"
