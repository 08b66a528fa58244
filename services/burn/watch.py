"""The temperature limit: too hot is what several readings in a row say. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from services.host.live import Look

READINGS: Final = 3
"""In a row above the limit: one wrong reading does not end a run of an hour, and three seconds heat no board by more
than a degree or two."""
BLIND_SECONDS: Final = 60.0
"""Without a reading, after which a limit that was asked for counts as not watched: twice what nvidia-smi may take."""


@dataclass(slots=True)
class Watch:
    limit: float
    """C. Exactly at the limit is not above it."""
    _above: dict[str, int] = field(default_factory=dict)
    _seen: dict[str, float] = field(default_factory=dict)

    def take(self, looks: Iterable[Look]) -> str | None:
        """What is too hot, once it is; None while all is well. The same reading given again counts once."""
        for look in looks:
            uuid, temp = look.gpu.uuid, look.sample.temp
            if temp is None or self._seen.get(uuid) == look.sample.time:
                continue
            self._seen[uuid] = look.sample.time
            self._above[uuid] = self._above.get(uuid, 0) + 1 if temp > self.limit else 0
            if self._above[uuid] >= READINGS:
                which = uuid if look.gpu.index is None else f"GPU {look.gpu.index}"
                return f"{which} is at {temp:g} C, above {self.limit:g} C in {READINGS} readings in a row"
        return None
