"""The processes on a GPU or MIG instance, from NVML; their user and command from /proc."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pynvml

from services.exporter.nvml.calls import Handle
from services.exporter.nvml.errors import UNSUPPORTED, raise_if_fatal
from services.exporter.proc_info import process_info
from services.exporter.reading import Process

_LISTS: Final = (
    ("C", ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2")),
    ("G", ("nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v2")),
)
"""Kind as nvidia-smi writes it, and the functions that list it, the newest first (v3 from driver 510)."""


def processes(handles: Iterable[Handle], proc: Path) -> tuple[Process, ...] | None:
    """By pid; None where NVML does not tell. `handles`: the GPU's, or those of the MIG devices of an instance."""
    kinds: dict[int, set[str]] = {}
    memory: dict[int, int | None] = {}
    for handle in handles:
        for kind, functions in _LISTS:
            listed = _list(handle, functions)
            if listed is None and kind == "C":
                return None
            for one in listed or ():  # no list of graphics processes: a GPU without graphics
                kinds.setdefault(one.pid, set()).add(kind)
                memory[one.pid] = _mebibytes(one.usedGpuMemory)
    return tuple(_process(pid, memory[pid], "+".join(sorted(kinds[pid])), proc) for pid in sorted(kinds))


def _list(handle: Handle, functions: tuple[str, ...]) -> list[Any] | None:
    for function in functions:
        try:
            listed: list[Any] = getattr(pynvml, function)(handle)
        except pynvml.NVMLError as error:
            raise_if_fatal(error.value)
            if error.value not in UNSUPPORTED:
                return None
        else:
            return listed
    return None


def _mebibytes(used: int | None) -> int | None:
    return None if used is None else used // 2**20


def _process(pid: int, used: int | None, kind: str, proc: Path) -> Process:
    user, command = process_info(pid, proc)
    return Process(pid, user, command, used, kind)
