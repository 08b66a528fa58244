"""Stopping: SIGTERM, SIGINT and SIGHUP set one event; loops look at it, nothing is interrupted in the middle."""

from __future__ import annotations

import signal
import threading
from types import FrameType


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM, SIGINT or SIGHUP (the terminal was closed) sets. Call in the main thread; a second signal
    kills as usual."""
    stop = threading.Event()

    def handle(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, handle)
    return stop
