"""The status of this host over a run of several phases, and what it goes back to on any end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from services.contract.event import Status
from services.host import status, status_lock


class Tags:
    """One run at a time sets them (a lock beside the status file): two would restore each other's.

    `set` and `restore` report a file that cannot be written and go on: the run itself matters more.
    """

    def __init__(self, path: Path, final: Status | None, warn: Callable[[str], None]) -> None:
        """`final`: what is left at the end; None: what was there before."""
        self._path = path
        self._warn = warn
        self._final = final
        self._before: Status | None = None
        self._lock: int | None = None
        self.failed = False
        """Some status could not be written: samples may carry a wrong one."""

    @property
    def final(self) -> Status | None:
        """What `restore` leaves; None: no file."""
        return self._final if self._final is not None else self._before

    def begin(self) -> None:
        """Remember what there is. Raises StatusError where another run has the status, or it cannot be written: a run
        whose samples carry no tag is not worth starting."""
        self._lock = _lock(self._path)
        problem: status.StatusError | None = None
        try:
            self._before = status.read(self._path)
        except status.StatusError as error:
            problem = error
        try:
            status.write(self._path, self._before)
        except status.StatusError:
            self._release()
            raise
        if problem is not None:
            self._warn(f"{problem}: it is replaced")

    def set(self, what: Status) -> None:
        self._write(what)

    def restore(self) -> None:
        """On any end, once. Nothing happens where the run did not begin."""
        if self._lock is not None:
            self._write(self.final)
            self._release()

    def _write(self, what: Status | None) -> None:
        try:
            status.write(self._path, what)
        except status.StatusError as error:
            self.failed = True
            self._warn(str(error))

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _lock(path: Path) -> int:
    try:
        return status_lock.take(path)
    except OSError as error:
        name = status_lock.lock_file(path)
        advice = "set STATUS_FILE to a file in a directory that exists and that you may write to"
        raise status.StatusError(f"STATUS_FILE={path}: {name} cannot be made ({error.strerror}); {advice}") from None
    except status_lock.HeldError as held:
        raise status.StatusError(
            f"STATUS_FILE={path}: another burn or benchmark (process {held.owner}) sets it; "
            "wait for its end, or stop it"
        ) from None
