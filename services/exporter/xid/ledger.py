"""XIDs counted: what happened to each GPU since this process began, however many sources tell of it.

`record(Xid)` may be called from any thread; `of(pci_bus_id)` gives one GPU's counts. Keyed by PCI address, because that
is all the kernel log has; `of(pci_bus_id, uuid)` also tells the ledger whose address it is, so that another GPU in the
same slot (an eGPU that was swapped) begins at zero.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from services.exporter.pci_address import canonical_pci
from services.ops.clock import Clock, SystemClock

WINDOW: Final = 300.0
"""Seconds of DCGM_EXP_XID_ERRORS_COUNT; dcgm-exporter's default (`window_size_in_ms="300000"`)."""
SAME: Final = 2.0
"""Seconds within which NVML and the kernel log tell of one XID. Both come at once; NVML's thread may be held up
briefly, and a driver that hangs repeats an XID only every six seconds (XID 119)."""


class Origin(StrEnum):
    NVML = "nvml"
    KMSG = "kmsg"
    JOURNAL = "journal"


@dataclass(frozen=True, slots=True)
class Xid:
    """One XID, as one source told of it."""

    time: float
    """Seconds since the epoch."""
    pci_bus_id: str
    """As DCGM writes it: `00000000:9B:00.0` (see `canonical_pci`)."""
    code: int
    origin: Origin
    uuid: str | None = None
    pid: int | None = None
    process: str | None = None
    message: str | None = None
    """What the driver said after the code; None from NVML, which gives the code only."""
    instance_id: int | None = None
    """MIG GPU instance, where the driver says which."""


@dataclass(frozen=True, slots=True)
class GpuXids:
    """One GPU's XIDs. All empty for a GPU that had none."""

    counts: dict[int, int] = field(default_factory=dict)
    """Code -> how often since the start."""
    last: dict[int, Xid] = field(default_factory=dict)
    """Code -> its last occurrence, with what all sources together know of it."""
    last_code: int = 0
    """The newest XID (DCGM_FI_DEV_XID_ERRORS); 0: none since the start."""
    window: dict[int, int] = field(default_factory=dict)
    """Code -> how often within the last WINDOW seconds; only codes that were."""


@dataclass(slots=True)
class _Occurrence:
    xid: Xid
    origins: set[Origin]


@dataclass(slots=True)
class _Tally:
    """One code on one GPU."""

    count: int = 0
    last: _Occurrence | None = None
    open: deque[_Occurrence] = field(default_factory=deque)
    """Those another source may still tell of."""
    arrivals: deque[float] = field(default_factory=deque)
    """Monotonic times of those in the window: its length must not follow a wall clock that is being set."""


@dataclass(slots=True)
class _Slot:
    uuid: str | None = None
    tallies: dict[int, _Tally] = field(default_factory=dict)
    last_code: int = 0


class XidLedger:
    """Thread-safe. `clock` is for the window only; when an XID happened is in the XID."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._slots: dict[str, _Slot] = {}

    def record(self, xid: Xid) -> bool:
        """Count `xid`; False where another source told of the same one within SAME seconds: then it only adds what it
        knows (process, message, UUID)."""
        with self._lock:
            slot = self._slot(canonical_pci(xid.pci_bus_id), xid.uuid)
            tally = slot.tallies.setdefault(xid.code, _Tally())
            known = _told_before(tally, xid)
            if known is not None:
                _merge(known, xid)
                return False
            occurrence = _Occurrence(xid, {xid.origin})
            tally.count += 1
            tally.open.append(occurrence)
            tally.arrivals.append(self._clock.monotonic())
            self._trim(tally)
            if tally.last is None or xid.time >= tally.last.xid.time:
                tally.last = occurrence
            slot.last_code = xid.code
            return True

    def of(self, gpu: str, uuid: str | None = None) -> GpuXids:
        """XIDs of the GPU at PCI address `gpu` (any spelling), which has `uuid`. `gpu` may also be a UUID, but then
        they are found only where a source has named the UUID."""
        with self._lock:
            slot = self._by_uuid(gpu) if gpu.startswith("GPU-") else self._known(canonical_pci(gpu), uuid)
            return GpuXids() if slot is None else self._view(slot)

    def gpus(self) -> tuple[str, ...]:
        """PCI addresses with at least one XID, those of GPUs that are gone included."""
        with self._lock:
            return tuple(address for address, slot in self._slots.items() if slot.tallies)

    def _known(self, address: str, uuid: str | None) -> _Slot | None:
        return self._slot(address, uuid) if address in self._slots or uuid is not None else None

    def _slot(self, address: str, uuid: str | None) -> _Slot:
        """The slot's record; a fresh one where another GPU is in it now."""
        slot = self._slots.get(address)
        if slot is None or (uuid is not None and slot.uuid is not None and slot.uuid != uuid):
            slot = self._slots[address] = _Slot(uuid)
        slot.uuid = slot.uuid or uuid
        return slot

    def _by_uuid(self, uuid: str) -> _Slot | None:
        return next((slot for slot in self._slots.values() if slot.uuid == uuid), None)

    def _view(self, slot: _Slot) -> GpuXids:
        for tally in slot.tallies.values():
            self._trim(tally)
        return GpuXids(
            counts={code: tally.count for code, tally in slot.tallies.items()},
            last={code: tally.last.xid for code, tally in slot.tallies.items() if tally.last is not None},
            last_code=slot.last_code,
            window={code: len(tally.arrivals) for code, tally in slot.tallies.items() if tally.arrivals},
        )

    def _trim(self, tally: _Tally) -> None:
        oldest = self._clock.monotonic() - WINDOW
        while tally.arrivals and tally.arrivals[0] <= oldest:
            tally.arrivals.popleft()


def _told_before(tally: _Tally, xid: Xid) -> _Occurrence | None:
    """The oldest occurrence of these seconds that this origin has not told of: two XIDs in one second, each told twice,
    stay two."""
    while tally.open and tally.open[0].xid.time < xid.time - SAME:
        tally.open.popleft()
    near = (o for o in tally.open if abs(o.xid.time - xid.time) <= SAME)
    return next((o for o in near if xid.origin not in o.origins), None)


def _merge(occurrence: _Occurrence, xid: Xid) -> None:
    first = occurrence.xid
    occurrence.origins.add(xid.origin)
    occurrence.xid = replace(
        first,
        uuid=first.uuid or xid.uuid,
        pid=first.pid if first.pid is not None else xid.pid,
        process=first.process or xid.process,
        message=first.message or xid.message,
        instance_id=first.instance_id if first.instance_id is not None else xid.instance_id,
    )
