"""The kernel log is followed through what happens to it: overwritten records, no permission, journalctl that ends."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.exporter.xid import kernel_log
from services.exporter.xid.kernel_log import KernelLogWatch, watch
from services.exporter.xid.ledger import Origin, Xid
from tests.support.processes import wait_until
from tests.unit.exporter.xid.clocks import HandClock
from tests.unit.exporter.xid.ledgers import ToldLedger

UUID = "GPU-509665ad-b600-ac93-3616-d754b23d636d"
TEXT = "NVRM: Xid (PCI:0000:9b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."


class Ring:
    """A /dev/kmsg of the test's: each write is one record of each read."""

    def __init__(self) -> None:
        self._here, self.there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def write(self, text: str, *, prefix: int = 3) -> None:
        self._here.send(f"{prefix},1,1000000,-;{text}\n".encode())

    def close(self) -> None:
        self._here.close()
        self.there.close()


@pytest.fixture
def ring() -> Iterator[Ring]:
    made = Ring()
    yield made
    made.close()


def follow(ring: Ring, ledger: ToldLedger) -> KernelLogWatch:
    watcher = KernelLogWatch(ledger, HandClock(wall=5000.0))
    watcher.follow_kmsg(os.dup(ring.there.fileno()))
    return watcher


def test_an_xid_is_recorded_with_the_time_it_was_read_and_the_uuid_named_before(ring: Ring) -> None:
    ledger = ToldLedger()
    watcher = follow(ring, ledger)
    ring.write(f"NVRM: GPU at PCI:0000:9b:00: {UUID}")
    ring.write(TEXT)
    xid = ledger.next()
    assert (xid.code, xid.pci_bus_id, xid.uuid, xid.origin) == (79, "00000000:9B:00.0", UUID, Origin.KMSG)
    assert xid.time == 5000.0
    watcher.stop()


def test_what_a_program_wrote_into_the_log_is_no_xid(ring: Ring) -> None:
    ledger = ToldLedger()
    watcher = follow(ring, ledger)
    ring.write(TEXT, prefix=12)
    ring.write("NVRM: GPU 0000:9b:00.0: GPU has fallen off the bus.")
    ring.write(TEXT.replace("79", "31"))
    assert ledger.next().code == 31
    assert ledger.is_silent
    watcher.stop()


