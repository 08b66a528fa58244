"""Who has the status of this host for the length of a burn or benchmark: a lock on a file beside the status file."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class HeldError(Exception):
    """Another process has it: `owner` is its id, as it wrote it down, or `unknown`."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.owner = owner


def lock_file(path: Path) -> Path:
    """`path`: the status file."""
    return path.with_name(f".{path.name}.lock")


def take(path: Path) -> int:
    """The descriptor that holds the lock until it is closed. Raises OSError, HeldError."""
    descriptor = os.open(lock_file(path), os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    try:
        _lock(descriptor, fcntl.LOCK_EX)
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def holder(path: Path) -> str | None:
    """Who has it; None: nobody, or nobody can say."""
    try:
        descriptor = os.open(lock_file(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        _lock(descriptor, fcntl.LOCK_SH)
    except HeldError as held:
        return held.owner
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None


def _lock(descriptor: int, kind: int) -> None:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise HeldError(os.read(descriptor, 32).decode(errors="replace").strip() or "unknown") from None
