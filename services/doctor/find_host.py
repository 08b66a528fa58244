"""Disk, clock, servers, spool, missing tools."""

from __future__ import annotations

import re
from typing import Final

from services.doctor.evidence import PROBES, Command, Evidence, Facts
from services.doctor.findings import Found, critical, info, of, warning

DISK_FREE: Final = 0.05
"""Part of a file system. TimescaleDB and the spool stop at a full disk; five percent of 1 TB is a week of one host."""
DISK_WORN: Final = 90
"""Percent of a disk's rated writes (nvme `percentage_used`): replaced by most operators at 90 to 100."""


def disks(evidence: Evidence, facts: Facts) -> Found:
    for line in of(evidence, "df").text.splitlines()[1:]:
        parts = line.split()
        if len(parts) < 6 or not parts[1].isdigit() or not parts[3].isdigit() or int(parts[1]) == 0:
            continue
        if not parts[0].startswith("/") and not any(
            d.startswith(parts[5]) and parts[5] != "/" for d in facts.directories
        ):
            continue  # tmpfs, overlay and the like
        if int(parts[3]) / int(parts[1]) < DISK_FREE:
            yield warning("disk_full", f"{parts[5]} has {int(parts[3]) // 1024} MiB left ({parts[4]} used)",
                          "make room: a full disk stops spool, logs and database", line)  # fmt: skip


def wear(evidence: Evidence, _facts: Facts) -> Found:
    text = of(evidence, "nvme-smart").text
    used = re.search(r"percentage_used\s*:\s*(\d+)%", text)
    if used and int(used[1]) >= DISK_WORN:
        yield warning(
            "disk_worn", f"the NVMe disk has used {used[1]} % of its rated writes", "plan its replacement", used[0]
        )
    alarm = re.search(r"critical_warning\s*:\s*(0x[1-9a-f][0-9a-f]*|[1-9]\d*)", text)
    if alarm:
        yield critical("disk_warning", "the NVMe disk gives a critical warning", "back up now, replace it", alarm[0])
    smart = of(evidence, "smart-health").text
    if "self-assessment test result: FAILED" in smart:
        yield critical("disk_failing", "SMART: the disk says it is failing", "back up now, replace it")


def clock(evidence: Evidence, _facts: Facts) -> Found:
    if re.search(r"System clock synchronized:\s*no", of(evidence, "timedatectl").text):
        yield warning(
            "clock",
            "the clock is not synchronised: samples from a clock that is 5 minutes ahead are refused",
            "sudo timedatectl set-ntp true",
            "System clock synchronized: no",
        )


def servers(_evidence: Evidence, facts: Facts) -> Found:
    for reach in facts.reach:
        if reach.problem is not None:
            yield critical(f"{reach.name.lower()}_unreachable", f"{reach.name} at {reach.address}: {reach.problem}",
                           _ADVICE[reach.name])  # fmt: skip


_ADVICE: Final = {
    "Kafka": "is the broker running (make up), is KAFKA_BOOTSTRAP right? What is collected meanwhile goes to the spool",
    "TimescaleDB": "is the server running, are PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD or TIMESCALE_DSN right? "
    "psql with the same values tells more",
    "exporter": "systemctl --user status gpu-telemetry-exporter.service, or start it: gpumon exporter",
}


def spool(_evidence: Evidence, facts: Facts) -> Found:
    if facts.spool_records:
        yield warning("spool", f"{facts.spool_records} samples wait in the spool",
                      "gpumon spool status says why; they are sent by themselves when the next hop answers, or: "
                      "gpumon spool flush")  # fmt: skip


def tools(evidence: Evidence, _facts: Facts) -> Found:
    """Programs that are not there, in one line."""
    packages = {
        probe.package
        for probe in PROBES
        if isinstance(probe, Command) and probe.package and of(evidence, probe.name).problem == "not installed"
    }
    if packages:
        yield info("tools", "not looked at, because the program is not installed: " + ", ".join(sorted(packages)),
                   "sudo apt install " + " ".join(sorted(packages)))  # fmt: skip


CHECKS = (disks, wear, clock, servers, spool, tools)
