"""`status.json` {"tag", "memo"}: what the operator says this host is doing, stored with every sample of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from services.contract.event import Status

log = logging.getLogger("collector.status")

decode: Final = msgspec.json.Decoder(Status).decode
"""The one definition of the file's format (`gpumon status` writes by it). Raises msgspec.MsgspecError."""


class StatusFile:
    """Read again whenever it changes. Missing: no status, which is normal. Unreadable: none either, logged once."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._status: Status | None = None
        self._problem: str | None = None

    def read(self) -> Status | None:
        """One `stat` a call; a wrong tag is worse than none, so nothing is kept when the file turns bad."""
        if self._path is None:
            return None
        try:
            stat = self._path.stat()
            stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if stamp != self._stamp:
                self._stamp = stamp
                self._status = decode(self._path.read_bytes())
                self._problem = None
        except FileNotFoundError:
            self._stamp = self._status = None
        except (OSError, msgspec.MsgspecError) as error:
            self._status = None
            self._note(str(error))
        return self._status

    def _note(self, problem: str) -> None:
        if problem != self._problem:
            log.error("STATUS_FILE is not usable", extra={"file": str(self._path), "reason": problem})
        self._problem = problem


def is_local(address: str, hostname: str) -> bool:
    """Whether a target is on this host: only those carry its status."""
    host = urlsplit(f"//{address}").hostname or ""
    return host in ("localhost", "::1", hostname.lower()) or host.startswith("127.")
