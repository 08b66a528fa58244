"""The nvidia-smi source: where NVML's library cannot be loaded, or a second opinion is wanted.

`nvidia-smi -q -x` costs about 0.1 s of CPU per GPU and a process; NVML is the source for short intervals.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from services.exporter.proc_info import PROC, process_info
from services.exporter.reading import Lost, Process, Reading, SourceError, Sweep, Trouble
from services.exporter.smi.errors import NoHandle, first_line, garbage, no_devices, no_handles, trouble
from services.exporter.smi.mig import profiles
from services.exporter.smi.program import Answer, SmiProgram
from services.exporter.smi.xml import Log, NotALogError, cut, parse, pci_bus_id
from services.ops.clock import Clock, SystemClock

_QUERY: Final = ("-q", "-x")
_NOT_SHOWN: Final = "nvidia-smi counts it and does not show it"


class SmiSource:
    """Source of readings from nvidia-smi. Every call of `read` starts it once, and `-L` when MIG devices change."""

    name = "nvidia-smi"

    def __init__(
        self,
        program: str = "nvidia-smi",
        timeout: float = 30.0,
        processes: bool = False,
        *,
        clock: Clock | None = None,
        proc: Path = PROC,
        on_document: Callable[[bytes], object] | None = None,
    ) -> None:
        """`timeout` in seconds, for one reading. `proc` is where users and commands of processes and the driver's list
        of GPUs are read. `on_document` gets the XML of each whole answer (the snapshots need no call of their own)."""
        self._program = SmiProgram(program, timeout)
        self._timeout = timeout
        self._processes = processes
        self._clock = clock or SystemClock()
        self._proc = proc
        self._on_document = on_document
        self._known: dict[str, Lost] = {}  # by PCI address, while the list was whole: who a lost GPU was
        self._mig: tuple[frozenset[tuple[str, int]], Mapping[tuple[str, int], str]] = (frozenset(), {})

    def read(self) -> Sweep:
        """One pass over all GPUs. Raises SourceError."""
        deadline = time.monotonic() + self._timeout
        answer = self._program.run(*_QUERY)
        handles = self._addressed(no_handles(answer))
        xml = cut(answer.stdout)
        try:
            log = self._parse(xml, deadline) if xml is not None else None
        except NotALogError as error:
            if not handles:
                raise garbage(self._program.program, answer, str(error)) from None
            log = None
        if log is None:
            return self._without_document(answer, handles, deadline)
        if self._on_document is not None and xml is not None:
            self._on_document(xml)
        return self._sweep(log, handles)

    def close(self) -> None:
        """Nothing is kept open between two readings; one that is under way in another thread fails at once."""
        self._program.stop()

    def _parse(self, xml: bytes, deadline: float) -> Log:
        log = parse(xml, processes=self._processes, profiles=self._mig[1])
        if log.mig_devices and log.mig_devices != self._mig[0]:
            self._mig = (log.mig_devices, self._profiles(deadline))
            log = parse(xml, processes=self._processes, profiles=self._mig[1])
        return log

    def _profiles(self, deadline: float) -> Mapping[tuple[str, int], str]:
        """Names of the MIG profiles; without them the instances are known by their ids alone."""
        try:
            return profiles(self._program.run("-L", timeout=_left(deadline)).text)
        except SourceError:
            return {}

    def _sweep(self, log: Log, handles: list[NoHandle]) -> Sweep:
        """A whole document, though it may leave out GPUs that it counts or that the text around it names."""
        if log.shown < (log.attached or 0) or handles:
            return self._incomplete(list(log.readings), list(log.lost), handles, log.attached)
        self._known = {
            r.device.pci_bus_id: Lost("", r.device.uuid, r.device.index, r.device.pci_bus_id, r.device.model)
            for r in log.readings
        } | {lost.pci_bus_id: self._named(lost) for lost in log.lost if lost.pci_bus_id is not None}
        return self._result(log.readings, [self._named(lost) for lost in log.lost])

    def _without_document(self, answer: Answer, handles: list[NoHandle], deadline: float) -> Sweep:
        """Some versions print nothing but the GPU they cannot open. The others still answer when asked one by one."""
        if not handles:
            if no_devices(answer):
                return self._result((), [])
            raise trouble(self._program.program, answer)
        if all("permission" in handle.reason.lower() for handle in handles):
            raise SourceError(Trouble.PERMISSION, str(trouble(self._program.program, answer)))
        readings: list[Reading] = []
        lost: list[Lost] = []
        for gpu in self._others(handles, deadline):
            one = self._program.run(*_QUERY, "-i", gpu, timeout=_left(deadline))
            xml = cut(one.stdout)
            more = self._addressed(no_handles(one))
            if xml is not None and not more:
                log = self._only(xml, one, deadline)
                readings += log.readings
                lost += log.lost
            elif not more:
                lost.append(Lost(first_line(one) or "no answer", pci_bus_id=pci_bus_id(gpu)))
            handles = handles + [handle for handle in more if handle not in handles]
        return self._incomplete(readings, lost, handles, None)

    def _only(self, xml: bytes, answer: Answer, deadline: float) -> Log:
        try:
            return self._parse(xml, deadline)
        except NotALogError as error:
            raise garbage(self._program.program, answer, str(error)) from None

    def _others(self, handles: list[NoHandle], deadline: float) -> list[str]:
        """What to ask `-i` for: every GPU the driver or an earlier reading knows, but those without a handle."""
        broken = {handle.pci_bus_id for handle in handles}
        known = {*self._known, *self._driver_list()} - broken
        if known:
            return sorted(known)
        listing = self._program.run("-L", timeout=_left(deadline)).text
        return list(dict.fromkeys(uuid for uuid in _uuids(listing)))

    def _addressed(self, handles: list[NoHandle]) -> list[NoHandle]:
        """With the PCI address where nvidia-smi told an index only."""
        order = sorted({*self._known, *self._driver_list()}) if handles else []
        return [
            replace(handle, pci_bus_id=order[handle.index])
            if handle.pci_bus_id is None and handle.index is not None and handle.index < len(order)
            else handle
            for handle in handles
        ]

    def _driver_list(self) -> set[str]:
        """PCI addresses in /proc/driver/nvidia/gpus: what the kernel module drives, lost ones included."""
        try:
            names = [entry.name for entry in (self._proc / "driver/nvidia/gpus").iterdir()]
        except OSError:
            return set()
        return {pci for name in names if (pci := pci_bus_id(name)) is not None}

    def _incomplete(
        self, readings: list[Reading], lost: list[Lost], handles: list[NoHandle], attached: int | None
    ) -> Sweep:
        """Positions in such a document are no indices: NVML counts by PCI address, the lost GPU included."""
        lost += [Lost(handle.reason, None, handle.index, handle.pci_bus_id) for handle in handles]
        seen = {r.device.pci_bus_id for r in readings} | {item.pci_bus_id for item in lost if item.pci_bus_id}
        unseen = sorted({*self._known, *self._driver_list()} - seen)
        counted = len(seen) if attached is None else attached
        lost += [Lost(_NOT_SHOWN, pci_bus_id=pci) for pci in unseen[: max(counted - len(seen), 0)]]
        order = {pci: index for index, pci in enumerate(sorted(seen | set(unseen)))}
        placed = [replace(r, device=replace(r.device, index=self._index(r.device.pci_bus_id, order))) for r in readings]
        return self._result(placed, [self._placed(self._named(item), order) for item in lost])

    def _index(self, pci: str, order: Mapping[str, int]) -> int:
        known = self._known.get(pci)
        return known.index if known is not None and known.index is not None else order[pci]

    def _placed(self, lost: Lost, order: Mapping[str, int]) -> Lost:
        if lost.pci_bus_id is None or lost.pci_bus_id not in order:
            return lost
        return replace(lost, index=self._index(lost.pci_bus_id, order))

    def _named(self, lost: Lost) -> Lost:
        """With what an earlier reading knew of it."""
        known = self._known.get(lost.pci_bus_id or "")
        if known is None:
            return lost
        return replace(lost, uuid=lost.uuid or known.uuid, model=lost.model or known.model)

    def _result(self, readings: Iterable[Reading], lost: list[Lost]) -> Sweep:
        ordered = sorted(readings, key=lambda r: (r.device.index, -1 if r.device.instance_id is None else 0))
        return Sweep(self.name, self._clock.time(), tuple(self._with_users(r) for r in ordered), tuple(lost))

    def _with_users(self, reading: Reading) -> Reading:
        if not reading.processes:
            return reading
        return replace(reading, processes=tuple(self._with_user(process) for process in reading.processes))

    def _with_user(self, process: Process) -> Process:
        user, command = process_info(process.pid, self._proc)
        return replace(process, user=user, command=command or process.command)


def _left(deadline: float) -> float:
    """Seconds until `deadline`, never none at all."""
    return max(deadline - time.monotonic(), 0.1)


def _uuids(listing: str) -> list[str]:
    return [
        line.partition("(UUID: ")[2].partition(")")[0]
        for line in listing.splitlines()
        if line.startswith("GPU ") and "(UUID: " in line
    ]
