"""XIDs as series: counted events and their last occurrence at each scrape, DCGM's last-value gauge with each sweep.

Counted events do not wait for a sweep: the XID that says why the driver hangs is shown while it hangs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.exporter import labels, own_series
from services.exporter.labels import Pair
from services.exporter.reading import Device, Reading, Sweep
from services.exporter.xid.ledger import WINDOW, GpuXids, Xid, XidLedger

COLUMN: Final = "xid_errors"
WINDOW_MS: Final = str(round(WINDOW * 1000))


@dataclass(slots=True)
class XidSeries:
    """A ledger, read as exposition."""

    ledger: XidLedger
    watched: Callable[[str], bool] = lambda _address: False
    """Whether XIDs of the GPU at a PCI address would come to be known: only then is "none" a 0 and not an unknown."""

    def of(self, device: Device) -> GpuXids:
        return self.ledger.of(device.pci_bus_id, device.uuid)

    def completed(self, sweep: Sweep) -> Sweep:
        """The sweep with the last XID of each whole GPU, where its source does not tell."""
        return replace(sweep, readings=tuple(map(self._completed, sweep.readings)))

    def _completed(self, reading: Reading) -> Reading:
        device = reading.device
        if COLUMN in reading.values or device.instance_id is not None or not self.watched(device.pci_bus_id):
            return reading
        values = {**reading.values, COLUMN: self.of(device).last_code}
        missing = {column: reason for column, reason in reading.missing.items() if column != COLUMN}
        return replace(reading, values=values, missing=missing)

    def render(self, devices: Sequence[Device], hostname: str | None) -> str:
        """Counts and last occurrences of `devices`, and of GPUs that could never be read (their address is all there
        is)."""
        counts: list[tuple[str, str]] = []
        last: list[tuple[str, str]] = []
        addresses = {device.pci_bus_id for device in devices}
        gpus = [(labels.identity(device, hostname), self.of(device)) for device in devices]
        gpus += [
            ([("pci_bus_id", address), *labels.host(hostname)], self.ledger.of(address))
            for address in self.ledger.gpus()
            if address not in addresses
        ]
        for identity, xids in gpus:
            counts += [
                (labels.text([*identity, ("xid", str(code))]), str(n)) for code, n in sorted(xids.counts.items())
            ]
            last += [(labels.text([*identity, *_told(xid)]), f"{xid.time:.3f}") for _, xid in sorted(xids.last.items())]
        return own_series.XID_ERRORS.block(counts) + own_series.XID_LAST.block(last)

    def window(self, device: Device) -> list[tuple[list[Pair], int]]:
        """Labels and count of each XID of the last WINDOW seconds, as DCGM_EXP_XID_ERRORS_COUNT has them."""
        if device.instance_id is not None:
            return []
        found = sorted(self.of(device).window.items())
        return [([("window_size_in_ms", WINDOW_MS), ("xid", str(code))], count) for code, count in found]


def _told(xid: Xid) -> list[Pair]:
    pairs = {
        "xid": str(xid.code),
        "pid": None if xid.pid is None else str(xid.pid),
        "process": xid.process,
        "origin": str(xid.origin),
    }
    return [(name, value) for name, value in pairs.items() if value is not None]
