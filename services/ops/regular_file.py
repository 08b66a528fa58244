"""Reading a file that anybody may have put there: a FIFO must not hang us, nor a device or a giant fill the memory."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

_PIECE: Final = 1024 * 1024
_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS: Final = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFDIR: "a directory",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_regular(path: Path, limit: int) -> bytes:
    """All of a regular file (or of what a link leads to) of at most `limit` bytes, without ever waiting for a writer.

    Raises OSError, whose `strerror` says what is wrong, also for other kinds of files and larger ones.
    """
    check_regular(os.stat(path), path)  # before it is opened, which for some devices does something
    descriptor = os.open(path, _FLAGS)
    try:
        check_regular(os.fstat(descriptor), path)
        return _read(descriptor, path, limit)
    finally:
        os.close(descriptor)


def check_regular(found: os.stat_result, path: Path) -> None:
    """Raises OSError for anything but a regular file."""
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))


def _read(descriptor: int, path: Path, limit: int) -> bytes:
    """Counted while it is read: some files of /proc have no size and no end."""
    pieces: list[bytes] = []
    left = limit + 1
    while piece := os.read(descriptor, min(_PIECE, left)):
        pieces.append(piece)
        left -= len(piece)
        if not left:
            raise OSError(errno.EFBIG, f"it is larger than {limit} bytes", str(path))
    return b"".join(pieces)
