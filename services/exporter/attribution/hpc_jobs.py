"""HPC job mapping: a directory of files that a batch system's prolog writes and its epilog removes.

File name: GPU index (`0`), or index and MIG GPU instance (`0.3`). Content: one job id a line. The same layout as
dcgm-exporter's DCGM_HPC_JOB_MAPPING_DIR, so that existing prologs go on working.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.ops.regular_file import read_regular

_NAME: Final = re.compile(r"([0-9]{1,5})(?:\.([0-9]{1,5}))?")
MAX_FILES: Final = 1024
"""In the directory with a GPU's name. A host has 16 GPUs of seven instances."""
MAX_JOBS: Final = 128
"""Of a GPU or instance, each a whole set of its series. Time slicing shares a GPU among tens, MPS among 60."""
MAX_BYTES: Final = 65_536
"""Of a file: far more than such a list has. A larger one is not a job mapping."""
MAX_LENGTH: Final = 256
"""Characters of a job id; Slurm's have some 20."""

Slot = tuple[int, int | None]
"""GPU index, and GPU instance id or None."""


class HpcJobsError(Exception):
    """The directory cannot be read; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Jobs:
    """What the directory says."""

    by_slot: Mapping[Slot, tuple[str, ...]]
    """GPU or instance -> its job ids, in the file's order, each once; only those that have one."""
    unreadable: tuple[str, ...]
    """Files that should have said something, and why they did not. The others count all the same."""


def read(directory: Path) -> Jobs:
    """Files with other names are not ours, and one that goes while we read (its job ended) holds nothing. Raises
    HpcJobsError."""
    try:
        names = sorted(name for name in os.listdir(directory) if _NAME.fullmatch(name))
    except OSError as error:
        raise HpcJobsError(f"HPC_JOB_MAPPING_DIR={directory}: {error.strerror}") from None
    if len(names) > MAX_FILES:
        raise HpcJobsError(f"HPC_JOB_MAPPING_DIR={directory}: {len(names)} files, at most {MAX_FILES} are read")
    by_slot: dict[Slot, tuple[str, ...]] = {}
    unreadable: list[str] = []
    for name in names:
        try:
            ids = _job_ids(directory / name)
        except (OSError, _NoMappingError) as error:
            unreadable.append(f"{directory / name}: {error.strerror if isinstance(error, OSError) else error}")
            continue
        if ids:
            by_slot[_slot(name)] = ids
    return Jobs(by_slot, tuple(unreadable))


class _NoMappingError(Exception):
    """A file that is no list of job ids; the message says why."""


def _slot(name: str) -> Slot:
    gpu, _, instance = name.partition(".")
    return int(gpu), int(instance) if instance else None


def _job_ids(path: Path) -> tuple[str, ...]:
    """Without waiting: a FIFO is no job mapping."""
    try:
        content = read_regular(path, MAX_BYTES)
    except FileNotFoundError:
        return ()
    lines = (line.strip() for line in content.decode("utf-8", errors="replace").splitlines())
    ids = tuple(dict.fromkeys(line for line in lines if line))
    if len(ids) > MAX_JOBS or any(len(job) > MAX_LENGTH for job in ids):
        raise _NoMappingError(f"no list of at most {MAX_JOBS} job ids of at most {MAX_LENGTH} characters")
    return ids