def test_overwritten_records_are_passed_over(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    read, answers = os.read, [OSError(errno.EPIPE, "Broken pipe")]

    def overwritten_once(descriptor: int, size: int) -> bytes:
        if answers:
            raise answers.pop()
        return read(descriptor, size)

    monkeypatch.setattr(os, "read", overwritten_once)
    ledger = ToldLedger()
    watcher = follow(ring, ledger)
    ring.write(TEXT)
    assert ledger.next().code == 79
    assert watcher.reason is None
    watcher.stop()
    assert answers == []


def test_a_log_that_fails_says_so(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_descriptor: int, _size: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "read", failing)
    ring.write(TEXT)
    watcher = follow(ring, ToldLedger())
    watcher.stop()
    assert (watcher.origin, watcher.reason) == (None, "reading the kernel log failed: Input/output error")


def test_reading_begins_at_the_end(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.write_text(f"3,1,1000000,-;{TEXT}\n")
    ledger = ToldLedger()
    watcher = watch(ledger, "kmsg", kmsg=log)
    assert watcher.origin is Origin.KMSG
    with log.open("a") as file:
        file.write(f"3,2,1000000,-;{TEXT.replace('79', '31')}\n")
    assert ledger.next().code == 31
    watcher.stop()
    assert ledger.is_silent


def test_off_reads_nothing() -> None:
    watcher = watch(ToldLedger(), "off")
    assert (watcher.origin, watcher.reason) == (None, "switched off (KERNEL_LOG=off)")
    watcher.stop()


def test_neither_is_there(tmp_path: Path) -> None:
    watcher = watch(ToldLedger(), "auto", kmsg=tmp_path / "none", journalctl=["no-such-journalctl"])
    assert watcher.origin is None
    assert watcher.reason == f"{tmp_path}/none: No such file or directory; no-such-journalctl: no such program"
    watcher.stop()


def test_no_permission_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: object, _flags: int) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    monkeypatch.setattr(os, "open", refused)
    watcher = watch(ToldLedger(), "kmsg", kmsg=tmp_path / "kmsg")
    assert watcher.reason == f"{tmp_path}/kmsg: Operation not permitted"


def fake_journalctl(directory: Path, body: str) -> list[str]:
    program = directory / "journalctl"
    program.write_text(f"#!{sys.executable}\nimport json, sys, time\n{body}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return [str(program), "-k", "-f"]


ENTRY = {"MESSAGE": TEXT, "__REALTIME_TIMESTAMP": "1740327858500000", "SYSLOG_FACILITY": "0"}


def test_auto_takes_the_journal_where_kmsg_is_closed(tmp_path: Path) -> None:
    # The second entry comes in two pieces: a line is a line when it ends.
    body = (
        f"line = json.dumps({ENTRY!r})\n"
        "print(line, flush=True)\n"
        "sys.stdout.write(line[:20]); sys.stdout.flush(); time.sleep(0.05); print(line[20:], flush=True)\n"
        "time.sleep(60)"
    )
    ledger = ToldLedger()
    watcher = watch(ledger, "auto", kmsg=tmp_path / "none", journalctl=fake_journalctl(tmp_path, body))
    assert watcher.origin is Origin.JOURNAL
    xids = [ledger.next(), ledger.next()]
    assert [(x.code, x.time, x.origin) for x in xids] == [(79, 1740327858.5, Origin.JOURNAL)] * 2
    assert watcher.reason is None
    watcher.stop()


def test_journalctl_that_ends_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_log, "RESTART", 0.01)
    ledger = ToldLedger()
    command = fake_journalctl(tmp_path, f"print(json.dumps({ENTRY!r}), flush=True)")
    watcher = watch(ledger, "journal", journalctl=command)
    assert [ledger.next().code for _ in range(3)] == [79, 79, 79]
    watcher.stop()


def test_what_journalctl_says_in_words_is_the_reason_until_it_tells_something() -> None:
    watcher = KernelLogWatch(ToldLedger(), HandClock())
    watcher._journal_line(b"No journal files were opened due to insufficient permissions.")
    assert watcher.reason == "No journal files were opened due to insufficient permissions."
    watcher._journal_line(json.dumps(ENTRY).encode())
    assert watcher.reason is None


class StumblingLedger(ToldLedger):
    def record(self, xid: Xid) -> bool:
        if xid.code == 13:
            raise OverflowError("too large")
        return super().record(xid)


def test_a_line_we_stumble_over_costs_no_other(ring: Ring, caplog: pytest.LogCaptureFixture) -> None:
    ledger = StumblingLedger()
    watcher = follow(ring, ledger)
    for _ in range(3):
        ring.write(TEXT.replace("79", "13"))
    ring.write(TEXT)
    assert ledger.next().code == 79
    assert (watcher.origin, watcher.reason) == (Origin.KMSG, None)
    watcher.stop()
    assert [r.getMessage() for r in caplog.records if "passed over" in r.getMessage()] == [
        "a line of the kernel log is passed over: OverflowError('too large')"
    ]


def test_a_watcher_that_ends_by_a_fault_says_that_nobody_listens(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_descriptor: int) -> str:
        raise RecursionError("deep")

    monkeypatch.setattr(kernel_log, "_next_record", failing)
    ring.write(TEXT)
    watcher = follow(ring, ToldLedger())
    watcher.stop()
    assert (watcher.origin, watcher.reason) == (None, "reading the kernel log failed: RecursionError('deep')")


def test_nobody_listens_between_two_runs_of_journalctl(tmp_path: Path) -> None:
    ledger = ToldLedger()
    command = fake_journalctl(tmp_path, f"print(json.dumps({ENTRY!r}), flush=True)")
    watcher = watch(ledger, "journal", journalctl=command)
    assert ledger.next().code == 79
    wait_until(lambda: watcher.reason is not None, within=10, what="a reason")
    assert watcher.reason == "journalctl ended"
    watcher.stop()


def test_a_line_without_end_is_dropped_and_the_next_ones_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_log, "LINE_BYTES", 100_000)
    body = (
        'sys.stdout.write("{" + "x" * 1_000_000 + "\\n"); sys.stdout.flush()\n'
        f"print(json.dumps({ENTRY!r}), flush=True); time.sleep(60)"
    )
    ledger = ToldLedger()
    watcher = watch(ledger, "journal", journalctl=fake_journalctl(tmp_path, body))
    assert ledger.next().code == 79
    assert watcher.reason is None
    watcher.stop()
