"""More of the stand-in for NVML: GPUs and MIG devices found by their UUID. Importing it is enough."""

from __future__ import annotations

from ctypes import c_char_p, c_void_p
from typing import Any

import pynvml

from tests.support.fake_nvml import _HANDLE_P, FakeGpu, FakeNvml, NvmlAnswer, _c, _give, _Mig


def mig_uuid(mig: _Mig) -> str:
    """As the stand-in's nvmlDeviceGetUUID names it."""
    return f"MIG-{mig.instance.id}-{mig.compute}-{mig.gpu.uuid[4:]}"


@_c("nvmlDeviceGetHandleByUUID", c_char_p, _HANDLE_P)
def _by_uuid(nvml: FakeNvml, uuid: bytes, handle: Any) -> None:
    everything: list[FakeGpu | _Mig] = list(nvml._attached)
    for gpu in nvml._attached:
        for instance in gpu.instances or ():
            everything += [_Mig(gpu, instance, compute) for compute in range(instance.compute_instances)]
    for what in everything:
        if uuid.decode() == (what.uuid if isinstance(what, FakeGpu) else mig_uuid(what)):
            _give(handle, nvml._handle(what))
            return
    raise NvmlAnswer(pynvml.NVML_ERROR_NOT_FOUND)


@_c("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", c_void_p, _HANDLE_P)
def _parent(nvml: FakeNvml, handle: int, parent: Any) -> None:
    gpu = nvml.mig_of(handle, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle").gpu
    _give(parent, nvml._handle(gpu))
