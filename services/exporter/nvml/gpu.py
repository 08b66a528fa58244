"""One GPU as NVML shows it: who it is, and everything read from it, its MIG instances included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pynvml

from services.exporter.nvml import gpm, mig, processes
from services.exporter.nvml.calls import Handle
from services.exporter.nvml.errors import GpuLostError, raise_if_fatal, text
from services.exporter.nvml.gpm import Gpm, Take
from services.exporter.nvml.mig import Instance
from services.exporter.nvml.pci import canonical
from services.exporter.nvml.reader import Cells, Reader
from services.exporter.reading import Device, Reading
from services.ops.clock import Clock

BRANDS: Final[Mapping[int, str]] = MappingProxyType(
    {
        pynvml.NVML_BRAND_QUADRO: "Quadro",
        pynvml.NVML_BRAND_TESLA: "Tesla",
        pynvml.NVML_BRAND_NVS: "NVS",
        pynvml.NVML_BRAND_GEFORCE: "GeForce",
        pynvml.NVML_BRAND_TITAN: "Titan",
        pynvml.NVML_BRAND_QUADRO_RTX: "Quadro RTX",
        pynvml.NVML_BRAND_NVIDIA_RTX: "NVIDIA RTX",
        pynvml.NVML_BRAND_NVIDIA: "NVIDIA",
        pynvml.NVML_BRAND_GEFORCE_RTX: "GeForce RTX",
        pynvml.NVML_BRAND_TITAN_RTX: "Titan RTX",
    }
)
"""nvmlBrandType_t as nvidia-smi writes it; brands of virtual GPUs are left out."""


class Gpu:
    """Lives as long as its handle: until NVML is initialised again, or the GPU is lost."""

    def __init__(self, handle: Handle, device: Device, clock: Clock, proc: Path | None) -> None:
        """`proc`: where to look up the processes on it; None: they are not asked for."""
        self.handle = handle
        self.device = device
        self._clock = clock
        self._since = clock.monotonic()
        self._proc = proc
        self._reader = Reader(handle)
        self._mig = mig.is_on(handle)
        self._has_gpm = gpm.supported(handle)
        self._gpm: dict[int | None, Gpm] = {}

    def read(self) -> list[Reading]:
        """The GPU, then its MIG instances by id. Raises GpuLostError, SourceError."""
        sliced = mig.is_on(self.handle)
        if sliced != self._mig:  # another set of metrics is supported now
            self._reader, self._mig = Reader(self.handle), sliced
        cells = self._reader.read()
        found = mig.instances(self.handle) if sliced else []
        self._forget({None, *(instance.id for instance in found)})
        self._profile(cells, None, gpm.of_gpu(self.handle))
        whole = self._reading(self.device, cells, [] if sliced else [self.handle])
        return [whole, *(self._instance(instance) for instance in found)]

    def age(self) -> float:
        """Seconds since what does not change was asked."""
        return self._clock.monotonic() - self._since

    def renew(self, device: Device) -> None:
        """Ask everything again."""
        self.device = device
        self._since = self._clock.monotonic()
        self._reader = Reader(self.handle)

    def close(self) -> None:
        """While NVML is initialised."""
        self._forget(set())

    def _instance(self, instance: Instance) -> Reading:
        cells = mig.read(instance)
        self._profile(cells, instance.id, gpm.of_instance(self.handle, instance.id))
        device = replace(self.device, instance_id=instance.id, instance_profile=instance.profile)
        return self._reading(device, cells, instance.handles)

    def _reading(self, device: Device, cells: Cells, handles: list[Handle]) -> Reading:
        running = None if self._proc is None else processes.processes(handles, self._proc)
        return Reading(device, cells.values, cells.missing, running)

    def _profile(self, cells: Cells, instance_id: int | None, take: Take) -> None:
        if not self._has_gpm:
            cells.missing.update(gpm.UNSUPPORTED)
            return
        if instance_id not in self._gpm:
            self._gpm[instance_id] = Gpm(take, self._clock)
        for column, cell in self._gpm[instance_id].read().items():
            cells.put(column, cell)

    def _forget(self, keep: set[int | None]) -> None:
        for gone in set(self._gpm) - keep:
            self._gpm.pop(gone).close()


def identify(handle: Handle, index: int, system: Mapping[str, str]) -> Device:
    """`system`: label fields that are the same for all GPUs of the host. Raises GpuLostError, SourceError."""
    try:
        return Device(
            uuid=_decoded(pynvml.nvmlDeviceGetUUID(handle)),
            index=index,
            pci_bus_id=canonical(_decoded(pynvml.nvmlDeviceGetPciInfo(handle).busId)),
            model=_decoded(pynvml.nvmlDeviceGetName(handle)),
            labels={**system, **dict(_labels(handle))},
        )
    except pynvml.NVMLError as error:
        raise_if_fatal(error.value)
        raise GpuLostError(text(error.value)) from error


def system_labels() -> dict[str, str]:
    """What driver and library say of themselves."""
    labels = {}
    for name, function in (
        ("DCGM_FI_DRIVER_VERSION", pynvml.nvmlSystemGetDriverVersion),
        ("DCGM_FI_NVML_VERSION", pynvml.nvmlSystemGetNVMLVersion),
    ):
        with suppress(pynvml.NVMLError):
            labels[name] = _decoded(function())
    return labels


def _labels(handle: Handle) -> Iterator[tuple[str, str]]:
    """Those this GPU has. Consumer cards have no serial number."""
    for name, function in (
        ("DCGM_FI_DEV_VBIOS_VERSION", pynvml.nvmlDeviceGetVbiosVersion),
        ("DCGM_FI_DEV_SERIAL", pynvml.nvmlDeviceGetSerial),
    ):
        with suppress(pynvml.NVMLError):
            if (told := _decoded(function(handle))) not in ("", "N/A"):
                yield name, told
    with suppress(pynvml.NVMLError):
        if brand := BRANDS.get(pynvml.nvmlDeviceGetBrand(handle)):
            yield "DCGM_FI_DEV_BRAND", brand


def _decoded(told: str | bytes) -> str:
    return (told.decode() if isinstance(told, bytes) else told).strip()
