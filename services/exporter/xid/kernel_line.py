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

from services.exporter.xid.ledger import Origin, Xid, canonical_pci

_XID: Final = re.compile(
    r"NVRM: Xid \((?:PCI:)?(?P<pci>[0-9a-fA-F:.]+)(?: GPU-I:(?P<instance>\d+))?(?: GPU-CI:\d+)?\): (?P<code>\d{1,6})"
    r"(?:, pid='?(?P<pid>\d+|<unknown>)'?)?(?:, name=(?P<name>.*?)(?=, |$))?(?:, (?P<message>.*))?$"
)
_NAMED: Final = re.compile(r"NVRM: GPU at (?:PCI:)?(?P<pci>[0-9a-fA-F:.]+): (?P<uuid>GPU-[0-9a-fA-F-]+)")
_FALLEN: Final = re.compile(
    r"NVRM: (?:The NVIDIA )?GPU (?:at )?(?:PCI:)?(?P<pci>[0-9a-fA-F:]+(?:\.\d)?):? .*fallen off the bus"
)
_KMSG: Final = re.compile(r"(?P<prefix>\d+),\d+,(?P<stamp>\d+),[^;]*;(?P<text>[^\n]*)")
_DMESG: Final = re.compile(
    r"(?:<\d+>|\w+ *: *\w+ *: *)?"  # raw priority, or facility and level of -x
    r"(?:\[ *(?P<stamp>\d+\.\d+)\]|\[(?P<ctime>\w{3} \w{3} [ \d]\d [\d:]{8} \d{4})\]"
    r"|(?P<iso>\d{4}-\d\d-\d\dT\S+)) ?(?P<text>.*)"
)


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
    if "NVRM" not in text:
        return None
    try:
        if found := _XID.search(text):
            return _xid_line(found)
        if found := _NAMED.search(text):
            return NamedLine(canonical_pci(found["pci"]), found["uuid"])
        if found := _FALLEN.search(text):
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
        facility = str(entry.get("SYSLOG_FACILITY", "0"))
        return KernelRecord(text, time=int(entry["__REALTIME_TIMESTAMP"]) / 1e6, from_kernel=facility == "0")
    except (ValueError, TypeError, KeyError):
        return None


def _xid_line(found: re.Match[str]) -> XidLine:
    pid, name, instance = found["pid"], found["name"], found["instance"]
    return XidLine(
        pci_bus_id=canonical_pci(found["pci"]),
        code=int(found["code"]),
        pid=int(pid) if pid and pid.isdecimal() else None,
        process=name if name and name != "<unknown>" else None,
        message=found["message"] or None,
        instance_id=int(instance) if instance else None,
    )


def _written_time(ctime: str | None, iso: str | None, zone: dt.tzinfo | None) -> float | None:
    try:
        if ctime:
            moment = dt.datetime.strptime(ctime, "%a %b %d %H:%M:%S %Y")  # noqa: DTZ007 - the zone is not in the text
            return (moment.replace(tzinfo=zone) if zone else moment).timestamp()
        return dt.datetime.fromisoformat((iso or "").replace(",", ".")).timestamp()
    except ValueError:
        return None
