"""Stopping: SIGTERM, SIGINT and SIGHUP set one event; loops look at it, nothing is interrupted in the middle.

What runs once is left behind."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType
from typing import TypeVar

T = TypeVar("T")


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


def unless_stopped(work: Callable[[], T]) -> T:
    """What `work` gives or raises. SIGTERM, SIGINT and SIGHUP leave it behind with SystemExit and the status a shell
    would give (128 + number). Call in the main thread.

    `work` runs in a thread of its own: an exception out of a signal would hit it anywhere, also where a process has
    been started and nobody knows of it yet.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, leave)
    done: Future[T] = Future()
    threading.Thread(target=_settle, args=(done, work), name="once", daemon=True).start()
    return done.result()


def _settle(done: Future[T], work: Callable[[], T]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:  # noqa: BLE001  # it comes out in the main thread
        done.set_exception(error)
