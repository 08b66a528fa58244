"""XIDs: what NVIDIA's error codes mean, how bad they are, and what to do now and afterwards.

`lookup(79)` -> XidInfo; a code that is not in the table is an honest "unknown XID". The rows are in `xid.csv` (facts of
NVIDIA's catalogue); the texts of the actions and the severity are ours. Severity by rule, from NVIDIA's immediate
action, because that says what the error costs:

- critical: the GPU or the host leaves service (reset, reboot, support, reseating), or DCGM's health watch fails on it;
- warning: an application or software is at fault or must be restarted, or nothing is to be done but NVIDIA wants it
  looked into, or DCGM's health watch warns, or the action depends on the message;
- info: nothing to do, now or later;
- unknown: NVIDIA names no action, or we do not know the code.

The catalogue's "unused" codes all carry CONTACT_SUPPORT. They come from boards before the A100 (a P40 still reports
some), where nobody says that they take the GPU out of service: warning.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Final

SOURCE: Final = "NVIDIA Xid-Catalog.xlsx, sheet Xids; health watches of NVIDIA DCGM 4"
DATE: Final = "2025-09-30"
"""Of the catalogue's last change, as the file says."""


class Severity(StrEnum):
    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class XidInfo:
    """One row. `known` is False for a code that the table does not have."""

    code: int
    meaning: str
    severity: Severity
    immediate_action: str
    """What to do now, a sentence; empty: NVIDIA names nothing."""
    investigatory_action: str
    """What to do so that it does not come again; empty: NVIDIA names nothing."""
    mnemonic: str = ""
    immediate: str = ""
    """NVIDIA's resolution bucket, for programs: `RESET_GPU`."""
    investigatory: str = ""
    applies_to: tuple[str, ...] = ()
    """Of A100, H100, B100, GB200: those that can report it. None: earlier boards only, or no data-centre board."""
    known: bool = True


ACTIONS: Final[dict[str, str]] = {
    "": "",
    "CHECK_APP/CUDA": "check the application: it probably passes wrong data or misuses CUDA",
    "CHECK_MECHANICALS": "check the seating of the GPU and its power cables",
    "CHECK_UVM": "reset the GPU if unified memory or vGPU is in use, otherwise nothing",
    "CONTACT_SUPPORT": "contact the hardware vendor's or NVIDIA's support",
    "DRAIN_AND_RESET": "let the running jobs end, then reset the GPU",
    "DRAIN_P2P": "end the jobs that use peer-to-peer transfers to this GPU",
    "IGNORE": "nothing to do",
    "INFORMATIONAL": "look into the other XID it came with",
    "INVESTIGATE_LINK_SI": "examine the signal quality of the link: telemetry, cables, connectors",
    "INVESTIGATE_SW": "look for the fault in the software, the application's or NVIDIA's; a process id may point to it",
    "INVESTIGATE_SW_USER": "if it was not intended, find the software or the person that caused it",
    "RESET_GPU": "stop all work on the GPU and reset it",
    "RESTART_APP": "restart the application",
    "RESTART_BM": "restart the host",
    "RESTART_VM": "restart the virtual machine that owns the GPU",
    "SYMPATHETIC_REPORT_SOLO": "a consequence of another error: resolve that first; report this one if it came alone",
    "UPDATE_SWFW": "update driver, vGPU software and firmware to versions that fit together",
    "WORKFLOW_NVLINK5_ERR": "decode the two first registers of the message with NVIDIA's table for XIDs 144 to 150",
    "WORKFLOW_NVLINK_ERR": "decode the registers in the message; check the seating of the NVLink connection",
    "WORKFLOW_XID_13": "same place on the chip again: run DCGM's diagnostics; otherwise check the application",
    "WORKFLOW_XID_31": "same GPU again: run DCGM's diagnostics; otherwise check the application",
    "WORKFLOW_XID_45": "with another XID, follow that; after a killed job, nothing; else restart the fabric manager",
    "WORKFLOW_XID_48": "reset the GPU (with XID 63 or 64: drain it first); alone, run field diagnostics",
    "XID_137_FLOW": "run the application under a memory checker: wrong access to a peer's memory is likely",
    "XID_154": "do what the message says: nothing, drain, reset the GPU, or restart the host",
}  # fmt: skip
"""NVIDIA's resolution bucket -> in our words. A bucket that is not here fails at load."""

