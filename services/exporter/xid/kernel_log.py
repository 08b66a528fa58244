"""XIDs out of the kernel log, as they happen: /dev/kmsg, else journald.

`watch(ledger, mode)` starts a daemon thread and returns at once; the result says in `origin` what is read and in
`reason` why nothing is. Only new messages count: what happened before the start is in no counter of this process.
NVML tells of an XID only while the driver answers; the kernel log also has those of a GPU that is gone, and
the process.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal

from services.exporter.xid.kernel_line import FallenLine, KernelRecord, NamedLine, XidLine, parse_journal, parse_kmsg
from services.exporter.xid.kernel_line import parse_message as parse
from services.exporter.xid.ledger import Origin, XidLedger
from services.ops.clock import Clock, SystemClock

log = logging.getLogger("exporter")

KINDS_TOLD: Final = 20
"""Kinds of faults that are logged: enough to find them, and no flood."""
_ENDED: Final = "journalctl ended"
Mode = Literal["auto", "kmsg", "journal", "off"]
KMSG: Final = Path("/dev/kmsg")
JOURNALCTL: Final = ("journalctl", "-k", "-f", "-o", "json", "-n", "0")
RECORD_BYTES: Final = 65_536
"""A read shorter than the record fails with EINVAL; the kernel's own limit is 8 KiB (CONSOLE_EXT_LOG_MAX)."""
WAKE: Final = 0.5
"""Seconds until the thread looks whether it should stop."""
PAUSE: Final = 0.05
"""Seconds between reads that brought nothing."""
LINE_BYTES: Final = 1024 * 1024
"""Of a line of journalctl. The longest entries of the kernel have some kilobytes; what is longer is none of them."""
RESTART: Final = 10.0
"""Seconds until a journalctl that ended is started again: it ends when journald's files are rotated away under it."""


