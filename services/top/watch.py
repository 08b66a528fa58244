"""The thread that looks at the GPUs, so that a source that hangs does not freeze the screen."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from services.top.frame import Frame, View, ViewError

Told = Frame | str
"""A look, or why there was none."""


class Watcher:
    """Looks every `interval` seconds; `take` gives what came since. Use as a context manager."""

    def __init__(self, view: View, interval: float, ring: Callable[[], None]) -> None:
        """`ring` is called, from the thread, whenever there is something new."""
        self._view, self._interval, self._ring = view, interval, ring
        self._lock = threading.Lock()
        self._told: list[Told] = []
        self._died: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="look", daemon=True)

    def take(self) -> list[Told]:
        """Raises what the thread died of: anything but ViewError is a bug."""
        with self._lock:
            if self._died is not None:
                raise self._died
            told, self._told = self._told, []
            return told

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(1.0)  # one that hangs in a driver is left behind: it is a daemon

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                told = look(self._view)
                with self._lock:
                    self._told.append(told)
                self._ring()
                self._stop.wait(self._interval)
        except BaseException as error:  # noqa: BLE001  # `take` raises it where it is seen
            self._died = error
            self._ring()
        finally:
            self._view.close()


def look(view: View) -> Told:
    """One look."""
    try:
        return view.read()
    except ViewError as error:
        return " ".join(str(error).split())
