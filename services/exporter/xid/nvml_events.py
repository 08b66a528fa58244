"""XIDs from NVML's event set, as they happen.

`watch(ledger)` starts a daemon thread and returns at once; `reason` says why nothing is heard. NVML gives the code and
the GPU, no process; it tells only of the XIDs NVIDIA calls critical, and only while the driver answers. The kernel log
(`kernel_log`) knows more but is not always readable: both are used, and the ledger counts an XID once.

NVML finds GPUs only when it is initialised, and stays so as long as anybody in the process holds it. Whoever shuts NVML
down and initialises it again, to see a GPU that was plugged in, does that inside `with watcher.released():`, which lets
go of the events and of NVML and afterwards registers all GPUs, the new one included.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import pynvml

from services.exporter.pci_address import canonical_pci
from services.exporter.xid.ledger import Origin, Xid, XidLedger
from services.ops.clock import Clock, SystemClock

log = logging.getLogger("exporter")

WAIT_MS: Final = 500
"""How long a wait for an event blocks: the time until `stop` and `released` are heeded."""
RETRY: Final = 10.0
"""Seconds between attempts while NVML or its events do not work."""
RETRY_LOST: Final = 1.0
"""Seconds until the other GPUs are listened to again after one was lost, which ends the wait for all of them."""
RELEASE_LIMIT: Final = 5.0
"""Seconds `released` waits for the thread: one that hangs in a dead driver must not hold up the others."""
NO_INSTANCE: Final = 0xFFFFFFFF
"""gpuInstanceId of an event that concerns the whole GPU."""


@dataclass(frozen=True, slots=True)
class _Gpu:
    pci_bus_id: str
    uuid: str | None


class NvmlXidWatch:
    """Handle on the watching thread. Safe to use from any thread."""

    def __init__(self, ledger: XidLedger, clock: Clock) -> None:
        self.reason: str | None = None
        """Why no GPU is listened to; None: all is well, or not yet begun."""
        self.unsupported: dict[str, str] = {}
        """PCI address -> why this GPU tells no XIDs; the others do."""
        self._ledger = ledger
        self._clock = clock
        self._stop = threading.Event()
        self._wanted = threading.Event()
        self._wanted.set()
        self._idle = threading.Event()
        self._idle.set()
        self._gpus: dict[int, _Gpu] = {}
        self._thread = threading.Thread(target=self._run, name="nvml-xid", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the thread has ended, or after a few seconds."""
        self._stop.set()
        self._wanted.set()
        self._thread.join(timeout=RELEASE_LIMIT)

    @property
    def listening(self) -> tuple[str, ...]:
        """PCI addresses of the GPUs whose XIDs are heard."""
        return tuple(gpu.pci_bus_id for gpu in self._gpus.values())

    @contextmanager
    def released(self) -> Iterator[bool]:
        """NVML is not held by this watcher inside the block: True, or False if the thread hangs in the driver."""
        self._wanted.clear()
        try:
            yield self._idle.wait(RELEASE_LIMIT)
        finally:
            self._wanted.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wanted.wait()
            self._idle.clear()
            pause = 0.0
            try:
                if self._wanted.is_set() and not self._stop.is_set():
                    self._session()
            except pynvml.NVMLError as error:
                pause = RETRY_LOST if isinstance(error, pynvml.NVMLError_GpuIsLost) else RETRY
                self._say(f"NVML: {error}")
            finally:
                self._gpus = {}
                self._idle.set()
            self._stop.wait(pause)

    def _session(self) -> None:
        """Listen until told to stop or let go. Raises NVMLError."""
        pynvml.nvmlInit()
        try:
            events = pynvml.nvmlEventSetCreate()
            try:
                self._register(events)
                if self._gpus:
                    self._listen(events)
                else:
                    self._wait_for_gpus()
            finally:
                with suppress(pynvml.NVMLError):
                    pynvml.nvmlEventSetFree(events)
        finally:
            with suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()

    def _register(self, events: Any) -> None:
        gpus: dict[int, _Gpu] = {}
        self.unsupported = {}
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                gpu = _identify(handle)
            except pynvml.NVMLError:  # lost: whoever reads its values reports that
                continue
            if reason := _subscribe(handle, events):
                self.unsupported[gpu.pci_bus_id] = reason
            else:
                gpus[_address(handle)] = gpu
        self._gpus = gpus
        self._say("; ".join(sorted(set(self.unsupported.values()))) or "NVML shows no GPU" if not gpus else None)

    def _listen(self, events: Any) -> None:
        while self._wanted.is_set() and not self._stop.is_set():
            try:
                event = pynvml.nvmlEventSetWait_v2(events, WAIT_MS)
            except pynvml.NVMLError_Timeout:
                continue
            if event.eventType & pynvml.nvmlEventTypeXidCriticalError:
                self._record(event)

    def _wait_for_gpus(self) -> None:
        """An empty set has nothing to wait for; the next session may find a GPU."""
        until = self._clock.monotonic() + RETRY
        while self._wanted.is_set() and not self._stop.wait(WAIT_MS / 1000) and self._clock.monotonic() < until:
            pass

    def _record(self, event: Any) -> None:
        gpu = self._gpus.get(_address(event.device))
        try:
            gpu = gpu or _identify(event.device)
        except pynvml.NVMLError as error:
            log.warning("XID %d on a GPU that NVML does not name: %s", event.eventData, error)
            return
        instance = None if event.gpuInstanceId == NO_INSTANCE else int(event.gpuInstanceId)
        xid = Xid(self._clock.time(), gpu.pci_bus_id, int(event.eventData), Origin.NVML, gpu.uuid, instance_id=instance)
        self._ledger.record(xid)
        log.warning("XID %d on %s", xid.code, xid.pci_bus_id)

    def _say(self, reason: str | None) -> None:
        if reason is not None and reason != self.reason:
            log.info("no XIDs from NVML: %s", reason)
        self.reason = reason


def watch(ledger: XidLedger, *, clock: Clock | None = None) -> NvmlXidWatch:
    """Listen to all GPUs' XIDs into `ledger`. Never raises: where that does not work, `reason` says why."""
    watcher = NvmlXidWatch(ledger, clock or SystemClock())
    watcher.start()
    return watcher


def _subscribe(handle: Any, events: Any) -> str | None:
    """None, or why this GPU tells no XIDs."""
    wanted = pynvml.nvmlEventTypeXidCriticalError
    try:
        if not pynvml.nvmlDeviceGetSupportedEventTypes(handle) & wanted:
            return "the GPU does not report XIDs as events"
        pynvml.nvmlDeviceRegisterEvents(handle, wanted, events)
    except pynvml.NVMLError as error:
        return f"registering for events: {error}"
    return None


def _identify(handle: Any) -> _Gpu:
    address = canonical_pci(_text(pynvml.nvmlDeviceGetPciInfo(handle).busId))
    try:
        return _Gpu(address, _text(pynvml.nvmlDeviceGetUUID(handle)))
    except pynvml.NVMLError:
        return _Gpu(address, None)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _address(handle: Any) -> int:
    """The handle as a number: ctypes gives a new object for the same pointer each time."""
    return ctypes.cast(handle, ctypes.c_void_p).value or 0
