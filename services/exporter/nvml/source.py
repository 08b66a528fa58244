"""The NVML source: NVIDIA's own library, in this process. The one to use wherever the driver is installed.

A sweep of a GPU makes some twenty calls; what cannot change, or is not supported, is asked once. NVML knows the GPUs
it found when it was initialised, no others: it is initialised again when the PCI bus shows that GPUs came or went, and,
ever more rarely, while a GPU is lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Final

import pynvml

from services.exporter.nvml.errors import GpuLostError, raise_if_fatal, source_error, text
from services.exporter.nvml.gpu import Gpu, identify, system_labels
from services.exporter.nvml.known import Amiss, KnownGpus
from services.exporter.nvml.pci import PciBus, PciWatch
from services.exporter.proc_info import PROC
from services.exporter.reading import Reading, SourceError, Sweep
from services.ops.clock import Clock, SystemClock

log = logging.getLogger("exporter")

REFRESH: Final = 300.0
"""Seconds after which what was learnt of a GPU is learnt anew: limits set, ECC switched, a driver's change of mind."""
RETRY_FIRST: Final = 10.0
RETRY_MAX: Final = 600.0
"""Seconds between attempts to get a missing GPU back by initialising NVML again, doubling from the first to the last.
Each takes about a second where GPUs are not kept initialised (persistence mode), and longer beside a dead one."""


class NvmlSource:
    """Source of readings from NVML. Used from one thread."""

    name = "nvml"

    def __init__(
        self,
        processes: bool = False,
        *,
        clock: Clock | None = None,
        pci: Path | None = None,
        proc: Path = PROC,
        released: Callable[[], AbstractContextManager[bool | None]] = nullcontext,
    ) -> None:
        """`pci`: sysfs' directory of PCI devices. `released`: inside of what it gives, nobody else in this process
        holds NVML (it says False where that cannot be had), so that it can be initialised again. Raises SourceError."""
        self.released = released
        self._clock = clock or SystemClock()
        self._pci = PciWatch(pci, proc)
        self._proc = proc if processes else None
        self._system: dict[str, str] = {}
        self._gpus: dict[int, Gpu] = {}
        self._known = KnownGpus()
        self._amiss = Amiss()
        self._retry_at = 0.0
        self._retry_after = RETRY_FIRST
        self._open = False
        self._initialise()

    def read(self) -> Sweep:
        """One pass over all GPUs. Raises SourceError."""
        if not self._open:
            self._initialise()
        bus = self._pci.look()
        if self._should_initialise(bus):
            self._initialise_again()
        time = self._clock.time()
        count = self._count()
        self._known.begin(count)
        refused: list[int] = []
        readings = [reading for index in range(count) for reading in self._read(index, bus, refused)]
        if refused and len(refused) == count:
            raise source_error(pynvml.NVML_ERROR_NO_PERMISSION)
        return Sweep(self.name, time, tuple(readings), self._known.lost(bus))

    def close(self) -> None:
        for gpu in self._gpus.values():
            gpu.close()
        self._gpus = {}
        if self._open:
            self._open = False
            with suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()

    def _initialise(self) -> None:
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise source_error(error.value) from error
        self._open = True
        self._system = system_labels()
        self._known.renumber()

    def _initialise_again(self) -> None:
        with self.released() as free:
            if free is False:
                log.warning("NVML is not initialised again: its other user in this process does not let go of it")
                return
            self.close()
            self._initialise()

    def _should_initialise(self, bus: PciBus) -> bool:
        """At once when the bus changed; later and later while something stays missing."""
        amiss, now = self._known.amiss(bus), self._clock.monotonic()
        if amiss != self._amiss:
            self._retry_at = now if amiss.moved - self._amiss.moved else now + RETRY_FIRST
            self._retry_after = RETRY_FIRST
            self._amiss = amiss
        if not amiss or now < self._retry_at:
            return False
        self._retry_at = now + self._retry_after
        self._retry_after = min(2 * self._retry_after, RETRY_MAX)
        return True

    def _count(self) -> int:
        try:
            return int(pynvml.nvmlDeviceGetCount())
        except pynvml.NVMLError as error:
            raise self._gone(error.value) from error

    def _read(self, index: int, bus: PciBus, refused: list[int]) -> list[Reading]:
        """Nothing, and a word to `_known`, where the GPU is lost. `refused` collects those we may not open."""
        try:
            gpu = self._gpu(index, refused)
            readings = gpu.read()
        except GpuLostError as error:
            if lost := self._gpus.pop(index, None):
                lost.close()
            self._known.lose(index, str(error), bus)
            return []
        except SourceError:
            self.close()
            raise
        self._known.see(gpu.device)
        return readings

    def _gpu(self, index: int, refused: list[int]) -> Gpu:
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        except pynvml.NVMLError as error:
            raise_if_fatal(error.value)
            if error.value == pynvml.NVML_ERROR_NO_PERMISSION:
                refused.append(index)
            raise GpuLostError(text(error.value)) from error
        gpu = self._gpus.get(index)
        if gpu is None:
            gpu = self._gpus[index] = Gpu(handle, identify(handle, index, self._system), self._clock, self._proc)
        elif gpu.age() > REFRESH:
            gpu.renew(identify(handle, index, self._system))
        return gpu

    def _gone(self, code: int) -> SourceError:
        """Closed: the next `read` begins anew."""
        self.close()
        return source_error(code)
