"""Which NVIDIA GPUs are on the PCI bus, whatever the driver says of them: from sysfs, without a driver call.

A GPU that was plugged in is here before NVML knows of it; one that fell off the bus is gone from here, or still here
and dead. GPUs that belong to somebody else are left out: passed through to a virtual machine (vfio-pci), or, inside a
container, those it was not given (the container runtime hides them from /proc/driver/nvidia/gpus, not from sysfs).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.exporter.pci_address import canonical_pci
from services.exporter.proc_info import PROC

PCI_DEVICES = Path("/sys/bus/pci/devices")
"""The default; a test that stands in for the library also stands in for the bus."""

_NVIDIA: Final = 0x10DE
_DISPLAY: Final = 0x03
"""Base class of GPUs, with a display (0x0300) or without (0x0302); the sound function of a GPU is 0x0403."""
_DRIVER: Final = "nvidia"
_ADDRESS: Final = re.compile(r"[0-9a-f]+:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]", re.IGNORECASE)
"""What a function of a device is called in sysfs."""


def canonical(address: str) -> str:
    """`0000:c1:00.0` or NVML's own form as DCGM writes it: `00000000:C1:00.0`. Anything else as it is, upper case."""
    try:
        return canonical_pci(address)
    except ValueError:
        return address.strip().upper()


@dataclass(frozen=True, slots=True)
class PciBus:
    """What one look at the bus found."""

    gpus: frozenset[str]
    """Addresses of the GPUs the nvidia driver has."""
    idle: frozenset[str] = frozenset()
    """Addresses of GPUs no driver has."""


class PciWatch:
    """`look()` costs one directory listing, and two small files for each PCI device that was not there before."""

    def __init__(self, devices: Path | None = None, proc: Path = PROC) -> None:
        self._devices = PCI_DEVICES if devices is None else devices
        self._driver_list = proc / "driver/nvidia/gpus"
        self._is_gpu: dict[str, bool] = {}

    def look(self) -> PciBus:
        """Empty where the bus cannot be seen (some virtual machines, WSL)."""
        try:
            names = os.listdir(self._devices)
        except OSError:
            names = []
        self._is_gpu = {name: self._is_gpu[name] if name in self._is_gpu else self._look_at(name) for name in names}
        found = [name for name, gpu in self._is_gpu.items() if gpu]
        drivers = {canonical(name): self._driver(name) for name in found}
        ours = frozenset(address for address, driver in drivers.items() if driver == _DRIVER)
        return PciBus(ours & self._listed(ours), frozenset(a for a, driver in drivers.items() if driver is None))

    def _look_at(self, name: str) -> bool:
        return (
            self._number(name, "vendor") == _NVIDIA
            and self._number(name, "class") >> 16 == _DISPLAY
            and _ADDRESS.fullmatch(name) is not None
        )

    def _number(self, name: str, attribute: str) -> int:
        try:
            return int((self._devices / name / attribute).read_text(), 16)
        except (OSError, ValueError):
            return 0

    def _driver(self, name: str) -> str | None:
        try:
            return Path(os.readlink(self._devices / name / "driver")).name
        except OSError:
            return None

    def _listed(self, ours: frozenset[str]) -> frozenset[str]:
        """The driver's own list, where it can be read."""
        try:
            return frozenset(canonical(name) for name in os.listdir(self._driver_list)) if ours else ours
        except OSError:
            return ours
