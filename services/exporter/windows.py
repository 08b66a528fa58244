"""Counts within a window, as dcgm-exporter makes them itself: XIDs, and readings with a clock event."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Final

from services.contract.clocks_event import REASONS
from services.exporter.counters_file import CLOCK_COUNT, XID_COUNT
from services.exporter.labels import Pair
from services.exporter.reading import Device, Sweep
from services.exporter.xid.ledger import WINDOW
from services.exporter.xid.series import WINDOW_MS, XidSeries

_BITS: Final = "clocks_event_reasons"


@dataclass(slots=True)
class Windows:
    """`observe` each sweep, then `samples` of it."""

    xids: XidSeries
    _seen: dict[str, deque[tuple[float, int]]] = field(default_factory=lambda: defaultdict(deque))
    """GPU UUID -> time and clock events of its readings within the window."""

    def observe(self, sweep: Sweep) -> None:
        for reading in sweep.readings:
            if _BITS in reading.values and reading.device.instance_id is None:
                self._seen[reading.device.uuid].append((sweep.time, int(reading.values[_BITS])))
        for seen in self._seen.values():
            while seen and seen[0][0] <= sweep.time - WINDOW:
                seen.popleft()

    def samples(self, name: str, device: Device) -> list[tuple[list[Pair], int]]:
        """Extra labels and count of each series of metric `name`; a reason that was not has none."""
        if name == XID_COUNT:
            return self.xids.window(device)
        return self._clock_events(device) if name == CLOCK_COUNT else []

    def _clock_events(self, device: Device) -> list[tuple[list[Pair], int]]:
        if device.instance_id is not None:
            return []
        bits = [value for _, value in self._seen.get(device.uuid, ())]
        counts = {name: sum(bool(value & bit) for value in bits) for bit, name in REASONS.items()}
        return [
            ([("clock_event", name), ("window_size_in_ms", WINDOW_MS)], count)
            for name, count in counts.items()
            if count
        ]
