"""Lines of the kernel log that speak of GPUs, parsed: no I/O here.

Envelopes: a record of /dev/kmsg, a line of dmesg (plain, -x, -T, --time-format iso), an entry of `journalctl -o json`.
Contents: `parse_message` knows the driver's XID lines of all generations, the line that names a GPU's UUID, and the two
spellings of "fallen off the bus". Everything else is None: the log is not ours, and most of it is about other things.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import dataclass
from typing import Any, Final

from services.exporter.pci_address import canonical_pci
from services.exporter.xid.ledger import Origin, Xid

_CALLER: Final = r"(?:\[ *[TC]\d{1,10}\] )?"
"""What a kernel with CONFIG_PRINTK_CALLER puts first, in dmesg's text: the thread or the processor."""
_PCI: Final = r"(?:PCI:)?(?P<pci>[0-9a-fA-F:]{5,16}(?:\.\d)?)"
# Every line is matched from its beginning: a USB device may call itself `NVRM: Xid ...`, and the kernel logs that name
# in a line of its own. A code of 0 is "no error" and in no line of the driver.
_XID: Final = re.compile(
    rf"{_CALLER}NVRM: Xid \({_PCI}(?: GPU-I:(?P<instance>\d{{1,5}}))?(?: GPU-CI:\d{{1,5}})?\): (?P<code>[1-9]\d{{0,5}})"
    r"(?:, pid='?(?P<pid>\d{1,10}|<unknown>)'?)?(?:, name=(?P<name>.*?)(?=, |$))?(?:, (?P<message>.*))?$",
    re.ASCII,
)
_NAMED: Final = re.compile(rf"{_CALLER}NVRM: GPU at {_PCI}: (?P<uuid>GPU-[0-9a-fA-F-]{{36}})$", re.ASCII)
_FALLEN: Final = re.compile(
    rf"{_CALLER}NVRM: (?:The NVIDIA )?GPU (?:at )?{_PCI}:? .{{0,200}}fallen off the bus", re.ASCII
)
_KMSG: Final = re.compile(r"(?P<prefix>\d{1,10}),\d{1,20},(?P<stamp>\d{1,20}),[^;]*;(?P<text>[^\n]*)", re.ASCII)
_DMESG: Final = re.compile(
    r"(?:<\d+>|\w+ *: *\w+ *: *)?"  # raw priority, or facility and level of -x
    r"(?:\[ *(?P<stamp>\d+\.\d+)\]|\[(?P<ctime>\w{3} \w{3} [ \d]\d [\d:]{8} \d{4})\]"
    r"|(?P<iso>\d{4}-\d\d-\d\dT\S+)) ?(?P<text>.*)",
    re.ASCII,
)
_MICROSECONDS: Final = re.compile(r"\d{1,17}", re.ASCII)
"""Since the epoch; 17 digits reach the year 5138."""


@dataclass(frozen=True, slots=True)
class XidLine:
    """`NVRM: Xid (PCI:0000:9b:00): 119, pid=2024380, name=nvidia-smi, Timeout ...`"""

    pci_bus_id: str
    code: int
    pid: int | None
    process: str | None
    message: str | None
    instance_id: int | None

    def at(self, time: float, origin: Origin, uuid: str | None = None) -> Xid:
        return Xid(
            time, self.pci_bus_id, self.code, origin, uuid, self.pid, self.process, self.message, self.instance_id
        )


@dataclass(frozen=True, slots=True)
class NamedLine:
    """`NVRM: GPU at PCI:0000:9b:00: GPU-509665ad-...`, which the driver writes before a GPU's first XID."""

    pci_bus_id: str
    uuid: str


@dataclass(frozen=True, slots=True)
class FallenLine:
    """`NVRM: GPU 0000:01:00.0: GPU has fallen off the bus.` Mostly after XID 79, or alone at start-up."""

    pci_bus_id: str


