"""HPC job mapping: a directory of files that a batch system's prolog writes and its epilog removes.

File name: GPU index (`0`), or index and MIG GPU instance (`0.3`). Content: one job id a line. The same layout as
dcgm-exporter's DCGM_HPC_JOB_MAPPING_DIR, so that existing prologs go on working.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_NAME: Final = re.compile(r"(\d{1,5})(?:\.(\d{1,5}))?")
MAX_BYTES: Final = 65_536
"""Of a file: some thousand job ids. A larger one is not a job mapping."""

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
        paths = sorted(directory.iterdir())
    except OSError as error:
        raise HpcJobsError(f"HPC_JOB_MAPPING_DIR={directory}: {error.strerror}") from None
    by_slot, unreadable = {}, []
    for path in paths:
        name = _NAME.fullmatch(path.name)
        try:
            ids = _job_ids(path) if name is not None else ()
        except OSError as error:
            unreadable.append(f"{path}: {error.strerror}")
            continue
        if name is not None and ids:
            by_slot[int(name[1]), int(name[2]) if name[2] else None] = ids
    return Jobs(by_slot, tuple(unreadable))


def _job_ids(path: Path) -> tuple[str, ...]:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ()
    lines = (line.strip() for line in text.splitlines())
    return tuple(dict.fromkeys(line for line in lines if line))
