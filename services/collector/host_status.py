"""`status.json` {"tag", "memo"}: what the operator says this host is doing, stored with every sample of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from services.contract.event import Status
from services.ops.regular_file import read_regular

log = logging.getLogger("collector.status")

MAX_BYTES: Final = 64 * 1024
"""Of the file. Tag and memo have 1,024 characters each: 12 kB, whatever the writer escapes."""
_decode: Final = msgspec.json.Decoder(Status).decode
"""The one definition of the file's format; `gpumon status` writes by it."""


class StatusFileError(Exception):
    """There is a file, and it gives no status; the message says why."""


def load(path: Path) -> Status:
    """What the file says. Never waits, whatever the file is. Raises FileNotFoundError, StatusFileError."""
    try:
        status = _decode(read_regular(path, MAX_BYTES))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StatusFileError(f"cannot be read ({error.strerror})") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StatusFileError(f"holds no status ({error})") from None
    except RecursionError:
        raise StatusFileError("holds no status (nested too deeply)") from None
    if any("\0" in text for text in (status.tag, status.memo) if text is not None):
        raise StatusFileError("holds no status (a NUL, which the database cannot store)")
    return status


class StatusFile:
    """Read again whenever it changes. Missing: no status, which is normal. Unreadable: none either, logged once."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, ...] | None = None
        """Of the file that `_status` came from."""
        self._status: Status | None = None
        self._problem: str | None = None

    def read(self) -> Status | None:
        """One `stat` a call; a wrong tag is worse than none, so nothing is kept when the file turns bad."""
        if self._path is None:
            return None
        try:
            stat = self._path.stat()
            stamp = (stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size)
            if stamp != self._stamp:
                self._stamp = self._status = None  # before anything can go wrong
                self._status = load(self._path)
                self._stamp, self._problem = stamp, None
        except FileNotFoundError:
            self._stamp = self._status = self._problem = None
        except StatusFileError as error:
            self._forget(str(error))
        except OSError as error:
            self._forget(f"cannot be read ({error.strerror})")
        return self._status

    def _forget(self, problem: str) -> None:
        """No stamp: tried again with each call, so that whatever heals it is noticed."""
        self._stamp = self._status = None
        self._note(problem)

    def _note(self, problem: str) -> None:
        if problem != self._problem:
            log.error("STATUS_FILE is not usable", extra={"file": str(self._path), "reason": problem})
        self._problem = problem


def is_local(address: str, hostname: str) -> bool:
    """Whether a target is on this host: only those carry its status."""
    host = urlsplit(f"//{address}").hostname or ""
    return host in ("localhost", "::1", hostname.lower()) or host.startswith("127.")