_OUT_OF_SERVICE: Final = frozenset({
    "CHECK_MECHANICALS", "CONTACT_SUPPORT", "DRAIN_AND_RESET", "RESET_GPU", "RESTART_BM", "RESTART_VM",
    "WORKFLOW_NVLINK_ERR", "WORKFLOW_XID_48",
})  # fmt: skip
_NOTHING: Final = frozenset({"", "IGNORE"})
_UNUSED: Final = "Unused"
_RECOVERY: Final = {
    "none": "IGNORE",
    "drain p2p": "DRAIN_P2P",
    "drain and reset": "DRAIN_AND_RESET",
    "gpu reset required": "RESET_GPU",
    "node reboot required": "RESTART_BM",
}
"""The texts an XID 154 message ends with; source: the catalogue's trigger conditions of 154."""
_RECOVERY_CHANGED: Final = 154


def severity_of(immediate: str, investigatory: str, *, unused: bool = False, dcgm_health: str = "") -> Severity:
    """The rule of the module's docstring."""
    if dcgm_health == "FAIL" or (immediate in _OUT_OF_SERVICE and not unused):
        return Severity.CRITICAL
    if dcgm_health == "WARN" or unused:
        return Severity.WARNING
    if not immediate:
        return Severity.UNKNOWN
    return Severity.INFO if immediate in _NOTHING and investigatory in _NOTHING else Severity.WARNING


@cache
def catalogue() -> dict[int, XidInfo]:
    """Code -> row, in the order of the codes. Read once, when first asked for."""
    with Path(__file__).with_name("xid.csv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return {info.code: info for info in map(_row, rows)}


def lookup(code: int, message: str | None = None) -> XidInfo:
    """What XID `code` means. `message`, the driver's text, sharpens XID 154, whose action is in it."""
    info = catalogue().get(code)
    if info is None:
        return _unknown(code)
    action = _recovery(message) if code == _RECOVERY_CHANGED and message else None
    return info if action is None else _with_action(info, action)


def _row(row: dict[str, str]) -> XidInfo:
    immediate, investigatory, boards = row["immediate"], row["investigatory"], tuple(row["applies_to"].split())
    unused = immediate == "CONTACT_SUPPORT" and not boards
    return XidInfo(
        code=int(row["code"]),
        meaning="No longer used" if row["meaning"] == _UNUSED else row["meaning"],
        severity=severity_of(immediate, investigatory, unused=unused, dcgm_health=row["dcgm_health"]),
        immediate_action=ACTIONS[immediate],
        investigatory_action=ACTIONS[investigatory],
        mnemonic=row["mnemonic"],
        immediate=immediate,
        investigatory=investigatory,
        applies_to=boards,
    )


def _unknown(code: int) -> XidInfo:
    return XidInfo(
        code=code,
        meaning="unknown XID",
        severity=Severity.UNKNOWN,
        immediate_action="",
        investigatory_action=f"not in NVIDIA's catalogue of {DATE}: look in the documentation of the installed driver",
        known=False,
    )


def _recovery(message: str) -> str | None:
    """Bucket of `GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)`: its last parenthesis."""
    texts = re.findall(r"\(([^()]*)\)", message)
    return _RECOVERY.get(texts[-1].strip().lower()) if texts else None


def _with_action(info: XidInfo, action: str) -> XidInfo:
    return replace(info, severity=severity_of(action, ""), immediate=action, immediate_action=ACTIONS[action])
