"""The MIG instances of a GPU: which there are, and what NVML says of each."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import pynvml

from services.contract.sentinels import Missing
from services.exporter.nvml.calls import MEMORY, Handle
from services.exporter.nvml.errors import raise_if_fatal
from services.exporter.nvml.reader import Cells, Reader

_PROFILE: Final = re.compile(r"\bMIG (?:[0-9]+c\.)?([0-9]+g\.\S+)$")
"""At the end of a MIG device's name: `NVIDIA A100-SXM4-40GB MIG 1g.5gb`, `... MIG 1c.3g.20gb` for a part of one."""
OF_THE_GPU: Final = ("gpu_util", "mem_copy_util", "enc_util", "dec_util")
"""No utilisation by instance: NVML refuses it while MIG is on, and so dcgm-exporter has none."""


@dataclass(slots=True)
class Instance:
    """A GPU instance. Its compute instances are NVML's MIG devices; they share its memory."""

    id: int
    profile: str | None
    """As dcgm-exporter and nvidia-smi write it: `1g.5gb`."""
    handles: list[Handle] = field(default_factory=list)


def is_on(handle: Handle) -> bool:
    """MIG mode. False where the GPU has none."""
    try:
        return bool(pynvml.nvmlDeviceGetMigMode(handle)[0] == pynvml.NVML_DEVICE_MIG_ENABLE)
    except pynvml.NVMLError as error:
        raise_if_fatal(error.value)
        return False


def instances(handle: Handle) -> list[Instance]:
    """By id. Only those with a compute instance: NVML shows no others."""
    found: dict[int, Instance] = {}
    for device in _devices(handle):
        try:
            own = pynvml.nvmlDeviceGetGpuInstanceId(device)
        except pynvml.NVMLError as error:  # destroyed since it was listed
            raise_if_fatal(error.value)
            continue
        if own not in found:
            found[own] = Instance(own, _profile(device))
        found[own].handles.append(device)
    return [found[own] for own in sorted(found)]


def read(instance: Instance) -> Cells:
    """The memory of the instance; utilisation is unsupported; what belongs to the whole GPU is not asked for."""
    cells = Reader(instance.handles[0], (MEMORY,), ()).read()
    cells.put_all(OF_THE_GPU, Missing.UNSUPPORTED)
    return cells


def _devices(handle: Handle) -> list[Handle]:
    devices = []
    for number in range(_count(handle)):
        try:
            devices.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number))
        except pynvml.NVMLError as error:  # numbers may have gaps
            raise_if_fatal(error.value)
    return devices


def _count(handle: Handle) -> int:
    try:
        return int(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle))
    except pynvml.NVMLError as error:
        raise_if_fatal(error.value)
        return 0


def _profile(device: Handle) -> str | None:
    """From the name; where the name does not tell it, from slices and memory, which make up the profile's name."""
    try:
        if match := _PROFILE.search(pynvml.nvmlDeviceGetName(device)):
            return match[1]
        attributes = pynvml.nvmlDeviceGetAttributes_v2(device)
    except pynvml.NVMLError as error:
        raise_if_fatal(error.value)
        return None
    gigabytes = -(-int(attributes.memorySizeMB) // 1024)  # 4,864 MiB of 5 GB: the rest is what the driver keeps
    return f"{attributes.gpuInstanceSliceCount}g.{gigabytes}gb"