@dataclass(frozen=True, slots=True)
class KernelRecord:
    """One message out of its envelope."""

    text: str
    time: float | None = None
    """Seconds since the epoch; None where the envelope has only `uptime`, or neither."""
    uptime: float | None = None
    """Seconds since boot, by the kernel's log clock, which drifts from the wall clock by seconds a week."""
    from_kernel: bool = True
    """False: a program wrote it into the kernel's log (facility other than 0). No word of the driver's."""


def parse_message(text: str) -> XidLine | NamedLine | FallenLine | None:
    """What a message of the kernel says of a GPU; None: nothing."""
    try:
        if found := _XID.match(text):
            return _xid_line(found)
        if found := _NAMED.match(text):
            return NamedLine(canonical_pci(found["pci"]), found["uuid"])
        if found := _FALLEN.match(text):
            return FallenLine(canonical_pci(found["pci"]))
    except ValueError:  # something like a PCI address that is none: not a line of the driver
        return None
    return None


def parse_kmsg(record: str) -> KernelRecord | None:
    """A record of /dev/kmsg: `4,1234,567890123,-;text`, then lines of its dictionary, which begin with a blank."""
    found = _KMSG.match(record)
    if found is None:
        return None
    facility = int(found["prefix"]) >> 3  # the three low bits are the level
    return KernelRecord(found["text"], uptime=int(found["stamp"]) / 1e6, from_kernel=facility == 0)


def parse_dmesg(line: str, boot_time: float | None = None, zone: dt.tzinfo | None = None) -> KernelRecord:
    """A line of dmesg. `boot_time` (seconds since the epoch) turns `[ 123.4]` into a time; `zone` is the one `dmesg -T`
    wrote in, default this host's."""
    found = _DMESG.match(line.rstrip("\n"))
    if found is None:
        return KernelRecord(line.rstrip("\n"))
    if found["stamp"]:
        uptime = float(found["stamp"])
        return KernelRecord(found["text"], None if boot_time is None else boot_time + uptime, uptime)
    return KernelRecord(found["text"], _written_time(found["ctime"], found["iso"], zone))


def parse_journal(line: str | bytes) -> KernelRecord | None:
    """An entry of `journalctl -o json`; None for what is none. A message that is not UTF-8 comes as a list of bytes."""
    try:
        entry: Any = json.loads(line)
        message = entry["MESSAGE"]
        text = bytes(message).decode(errors="replace") if isinstance(message, list) else str(message)
        from_kernel = str(entry.get("SYSLOG_FACILITY", "0")) == "0" and entry.get("_TRANSPORT", "kernel") == "kernel"
        stamp = _MICROSECONDS.fullmatch(entry["__REALTIME_TIMESTAMP"])
    except (ValueError, TypeError, KeyError, RecursionError):  # the last: a document nested thousands deep
        return None
    return None if stamp is None else KernelRecord(text, time=int(stamp[0]) / 1e6, from_kernel=from_kernel)


def _xid_line(found: re.Match[str]) -> XidLine:
    pid, name, instance = found["pid"], found["name"], found["instance"]
    return XidLine(
        pci_bus_id=canonical_pci(found["pci"]),
        code=int(found["code"]),
        pid=int(pid) if pid and pid.isdecimal() else None,
        process=_printable(name) if name and name != "<unknown>" else None,
        message=_printable(found["message"]) if found["message"] else None,
        instance_id=int(instance) if instance else None,
    )


def _printable(text: str) -> str:
    """A program may call itself what it likes, and the name goes to terminals."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _written_time(ctime: str | None, iso: str | None, zone: dt.tzinfo | None) -> float | None:
    try:
        if ctime:
            moment = dt.datetime.strptime(ctime, "%a %b %d %H:%M:%S %Y")  # noqa: DTZ007 - the zone is not in the text
            return (moment.replace(tzinfo=zone) if zone else moment).timestamp()
        return dt.datetime.fromisoformat((iso or "").replace(",", ".")).timestamp()
    except ValueError:
        return None
