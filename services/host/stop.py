"""Stopping a run in good order: the first signal asks for it, the next ones make it hurry; none is let through until
everything is put back."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Final, Self

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """A context in the main thread. `number` is the signal that came first."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._times = 0
        self._event = threading.Event()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def asked(self) -> bool:
        return self.number is not None

    @property
    def hurry(self) -> bool:
        """Asked more than once."""
        return self._times > 1

    @property
    def name(self) -> str:
        return signal.Signals(self.number).name if self.number else ""

    @property
    def exit_code(self) -> int:
        """As a shell gives it for a process that a signal ended: 130 for Ctrl-C."""
        return 128 + (self.number or 0)

    def wait(self, seconds: float) -> None:
        """Returns early when asked to stop."""
        self._event.wait(seconds)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.number = self.number or number
        self._times += 1
        self._event.set()
