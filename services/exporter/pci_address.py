"""PCI addresses: NVML, nvidia-smi, the kernel and sysfs write them in four ways, DCGM in one."""

from __future__ import annotations

import re
from typing import Final

_PCI: Final = re.compile(r"(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})(?:\.([0-7]))?", re.IGNORECASE)


def canonical_pci(text: str) -> str:
    """DCGM's spelling: `0000:9b:00` -> `00000000:9B:00.0`. Raises ValueError for anything else."""
    found = _PCI.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a PCI address: expected domain:bus:device[.function], like 0000:9b:00.0")
    domain, bus, device, function = found.groups()
    return f"{domain or '0':0>8}:{bus:0>2}:{device:0>2}.{function or '0'}".upper()