class KernelLogWatch:
    """Handle on the watching thread. Safe to read from any thread."""

    def __init__(self, ledger: XidLedger, clock: Clock) -> None:
        self.origin: Origin | None = None
        """What is read; None: nothing, see `reason`."""
        self.reason: str | None = None
        """Why nothing is read, or what hinders it; None: all is well."""
        self._ledger = ledger
        self._clock = clock
        self._uuids: dict[str, str] = {}
        self._told: set[str] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def stop(self) -> None:
        """Returns when the thread has ended, or after a few seconds."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def take(self, record: KernelRecord | None, origin: Origin) -> None:
        """One message of the log. Its time is now where the envelope has none: the log's own clock drifts."""
        line = parse(record.text) if record is not None and record.from_kernel else None
        if record is None or line is None:
            return
        if isinstance(line, XidLine):
            moment = record.time if record.time is not None else self._clock.time()
            self._ledger.record(line.at(moment, origin, self._uuids.get(line.pci_bus_id)))
            log.warning("XID %d on %s: %s", line.code, line.pci_bus_id, line.message or "", extra={"pid": line.pid})
        elif isinstance(line, NamedLine):
            self._uuids[line.pci_bus_id] = line.uuid
        elif isinstance(line, FallenLine):
            log.warning("GPU at %s has fallen off the bus", line.pci_bus_id)

    def follow_kmsg(self, descriptor: int) -> None:
        self.origin = Origin.KMSG
        self._start(partial(self._read_kmsg, descriptor))

    def follow_journal(self, command: Sequence[str]) -> None:
        self.origin = Origin.JOURNAL
        self._start(partial(self._read_journal, command))

    def _start(self, target: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=self._tell_how_it_ends, args=(target,), name="kernel-log", daemon=True)
        self._thread.start()

    def _tell_how_it_ends(self, target: Callable[[], None]) -> None:
        """A thread that ends before it is told to leaves nobody who listens: "none" would no longer be a 0."""
        try:
            target()
        except Exception as error:  # noqa: BLE001  # whatever it is, XIDs become unknown and readings go on
            why = error.strerror if isinstance(error, OSError) else repr(error)
            self.origin, self.reason = None, f"reading the kernel log failed: {why}"
            log.warning("%s", self.reason)

    def _heed(self, parse_record: Callable[[], KernelRecord | None], origin: Origin) -> None:
        """One record; one that this program stumbles over is told, once of its kind, and costs no other."""
        try:
            self.take(parse_record(), origin)
        except Exception as error:  # noqa: BLE001  # as said
            if repr(error) not in self._told and len(self._told) < KINDS_TOLD:
                self._told.add(repr(error))
                log.warning("a line of the kernel log is passed over: %r", error)

    def _read_kmsg(self, descriptor: int) -> None:
        try:
            while not self._stop.is_set():
                if not select.select([descriptor], [], [], WAKE)[0]:
                    continue
                record = _next_record(descriptor)
                if not record:  # overwritten under us, or the end of something that is no /dev/kmsg: no busy loop
                    self._stop.wait(PAUSE)
                self._heed(partial(parse_kmsg, record), Origin.KMSG)
        finally:
            os.close(descriptor)

    def _read_journal(self, command: Sequence[str]) -> None:
        """`reason` is set while none runs: what happens meanwhile nobody hears."""
        while not self._stop.is_set():
            if self.reason == _ENDED:
                self.reason = None
            try:
                self._follow_process(command)
                self.reason = self.reason or _ENDED
            except OSError as error:
                self.reason = f"{command[0]}: {error.strerror}"
            if not self._stop.is_set():
                log.warning("%s ended (%s); starting it again in %g s", command[0], self.reason, RESTART)
            self._stop.wait(RESTART)

    def _follow_process(self, command: Sequence[str]) -> None:
        with subprocess.Popen(  # noqa: S603 - an argument list of ours
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        ) as child:
            try:
                if child.stdout is not None:
                    self._read_lines(child.stdout.fileno())
            finally:
                child.kill()

    def _read_lines(self, descriptor: int) -> None:
        """Until the end of the stream, or until told to stop."""
        rest = b""
        while not self._stop.is_set():
            if not select.select([descriptor], [], [], WAKE)[0]:
                continue
            chunk = os.read(descriptor, RECORD_BYTES)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._journal_line(line)
            if len(rest) > LINE_BYTES:
                rest = rest[:1]  # what is left of it will not be taken for words of journalctl

    def _journal_line(self, line: bytes) -> None:
        """An entry, or what journalctl says in words: an unprivileged user is told that it gets nothing."""
        if line.startswith(b"{"):
            self.reason = None
            self._heed(partial(parse_journal, line), Origin.JOURNAL)
        else:
            self.reason = line.decode(errors="replace").strip() or self.reason


def watch(
    ledger: XidLedger,
    mode: Mode = "auto",
    *,
    kmsg: Path = KMSG,
    journalctl: Sequence[str] = JOURNALCTL,
    clock: Clock | None = None,
) -> KernelLogWatch:
    """Follow the kernel log into `ledger`. Never raises: where nothing can be read, `reason` says why."""
    watcher = KernelLogWatch(ledger, clock or SystemClock())
    reasons = []
    if mode == "off":
        reasons.append("switched off (KERNEL_LOG=off)")
    if mode in ("auto", "kmsg"):
        try:
            watcher.follow_kmsg(_open_at_end(kmsg))
        except OSError as error:
            reasons.append(f"{kmsg}: {error.strerror}")
    if watcher.origin is None and mode in ("auto", "journal"):
        if shutil.which(journalctl[0]):
            watcher.follow_journal(journalctl)
        else:
            reasons.append(f"{journalctl[0]}: no such program")
    if watcher.origin is None:
        watcher.reason = "; ".join(reasons)
        log.info("XIDs are not read from the kernel log: %s", watcher.reason)
    return watcher


def _open_at_end(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.lseek(descriptor, 0, os.SEEK_END)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _next_record(descriptor: int) -> str:
    """One read of /dev/kmsg is one record. EPIPE: the ring went round under us; the next read goes on at its oldest."""
    try:
        return os.read(descriptor, RECORD_BYTES).decode(errors="replace")
    except OSError as error:
        if error.errno in (errno.EPIPE, errno.EAGAIN):
            return ""
        raise
