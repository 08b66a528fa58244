"""What is told of GPUs besides their readings, each by threads of its own: whose they are, XIDs, whole documents."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from services.exporter.attribution.attributor import Attributor, open_attributor
from services.exporter.pci_address import canonical_pci
from services.exporter.reading import Device
from services.exporter.smi.snapshot import Document, SnapshotKeeper
from services.exporter.xid import kernel_log
from services.exporter.xid.kernel_log import KernelLogWatch
from services.exporter.xid.ledger import XidLedger
from services.settings import Settings

if TYPE_CHECKING:
    from services.exporter.xid.nvml_events import NvmlXidWatch

log = logging.getLogger("exporter")


class Surroundings:
    """Made idle; `start`, then ask, then `stop`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.ledger = XidLedger()
        self._attributor: Attributor | None = open_attributor(settings, settings.exporter_interval or 1.0)
        self._kernel: KernelLogWatch | None = None
        self._nvml: NvmlXidWatch | None = None
        self._keeper = SnapshotKeeper(settings.nvidia_smi, settings.nvidia_smi_timeout, settings.snapshot_interval)
        self._stopping = threading.Event()
        self._started = False

    def start(self) -> None:
        """Once; again does nothing. Takes a few seconds at most, and those only where pods are asked for."""
        if self._started:
            return
        self._started = True
        source = self._settings.exporter_source
        if source in ("auto", "nvml"):
            from services.exporter.xid import nvml_events  # noqa: PLC0415  # NVML's binding, where it is used

            self._nvml = nvml_events.watch(self.ledger)
        if source != "mock":
            self._kernel = kernel_log.watch(self.ledger, self._settings.kernel_log)
            follow = threading.Thread(target=self._keeper.follow, args=(self._stopping,), name="snapshots", daemon=True)
            follow.start()
        if self._attributor is not None:
            self._attributor.start()

    def stop(self) -> None:
        self._stopping.set()
        for part in (self._attributor, self._kernel, self._nvml):
            if part is not None:
                part.stop()

    def look_up(self) -> None:
        """Ask for pods and jobs once, without a thread."""
        if self._attributor is not None:
            self._attributor.poll()

    def holders(self, device: Device) -> Sequence[Mapping[str, str]]:
        """Kubernetes and HPC labels of each who holds the device."""
        return self._attributor.labels(device) if self._attributor is not None else ()

    def offer_document(self, xml: bytes) -> None:
        """A whole answer of nvidia-smi that was read anyway."""
        self._keeper.offer(xml)

    def documents(self) -> list[Document]:
        """The newest kept document of each GPU."""
        return self._keeper.documents()

    @property
    def documents_time(self) -> float | None:
        """Changes when any document does; seconds since the epoch, None without documents."""
        return self._keeper.timestamp

    @property
    def attribution_failures(self) -> Mapping[str, int]:
        return self._attributor.failures if self._attributor is not None else {}

    def hears_xids(self, address: str) -> bool:
        """Whether an XID of the GPU at this PCI address would come to the ledger."""
        kernel, nvml = self._kernel, self._nvml
        if kernel is not None and kernel.origin is not None and kernel.reason is None:
            return True
        return nvml is not None and canonical_pci(address) in nvml.listening

    @contextmanager
    def nvml_released(self) -> Iterator[bool]:
        """Nothing here holds NVML inside, so that it can be initialised anew; False where that cannot be had."""
        if self._nvml is None:
            yield True
            return
        with self._nvml.released() as free:
            yield free
