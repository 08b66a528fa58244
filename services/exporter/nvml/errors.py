"""What NVML's return codes mean for a metric, for a GPU, and for the source as a whole. Source: NVIDIA's `nvml.h`."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import pynvml

from services.contract.sentinels import Missing
from services.exporter.reading import SourceError, Trouble

UNSUPPORTED: Final = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,  # the library is older than the function
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,  # the library is older than this version of a struct
        pynvml.NVML_ERROR_DEPRECATED,  # the library is newer and has dropped it
        pynvml.NVML_ERROR_VGPU_ECC_NOT_SUPPORTED,
    }
)
UNKNOWN_FIELD: Final = pynvml.NVML_ERROR_INVALID_ARGUMENT
"""What nvmlDeviceGetFieldValues answers for an id that the driver does not know."""
_LOST: Final = frozenset({pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED})
_SOURCE_GONE: Final = frozenset({pynvml.NVML_ERROR_UNINITIALIZED, pynvml.NVML_ERROR_DRIVER_NOT_LOADED})

_TROUBLE: Final = MappingProxyType(
    {
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
            Trouble.NO_DRIVER,
            (
                "libnvidia-ml.so.1 is not there: install the NVIDIA driver (Ubuntu: `sudo ubuntu-drivers install`); in "
                "a container, run it with the NVIDIA Container Toolkit (`--gpus all`)"
            ),
        ),
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED: (
            Trouble.NO_DRIVER,
            (
                "the nvidia kernel module is not loaded: `sudo modprobe nvidia`; if that fails, `sudo dmesg | grep -iE "
                "'nvrm|nouveau'` says why (nouveau in its place, Secure Boot, no GPU)"
            ),
        ),
        pynvml.NVML_ERROR_GPU_NOT_FOUND: (
            Trouble.NO_DRIVER,
            "the driver finds no GPU: `lspci -d 10de:` must list it; look at seating, power cables and the eGPU link",
        ),
        pynvml.NVML_ERROR_NO_PERMISSION: (
            Trouble.PERMISSION,
            (
                "no permission for the GPU's device files: this user must be able to read and write /dev/nvidiactl and "
                "/dev/nvidia0, ... (`ls -l /dev/nvidia*`)"
            ),
        ),
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
            Trouble.MISMATCH,
            (
                "the driver's library and kernel module are of different versions, as after an upgrade: reboot, or "
                "stop what uses the GPUs and reload the modules (`sudo rmmod nvidia_uvm nvidia_drm nvidia_modeset "
                "nvidia && sudo modprobe nvidia`)"
            ),
        ),
        pynvml.NVML_ERROR_TIMEOUT: (
            Trouble.HUNG,
            "the driver did not answer in time: `sudo dmesg | grep -i nvrm`; usually only a reboot helps",
        ),
    }
)
_ADVICE: Final = "`nvidia-smi` and `sudo dmesg | grep -i nvrm` tell more"


class GpuLostError(Exception):
    """This GPU cannot be read at all; the message is the driver's."""


def why_missing(code: int) -> Missing:
    """Why a metric has no value, from the return code of the call that should give it."""
    if code in UNSUPPORTED:
        return Missing.UNSUPPORTED
    return Missing.PERMISSION if code == pynvml.NVML_ERROR_NO_PERMISSION else Missing.FAILED


def raise_if_fatal(code: int) -> None:
    """Raises GpuLostError or SourceError for codes that are about more than one metric."""
    if code in _LOST:
        raise GpuLostError(text(code))
    if code in _SOURCE_GONE:
        raise source_error(code)


def text(code: int) -> str:
    """NVML's own words: `GPU is lost`."""
    return str(pynvml.NVMLError(code))


def source_error(code: int) -> SourceError:
    trouble, advice = _TROUBLE.get(code, (Trouble.FAILED, _ADVICE))
    return SourceError(trouble, f"NVML cannot be used ({text(code)}): {advice}")
