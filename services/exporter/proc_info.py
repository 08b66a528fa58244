"""Who runs a process and what it is called: pid -> user and command, from /proc. Used for the processes on a GPU."""

from __future__ import annotations

import os
import pwd
from functools import lru_cache
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
_LONGEST_COMMAND: Final = 200
"""Characters. A label on a series, not an archive: JVM command lines run to many kilobytes."""


def process_info(pid: int, proc: Path = PROC) -> tuple[str | None, str | None]:
    """(user, command) of `pid`. Each is None where the process has gone, or lives in a PID namespace we cannot see.

    The command is the command line with single spaces, cut at 200 characters; a kernel thread or a zombie, which has
    none, gives its short name. The user is the name of the effective user id, or the number where nobody has that id.
    """
    directory = proc / str(pid)
    return _user(directory), _command(directory)


def _user(directory: Path) -> str | None:
    """From `status`, not from the owner of the directory: that is root for a process that may not be dumped."""
    try:
        for line in (directory / "status").read_text(errors="replace").splitlines():
            if line.startswith("Uid:"):
                return _user_name(int(line.split()[2]))  # real, effective, saved, file system
    except (OSError, ValueError, IndexError):
        return None
    return None


def _command(directory: Path) -> str | None:
    try:
        words = (directory / "cmdline").read_bytes().split(b"\0")
        text = " ".join(os.fsdecode(b" ".join(words)).split())
        if not text:
            text = (directory / "comm").read_text(errors="replace").strip()
    except OSError:
        return None
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable[:_LONGEST_COMMAND] or None


@lru_cache(maxsize=1024)
def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
