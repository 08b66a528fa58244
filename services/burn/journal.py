"""The log of one run: everything that happened, with the time, in a file; the lines for people also on the screen."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

from services.burn.gpu_burn import PROGRESS
from services.ops.clock import Clock

PROGRESS_EVERY: Final = 10.0
"""Seconds between two progress lines of the load in the log: it overwrites its line several times a second."""


class JournalError(Exception):
    """The log cannot be written; the message says where and what to do."""


class Journal:
    """Written to by the main thread and the one that reads the load. A full disk is reported once; the run goes on."""

    def __init__(self, directory: Path, name: str, clock: Clock) -> None:
        """Raises JournalError."""
        self._clock = clock
        self._progress_at = float("-inf")
        self._show: Callable[[str], None] | None = None
        self.path = directory / f"{name}.log"
        self.summary_path = directory / f"{name}.json"
        self.progress = ""
        """The load's last progress line."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] | None = self.path.open("ab", buffering=0)
        except OSError as error:
            raise JournalError(
                f"LOG_DIR={directory}: {self.path.name} cannot be written ({error.strerror}); set LOG_DIR to a "
                "directory that you may write to"
            ) from None

    def show_on(self, show: Callable[[str], None] | None) -> None:
        """Where `tell` shows its lines; None: nowhere."""
        self._show = show

    def tell(self, line: str) -> None:
        """For people: log and screen."""
        self.note(line)
        if self._show is not None:
            self._show(line)

    def note(self, line: str) -> None:
        """For the log."""
        if self._file is None:
            return
        when = dt.datetime.fromtimestamp(self._clock.time()).astimezone().isoformat(timespec="seconds")
        try:
            self._file.write(f"{when} {line}\n".encode())
        except OSError as error:
            self._file = None
            if self._show is not None:
                self._show(
                    f"{self.path}: cannot be written any more ({error.strerror}); the run goes on without its log"
                )

    def load_said(self, line: str) -> None:
        """A line of the load; of its progress one in PROGRESS_EVERY seconds, and each that tells of errors."""
        if PROGRESS.match(line):
            self.progress = " ".join(line.split())
            now = self._clock.monotonic()
            if now - self._progress_at < PROGRESS_EVERY and "!" not in line:
                return
            self._progress_at = now
        self.note(f"| {line.rstrip()}")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
