"""What nvidia-smi says instead of an answer: which trouble it is, and what to do. Pure.

Exit codes: RETURN VALUE in nvidia-smi(1); the texts are its own and NVML's (`nvmlErrorString`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from services.exporter.reading import SourceError, Trouble
from services.exporter.smi.program import Answer
from services.exporter.smi.values import plain
from services.exporter.smi.xml import pci_bus_id

_NO_DRIVER: Final = (
    "the kernel module is not loaded: `sudo modprobe nvidia`; where that fails, `sudo dmesg | grep -i -e nvrm -e "
    "nvidia` says why (nouveau, Secure Boot, no module for this kernel, GPU not on the bus)"
)
_MISMATCH: Final = (
    "the driver was updated while its old kernel module is loaded: reboot, or stop all users and reload it"
)
_PERMISSION: Final = (
    "this user may not open /dev/nvidia*: check their mode and group; in a container, start it with the GPUs (--gpus)"
)
_UNKNOWN: Final = (
    "in a container this is what is left after its devices were taken away (systemctl daemon-reload): start it again; "
    "on a host, see `sudo dmesg | grep -i nvrm`"
)
_LIBRARY: Final = "libnvidia-ml.so.1 is not there: install the driver's library (Ubuntu: libnvidia-compute-<version>)"

_TEXTS: Final = (
    ("driver/library version mismatch", Trouble.MISMATCH, _MISMATCH),
    ("communicate with the nvidia driver", Trouble.NO_DRIVER, _NO_DRIVER),
    ("driver is not loaded", Trouble.NO_DRIVER, _NO_DRIVER),
    ("driver not loaded", Trouble.NO_DRIVER, _NO_DRIVER),
    ("nvml shared library not found", Trouble.NO_DRIVER, _LIBRARY),
    ("libnvidia-ml", Trouble.NO_DRIVER, _LIBRARY),
    ("insufficient permissions", Trouble.PERMISSION, _PERMISSION),
    ("failed to initialize nvml: unknown error", Trouble.FAILED, _UNKNOWN),
)
_CODES: Final = {
    4: (Trouble.PERMISSION, _PERMISSION),
    9: (Trouble.NO_DRIVER, _NO_DRIVER),
    12: (Trouble.NO_DRIVER, _LIBRARY),
    18: (Trouble.MISMATCH, _MISMATCH),  # NVML_ERROR_LIB_RM_VERSION_MISMATCH, which nvidia-smi passes on
}
_HANDLE: Final = re.compile(
    r"unable to determine the device handle for (?:gpu)? ?"
    r"(?:(?P<index>[0-9]{1,3}) ?: ?)?"
    r"(?:(?P<pci>[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) ?: ?)?"
    r"(?P<why>[^\n\r.]*)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class NoHandle:
    """A GPU that nvidia-smi cannot open, by what it calls it."""

    reason: str
    pci_bus_id: str | None
    index: int | None


def no_handles(answer: Answer) -> list[NoHandle]:
    """`Unable to determine the device handle for GPU0000:01:00.0: GPU is lost.` and its variants, each GPU once."""
    found: dict[tuple[str | None, int | None], NoHandle] = {}
    for match in _HANDLE.finditer(answer.text):
        pci = pci_bus_id(match["pci"])
        index = int(match["index"]) if match["index"] else None
        found.setdefault((pci, index), NoHandle(match["why"].strip() or "no device handle", pci, index))
    return list(found.values())


def no_devices(answer: Answer) -> bool:
    """The driver is there, and has no GPU: an empty dock, not an error."""
    return plain(answer.text).startswith("no devices were found")


def first_line(answer: Answer) -> str:
    """What it said, short enough for a message; empty where it said nothing."""
    return next((line.strip() for line in answer.text.splitlines() if line.strip()), "")[:200]


def trouble(program: str, answer: Answer) -> SourceError:
    """The error for an answer without a document in it."""
    text = answer.text.lower()
    said = first_line(answer)
    for pattern, kind, advice in _TEXTS:
        if pattern in text:
            return SourceError(kind, f"{program}: {said}: {advice}")
    if answer.code in _CODES:
        kind, advice = _CODES[answer.code]
        return SourceError(kind, f"{program} exited with {answer.code} ({said or 'no text'}): {advice}")
    if answer.code == 0:
        return garbage(program, answer, "no nvidia_smi_log document in it")
    return SourceError(
        Trouble.FAILED,
        f"{program} -q -x exited with {answer.code} ({said or 'no text'}): run it by hand; `sudo dmesg | grep -i nvrm` "
        "may say more",
    )


def garbage(program: str, answer: Answer, why: str) -> SourceError:
    shown = answer.stdout[:60].decode("utf-8", "replace")
    return SourceError(
        Trouble.GARBAGE,
        f"{program} -q -x printed {len(answer.stdout)} bytes that are not its XML ({why}), beginning with {shown!r}: "
        "run it by hand; is NVIDIA_SMI the driver's own program?",
    )
