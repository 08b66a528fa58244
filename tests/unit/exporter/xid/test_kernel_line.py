"""Lines of the kernel log, of all generations of the driver and all envelopes."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from services.exporter.xid.kernel_line import (
    FallenLine,
    KernelRecord,
    NamedLine,
    XidLine,
    parse_dmesg,
    parse_journal,
    parse_kmsg,
    parse_message,
)
from services.exporter.xid.ledger import Origin, XidLedger
from tests.support.recordings import recording

HERE = Path(__file__).parent
GPU = "00000000:9B:00.0"
TEXT = "NVRM: Xid (PCI:0000:9b:00): 119, pid=2024380, name=nvidia-smi, Timeout after 6s of waiting for RPC response"
UUID = "GPU-509665ad-b600-ac93-3616-d754b23d636d"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TEXT, XidLine(GPU, 119, 2024380, "nvidia-smi", "Timeout after 6s of waiting for RPC response", None)),
        (
            "NVRM: Xid (PCI:0000:9b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
            XidLine(GPU, 79, None, None, "GPU has fallen off the bus.", None),
        ),
        (  # R450 to R460: a process id, no name
            "NVRM: Xid (PCI:0000:9b:00): 31, pid=2386, Ch 0000000c, intr 00000000",
            XidLine(GPU, 31, 2386, None, "Ch 0000000c, intr 00000000", None),
        ),
        (  # before R450: neither
            "NVRM: Xid (PCI:0000:9b:00): 31, Ch 00000003, engmask 00000101, intr 10000000",
            XidLine(GPU, 31, None, None, "Ch 00000003, engmask 00000101, intr 10000000", None),
        ),
        ("NVRM: Xid (0000:9b:00): 14, Channel 00000001", XidLine(GPU, 14, None, None, "Channel 00000001", None)),
        (  # MIG: GPU instance, and compute instance
            "NVRM: Xid (PCI:0000:9b:00 GPU-I:05): 94, pid=7194, Contained: CE User Channel (0x9).",
            XidLine(GPU, 94, 7194, None, "Contained: CE User Channel (0x9).", 5),
        ),
        (
            "NVRM: Xid (PCI:0000:9b:00 GPU-I:01 GPU-CI:02): 43, pid=9, name=my job, channel 0x0b00000a",
            XidLine(GPU, 43, 9, "my job", "channel 0x0b00000a", 1),
        ),
        ("NVRM: Xid (PCI:0009:01:00): 45, pid=1, name=a", XidLine("00000009:01:00.0", 45, 1, "a", None, None)),
        ("NVRM: Xid (PCI:0000:9b:00): 43", XidLine(GPU, 43, None, None, None, None)),
        ("NVRM: GPU at PCI:0000:9b:00: " + UUID, NamedLine(GPU, UUID)),
        ("NVRM: GPU at 0000:9b:00: " + UUID, NamedLine(GPU, UUID)),
        ("NVRM: GPU 0000:9b:00.0: GPU has fallen off the bus.", FallenLine(GPU)),
        ("NVRM: GPU at 0000:9b:00.0 has fallen off the bus.", FallenLine(GPU)),
        (
            "NVRM: The NVIDIA GPU 0000:9b:00.0 (PCI ID: 10de:1b38) installed has fallen off the bus",
            FallenLine(GPU),
        ),
    ],
)
def test_lines_of_the_driver(text: str, expected: object) -> None:
    assert parse_message(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "NVRM: GPU Board Serial Number: 1650124014249",
        "NVRM: GPU4 RPC history (CPU -> GSP):",
        "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.183.01",
        "nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30",  # a switch's error, another numbering
        "NVRM: Xid (PCI:nonsense): 79, whatever",
        "NVRM: Xid (PCI:::::): 79, whatever",
        "usb 1-1: GPU has fallen off the bus",
        f"usb 1-1: Product: {TEXT}",  # a device calls itself so
        f"usb 1-1: Product: NVRM: GPU at PCI:0000:9b:00: {UUID}",
        "usb 1-1: Product: NVRM: GPU 0000:9b:00.0: GPU has fallen off the bus.",
        f"x\n{TEXT}",
        f"[x] {TEXT}",
        "NVRM: Xid (PCI:0000:9b:00): 0, no error",
        "NVRM: Xid (PCI:0000:9b:00): 1234567, x",
        "NVRM: Xid (PCI:0000:9b:00): \u0663\u0661, x",
        "NVRM: Xid (PCI:" + "0" * 5000 + ":9b:00): 31, x",
        "NVRM: Xid (PCI:0000:9b:00 GPU-I:" + "9" * 5000 + "): 31, x",
        "NVRM: GPU at PCI:0000:9b:00: GPU-" + "5" * 500,
    ],
)
def test_other_lines_say_nothing_of_xids(text: str) -> None:
    assert parse_message(text) is None


def test_kmsg_record_with_continuation_lines() -> None:
    record = parse_kmsg(f"3,1234,567890123,-,caller=T42;{TEXT}\n SUBSYSTEM=pci\n DEVICE=+pci:0000:9b:00.0\n")
    assert record == KernelRecord(TEXT, uptime=567.890123)


def test_kmsg_record_of_a_program_is_not_the_kernels() -> None:
    record = parse_kmsg(f"12,1235,1,-;{TEXT}\n")  # facility 1, level 4
    assert record is not None
    assert not record.from_kernel


@pytest.mark.parametrize("text", ["", "garbage", "x,1,2,-;text", "1,2;text"])
def test_what_is_no_kmsg_record(text: str) -> None:
    assert parse_kmsg(text) is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"[  567.875000] {TEXT}", KernelRecord(TEXT, 1567.875, 567.875)),
        (f"kern  :err   : [  567.875000] {TEXT}\n", KernelRecord(TEXT, 1567.875, 567.875)),
        (f"<3>[  567.875000] {TEXT}", KernelRecord(TEXT, 1567.875, 567.875)),
        (f"[Sun Feb 23 16:24:18 2025] {TEXT}", KernelRecord(TEXT, 1740327858.0)),
        (f"kern  :err   : [Sun Feb  2 16:24:18 2025] {TEXT}", KernelRecord(TEXT, 1738513458.0)),
        (f"2025-02-23T16:24:18,500000+00:00 {TEXT}", KernelRecord(TEXT, 1740327858.5)),
        (TEXT, KernelRecord(TEXT)),
    ],
)
def test_dmesg_in_all_its_forms(line: str, expected: KernelRecord) -> None:
    assert parse_dmesg(line, boot_time=1000.0, zone=dt.UTC) == expected


def test_stamp_since_boot_without_the_time_of_boot_is_no_time() -> None:
    assert parse_dmesg("[    1.500000] x") == KernelRecord("x", None, 1.5)


def test_impossible_date_is_no_time() -> None:
    assert parse_dmesg("[Foo Bar 99 16:24:18 2025] x").time is None


def test_journal_entry() -> None:
    entry = {
        "MESSAGE": TEXT,
        "__REALTIME_TIMESTAMP": "1740327858500000",
        "SYSLOG_FACILITY": "0",
        "_TRANSPORT": "kernel",
    }
    assert parse_journal(json.dumps(entry)) == KernelRecord(TEXT, 1740327858.5)
    entry["SYSLOG_FACILITY"] = "1"
    record = parse_journal(json.dumps(entry))
    assert record is not None
    assert not record.from_kernel


def test_journal_entry_of_bytes() -> None:
    entry = {"MESSAGE": [*TEXT.encode(), 0xFF], "__REALTIME_TIMESTAMP": "1000000"}
    record = parse_journal(json.dumps(entry))
    assert record is not None
    assert parse_message(record.text) is not None


def test_a_kernel_that_names_the_caller() -> None:
    assert parse_message(f"[ T1234] {TEXT}") == parse_message(TEXT)


def test_what_a_process_calls_itself_goes_to_no_terminal_as_it_is() -> None:
    line = parse_message("NVRM: Xid (PCI:0000:9b:00): 31, pid=7, name=\x1b[2Jx, Ch \x1b[0m")
    assert line == XidLine(GPU, 31, 7, "?[2Jx", "Ch ?[0m", None)


def test_a_pid_no_kernel_gives_is_none() -> None:
    line = parse_message("NVRM: Xid (PCI:0000:9b:00): 31, pid=" + "9" * 5000)
    assert isinstance(line, XidLine)
    assert line.pid is None


def test_a_program_that_wrote_past_syslog_is_not_the_kernel() -> None:
    entry = {"MESSAGE": TEXT, "__REALTIME_TIMESTAMP": "1", "SYSLOG_FACILITY": "0", "_TRANSPORT": "syslog"}
    record = parse_journal(json.dumps(entry))
    assert record is not None
    assert not record.from_kernel


@pytest.mark.parametrize("stamp", ['"' + "9" * 400 + '"', '"-1"', '"\u0661"', "1", "null", "1e400"])
def test_a_journal_entry_of_an_impossible_time_is_none(stamp: str) -> None:
    assert parse_journal(f'{{"MESSAGE": "x", "__REALTIME_TIMESTAMP": {stamp}}}') is None


def test_a_journal_entry_nested_too_deep_is_none() -> None:
    assert parse_journal(b'{"MESSAGE":' + b"[" * 100_000) is None


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"{}", b'{"MESSAGE": null}', b'{"MESSAGE":"x"}', b"\xff"])
def test_what_is_no_journal_entry(line: bytes) -> None:
    assert parse_journal(line) is None


def _ledger_of(text: str) -> XidLedger:
    ledger, uuids = XidLedger(), dict[str, str]()
    for line in text.splitlines():
        record = parse_dmesg(line, zone=dt.UTC)
        found = parse_message(record.text)
        if isinstance(found, NamedLine):
            uuids[found.pci_bus_id] = found.uuid
        if isinstance(found, XidLine) and record.time is not None:
            ledger.record(found.at(record.time, Origin.KMSG, uuids.get(found.pci_bus_id)))
    return ledger


def _check(ledger: XidLedger) -> None:
    assert ledger.gpus() == (GPU,)
    xids = ledger.of(GPU)
    assert xids.counts == {119: 5}
    last = xids.last[119]
    assert (last.uuid, last.pid, last.process) == (UUID, 1240590, "gpud")
    assert last.time == dt.datetime(2025, 2, 23, 16, 30, 13, tzinfo=dt.UTC).timestamp()


def test_log_of_a_gsp_that_died() -> None:
    _check(_ledger_of((HERE / "dmesg_xid_119.txt").read_text()))


def test_recorded_log_of_a_gsp_that_died() -> None:
    _check(_ledger_of(recording("logs/dmesg-with-xid-119.log").read_text()))
