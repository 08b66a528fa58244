"""Which GPU and which GPU instance a MIG UUID belongs to. Kubernetes knows MIG devices by their UUID only."""

from __future__ import annotations

import re
from typing import Final

import pynvml

_OLD: Final = re.compile(r"MIG-(GPU-[0-9a-fA-F-]{36})/(\d+)/\d+")
"""Of drivers before R470: the UUID says it itself."""

Owner = tuple[str, int]
"""GPU UUID, GPU instance id."""


def mig_owner(uuid: str) -> Owner | None:
    """`MIG-...` -> its GPU's UUID and GPU instance id; None where the driver does not know it, or is not there."""
    old = _OLD.fullmatch(uuid)
    return (old[1], int(old[2])) if old else _ask_driver(uuid)


def _ask_driver(uuid: str) -> Owner | None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        instance = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        gpu = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance)
        return str(pynvml.nvmlDeviceGetUUID(gpu)), int(pynvml.nvmlDeviceGetGpuInstanceId(instance))
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
