"""The directory of a demo: one demo at a time may write there."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_LOCK: Final = "demo.lock"


class HeldError(Exception):
    """Another demo uses the directory; the message says which, and what to do."""


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """The directory is there and ours; let go of by the kernel when we die. Raises HeldError, OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _lock(descriptor, directory)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 32).decode(errors="replace").strip()
        raise HeldError(
            f"--data-dir {directory}: in use by the demo with process id {owner or '(not known)'}; "
            "end that one, or give another directory"
        ) from None
    os.truncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
