"""What was shown before, for sparklines: a short, bounded memory per GPU."""

from __future__ import annotations

from collections import deque
from typing import Final

from services.top.frame import Frame, Row

LENGTH: Final = 240
"""Looks remembered: more than a terminal is wide."""
COLUMNS: Final = ("gpu_temp", "gpu_util", "power_usage")
_FORGET_AFTER: Final = 600
"""Looks after which a GPU that is not there any more is forgotten."""


class History:
    """One value per look and column; None where there was none, so that gaps stay gaps."""

    def __init__(self, length: int = LENGTH) -> None:
        self._length = length
        self._lines: dict[str, dict[str, deque[float | None]]] = {}
        self._absent: dict[str, int] = {}

    def add(self, frame: Frame | None) -> None:
        """A look at all GPUs; None: one that failed."""
        rows = {} if frame is None else {row.key: row for row in frame.rows}
        for key in self._lines.keys() | rows.keys():
            self._add(key, rows.get(key))

    def _add(self, key: str, row: Row | None) -> None:
        self._absent[key] = 0 if row is not None else self._absent.get(key, 0) + 1
        if self._absent[key] > _FORGET_AFTER:
            del self._absent[key], self._lines[key]
            return
        lines = self._lines.setdefault(key, {c: deque(maxlen=self._length) for c in COLUMNS})
        for column, line in lines.items():
            line.append(None if row is None else row.values.get(column))

    def last(self, key: str, column: str, count: int) -> list[float | None]:
        """The last `count` values, oldest first; fewer where there were fewer."""
        line = self._lines.get(key, {}).get(column, ())
        return list(line)[-count:] if count > 0 else []
