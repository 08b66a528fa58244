"""Progress: one line drawn in place in a terminal, a line per run elsewhere."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from services.host.live import Monitor

REDRAW: Final = 0.1
"""Seconds: a fast model sends hundreds of tokens a second."""


class BenchScreen:
    """A terminal that is closed in mid-run, or cannot show a letter, must not end it."""

    def __init__(self, console: Console, monitor: Monitor | None, gpus: Collection[int]) -> None:
        """`gpus`: indexes of those shown; none: all."""
        self._console = console
        self._monitor = monitor
        self._gpus = gpus
        self._drawn = 0.0
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        with suppress(OSError, UnicodeError):
            if self._live is not None:
                self._live.start()

    def say(self, line: str) -> None:
        with suppress(OSError, UnicodeError):
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, line: str) -> None:
        now = time.monotonic()
        if self._live is not None and now - self._drawn >= REDRAW:
            self._drawn = now
            with suppress(OSError, UnicodeError):
                self._live.update(Text(f"{line}{self._heat()}", no_wrap=True, overflow="ellipsis"), refresh=True)

    def close(self) -> None:
        with suppress(OSError, UnicodeError):
            if self._live is not None:
                self._live.stop()

    def _heat(self) -> str:
        looks = self._monitor.state().looks if self._monitor is not None else ()
        parts = [
            f"GPU {look.gpu.index} {look.sample.temp:.0f} C"
            + ("" if look.sample.power is None else f" {look.sample.power:.0f} W")
            for look in looks
            if look.sample.temp is not None and (not self._gpus or look.gpu.index in self._gpus)
        ]
        return f"   {'  '.join(parts)}" if parts else ""
