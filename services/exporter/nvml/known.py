"""Which GPUs NVML showed, which of them are lost, and whether the PCI bus says otherwise. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.exporter.nvml.pci import PciBus
from services.exporter.reading import Device, Lost

UNSEEN: Final = "on the PCI bus, but NVML does not show it"
NO_DRIVER: Final = "on the PCI bus, but the nvidia driver has not taken it"
UNPLUGGED: Final = "gone from the PCI bus"
NOT_LISTED: Final = "no longer shown by NVML"


@dataclass(frozen=True, slots=True)
class Amiss:
    """Why it may help to initialise NVML again."""

    moved: frozenset[str] = frozenset()
    """Addresses that are on the bus and not in NVML, or in NVML and no longer on the bus."""
    lost: frozenset[int] = frozenset()
    """Indices of GPUs that NVML counts and cannot read."""

    def __bool__(self) -> bool:
        return bool(self.moved or self.lost)


class KnownGpus:
    """Between `begin` and `lost` it is told of every GPU that NVML counts."""

    def __init__(self) -> None:
        self._devices: dict[str, Device] = {}  # by address, all ever read
        self._at: dict[int, Device] = {}  # by index, read since NVML was initialised
        self._seen: dict[int, str] = {}
        self._lost: dict[int, Lost] = {}
        self._count: int | None = None
        self._ever: frozenset[str] = frozenset()  # addresses that were on the bus

    def renumber(self) -> None:
        """NVML was initialised again: what it shows is not known yet, and indices may mean other GPUs."""
        self._at = {}
        self._count = None

    def begin(self, count: int) -> None:
        """A sweep over `count` GPUs begins."""
        self._count, self._seen, self._lost = count, {}, {}

    def see(self, device: Device) -> None:
        """It was read."""
        for address in [a for a, old in self._devices.items() if old.uuid == device.uuid and a != device.pci_bus_id]:
            del self._devices[address]  # the same GPU in another slot or dock
        self._devices[device.pci_bus_id] = self._at[device.index] = device
        self._seen[device.index] = device.pci_bus_id

    def lose(self, index: int, reason: str, bus: PciBus) -> None:
        """NVML counts it, and cannot read it."""
        device = self._at.get(index) or self._devices.get(self._place(index, bus) or "")
        if device is None:
            self._lost[index] = Lost(reason, index=index, pci_bus_id=self._place(index, bus))
        else:
            self._lost[index] = Lost(reason, device.uuid, index, device.pci_bus_id, device.model)

    def amiss(self, bus: PciBus) -> Amiss:
        """The last sweep beside what the bus has now. Nothing before the first sweep."""
        self._ever |= bus.gpus
        if self._count is None:
            return Amiss()
        listed = self._listed()
        vanished = (listed & self._ever) - bus.gpus
        return Amiss(vanished.union(self._unlisted(bus.gpus)), frozenset(self._lost))

    def lost(self, bus: PciBus) -> tuple[Lost, ...]:
        """By index; those NVML does not count at all last."""
        found = [self._lost[index] for index in sorted(self._lost)]
        found += [self._absent(a, NO_DRIVER if a in bus.idle else UNSEEN) for a in self._unlisted(bus.gpus | bus.idle)]
        gone = sorted(self._devices.keys() - self._listed() - bus.gpus - bus.idle)
        return (*found, *(self._absent(a, UNPLUGGED if a in self._ever else NOT_LISTED) for a in gone))

    def _listed(self) -> frozenset[str]:
        """Addresses of the GPUs NVML counts, as far as they are known."""
        told = (lost.pci_bus_id for lost in self._lost.values())
        return frozenset(self._seen.values()).union(address for address in told if address is not None)

    def _unlisted(self, on_bus: frozenset[str]) -> list[str]:
        """Addresses NVML does not count. Each lost GPU without an address may be one of them."""
        nameless = sum(lost.pci_bus_id is None for lost in self._lost.values())
        return sorted(on_bus - self._listed())[nameless:]

    def _place(self, index: int, bus: PciBus) -> str | None:
        """The address of a GPU that never told it: NVML counts the GPUs of the host in the order of their addresses."""
        return sorted(bus.gpus)[index] if len(bus.gpus) == self._count else None

    def _absent(self, address: str, reason: str) -> Lost:
        device = self._devices.get(address)
        if device is None:
            return Lost(reason, pci_bus_id=address)
        index = None if device.index in self._seen or device.index in self._lost else device.index
        return Lost(reason, device.uuid, index, address, device.model)
