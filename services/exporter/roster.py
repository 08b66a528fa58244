"""Which GPUs there were, and which of them are lost. Fed with each sweep; no I/O."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

from services.exporter.reading import Device, Lost, Sweep

log = logging.getLogger("exporter")

NOT_LISTED: Final = "no longer listed by the driver"
"""The reason where a GPU is gone from one sweep to the next and the source says nothing of it."""


class Roster:
    """A GPU is lost from when the source says so, or stops to mention it, until it is read again."""

    def __init__(self) -> None:
        self._known: dict[str, Device] = {}
        self.lost: tuple[Lost, ...] = ()
        self.devices: tuple[Device, ...] = ()
        """Whole GPUs that were read at least once, by index."""

    def update(self, sweep: Sweep) -> None:
        here = {
            reading.device.uuid: reading.device for reading in reversed(sweep.readings)
        }  # the whole GPU comes first
        self._known |= here
        self.devices = tuple(sorted(self._known.values(), key=lambda device: device.index))
        lost = [self._completed(item, here) for item in sweep.lost]
        lost += [item for item in self.lost if not any(_same(item, other) for other in lost)]
        lost = [item for item in lost if not any(_same(item, _gone(device, "")) for device in here.values())]
        named = {item.uuid for item in lost}
        for uuid, device in self._known.items():
            if uuid not in here and uuid not in named:
                lost.append(_gone(device, NOT_LISTED))
        self._tell(tuple(sorted(lost, key=lambda item: (item.index is None, item.index, item.uuid or ""))))

    def _completed(self, lost: Lost, here: dict[str, Device]) -> Lost:
        """With what was known of the GPU while it could be read."""
        for device in self._known.values():
            if device.uuid not in here and _same(lost, _gone(device, "")):
                gone = _gone(device, lost.reason)
                given = {n: getattr(lost, n) for n in ("index", "pci_bus_id", "model") if getattr(lost, n) is not None}
                return replace(gone, **given)
        return lost

    def _tell(self, lost: tuple[Lost, ...]) -> None:
        for item in lost:
            if not any(_same(item, old) for old in self.lost):
                log.error("GPU lost", extra={"gpu": item.index, "uuid": item.uuid, "reason": item.reason})
        for old in self.lost:
            if not any(_same(old, item) for item in lost):
                log.info("GPU is back", extra={"gpu": old.index, "uuid": old.uuid})
        self.lost = lost


def _gone(device: Device, reason: str) -> Lost:
    return Lost(reason, device.uuid, device.index, device.pci_bus_id, device.model)


def _same(one: Lost, other: Lost) -> bool:
    """By the best identity both have: indices move when a GPU goes, so they decide only where nothing else is known."""
    for a, b in ((one.uuid, other.uuid), (one.pci_bus_id, other.pci_bus_id), (one.index, other.index)):
        if a is not None and b is not None:
            return a == b
    return False
