"""What the kernel log and nvidia-smi say about a GPU that works more or less."""

from __future__ import annotations

import re

from services.contract import xid
from services.doctor.evidence import Evidence, Output
from services.doctor.findings import Found, critical, info, lines_with, of, warning

_XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)[^)]*\): (\d+)")
_FIELD = re.compile(r"^\s*(?P<name>[^:\n]+?)\s*:\s(?P<value>.*)$")


def kernel_log(evidence: Evidence) -> Output:
    """dmesg, or the journal where dmesg is closed to this user."""
    dmesg = of(evidence, "dmesg")
    return dmesg if dmesg.ok and dmesg.text.strip() else of(evidence, "journal-kernel")


def log_readable(evidence: Evidence) -> Found:
    log = kernel_log(evidence)
    if not log.ok or not log.text.strip():
        yield info("kernel_log", "the kernel log cannot be read: Xids and PCIe errors are not looked for",
                   "sudo gpumon doctor, or add the user to the group adm (journald)")  # fmt: skip


def xids(evidence: Evidence) -> Found:
    """One finding per code and GPU, with NVIDIA's meaning and the last line."""
    last: dict[tuple[str, int], tuple[int, str]] = {}
    for line in kernel_log(evidence).text.splitlines():
        found = _XID.search(line)
        if found:
            key = (found[1], int(found[2]))
            last[key] = (last.get(key, (0, ""))[0] + 1, line.strip())
    for (pci, code), (count, line) in sorted(last.items()):
        known = xid.lookup(code)
        make = critical if known.severity is xid.Severity.CRITICAL else warning
        do = "; then: ".join(filter(None, (known.immediate_action, known.investigatory_action)))
        yield make(f"xid_{code}", f"Xid {code} on {pci}, {count} times since boot: {known.meaning}", do, line)


def bus_errors(evidence: Evidence) -> Found:
    log = kernel_log(evidence)
    fallen = lines_with(log, "fallen off the bus")
    if fallen:
        yield critical(
            "off_the_bus",
            "a GPU has fallen off the bus",
            "power, cable or heat: power host and dock off and on; fix the cable; give the card air",
            fallen[-1],
        )
    bars = [
        line
        for line in log.text.splitlines()
        if re.search(r"BAR \d.*(no space|failed to assign|can't assign)", line)
        or "This PCI I/O region assigned to your NVIDIA device is invalid" in line
    ]
    if bars:
        yield critical(
            "bar_space",
            "the firmware found no address space for the GPU's memory window (24 GB card: a large BAR)",
            "BIOS: Above 4G Decoding on (and Resizable BAR, if there); else add pci=realloc to the kernel command line",
            bars[-1].strip(),
        )
    aer = lines_with(log, "PCIe Bus Error") or lines_with(log, "AER:", "error")
    if aer:
        yield warning("pcie_errors", f"{len(aer)} PCIe bus errors since boot",
                      "reseat card and cable; a shorter or better cable; set the link a generation lower in the BIOS",
                      aer[-1])  # fmt: skip


def sections(text: str) -> list[tuple[str, str, str]]:
    """`nvidia-smi -q` -> (path of headings, name, value); headings are told by their indentation."""
    rows: list[tuple[str, str, str]] = []
    stack: list[tuple[int, str]] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("="):
            continue
        depth = len(line) - len(line.lstrip())
        while stack and stack[-1][0] >= depth:
            stack.pop()
        path = "/".join(name for _, name in stack)
        field = _FIELD.match(line)
        if field:
            rows.append((path, field["name"], field["value"].strip()))
        else:
            stack.append((depth, line.strip()))
    return rows


def _gpu_of(path: str) -> str:
    found = re.search(r"GPU ([0-9A-F]{8}:[0-9A-F:.]+)", path, re.IGNORECASE)
    return found[1] if found else "GPU"


def driver_report(evidence: Evidence) -> Found:
    """Findings in `nvidia-smi -q`, GPU by GPU."""
    limits: dict[str, dict[str, float]] = {}
    for path, name, value in sections(of(evidence, "nvidia-smi-query").text):
        gpu = _gpu_of(path)
        yield from _plain(gpu, path, name, value)
        watts = re.fullmatch(r"([\d.]+) W", value)
        if watts and name in ("Power Limit", "Current Power Limit", "Requested Power Limit", "Default Power Limit"):
            limits.setdefault(gpu, {})["default" if name.startswith("Default") else "now"] = float(watts[1])
    for gpu, limit in limits.items():
        if limit.get("now", 0.0) < limit.get("default", 0.0):
            yield info("power_cap", f"{gpu} is capped at {limit['now']:g} W of {limit['default']:g} W",
                       "intended to keep it cool? Else: sudo nvidia-smi -pl <watts>")  # fmt: skip


def _plain(gpu: str, path: str, name: str, value: str) -> Found:
    line = f"{path}/{name}: {value}"
    if "GPU is lost" in value:
        yield critical("gpu_lost", f"{gpu} is lost", "power host and dock off and on; look for Xid 79", line)
    if name == "Persistence Mode" and value == "Disabled":
        yield info("persistence", f"{gpu}: persistence mode is off: the driver unloads state between clients",
                   "sudo nvidia-smi -pm 1, or enable nvidia-persistenced", line)  # fmt: skip
    if "Retired Pages" in path and name.startswith("Pending") and value.startswith("Yes"):
        yield warning("retired_pending", f"{gpu}: pages wait to be retired", "reboot at a time that suits", line)
    if "Remapped Rows" in path and name == "Remapping Failure Occurred" and value == "Yes":
        yield critical("row_remap_failure", f"{gpu}: a row could not be remapped", "return the card (RMA)", line)
    if "Remapped Rows" in path and name == "Pending" and value == "Yes":
        yield warning("row_remap_pending", f"{gpu}: a row remap waits", "reset the GPU or reboot", line)
    uncorrectable = "Aggregate" in path and re.fullmatch(r"(DRAM|SRAM) Uncorrectable.*|Total", name)
    if uncorrectable and ("Double Bit" in path or "Uncorrectable" in name) and value.isdigit() and int(value) > 0:
        yield warning("ecc_uncorrectable", f"{gpu}: {value} uncorrectable ECC errors over its life",
                      "watch whether the number grows; a growing one is a failing card", line)  # fmt: skip
    if name in ("HW Thermal Slowdown", "SW Thermal Slowdown") and value == "Active":
        yield warning("thermal_throttle", f"{gpu} slows down because of heat",
                      "more air: a P40 has no fan of its own and needs one blown through it", line)  # fmt: skip
    if name == "HW Power Brake Slowdown" and value == "Active":
        yield warning("power_brake", f"{gpu}: the power supply asks it to slow down",
                      "power supply too weak, or a plug is loose", line)  # fmt: skip


CHECKS = (log_readable, xids, bus_errors, driver_report)
