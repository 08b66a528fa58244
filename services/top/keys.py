"""Keys of the terminal, one at a time, without waiting for Enter; and the bell that wakes whoever waits for them."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

_SEQUENCES: Final = {
    "\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "\x1b[5~": "pgup", "\x1b[6~": "pgdn",
    "\x1b[H": "home", "\x1b[F": "end", "\x1b[1~": "home", "\x1b[4~": "end", "\x1bOH": "home", "\x1bOF": "end",
}  # fmt: skip


class Bell:
    """Rung by other threads and by signals; `wait` ends then, or with a key, or with time."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def ring(self) -> None:
        with suppress(BlockingIOError):  # full: it rings already
            os.write(self._write, b"!")

    def wait(self, seconds: float, keyboard: int | None) -> list[str]:
        """Keys that were pressed meanwhile."""
        watched = [self._read] if keyboard is None else [self._read, keyboard]
        ready, _, _ = select.select(watched, [], [], max(seconds, 0.0))
        if self._read in ready:
            os.read(self._read, 4096)
        if keyboard is None or keyboard not in ready:
            return []
        data = os.read(keyboard, 1024)
        return list(split(data.decode(errors="replace"))) if data else ["\x04"]

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


def split(text: str) -> Iterator[str]:
    """What a terminal sends, as single keys: letters, or names as `up` and `pgdn`. Unknown sequences are dropped."""
    while text:
        found = next((s for s in _SEQUENCES if text.startswith(s)), None)
        if found is not None:
            yield _SEQUENCES[found]
            text = text[len(found) :]
        elif text[0] == "\x1b":
            return
        else:
            yield text[0]
            text = text[1:]


@contextmanager
def keyboard(bell: Bell) -> Iterator[int | None]:
    """The file descriptor of the keyboard, without echo and line by line; None where stdin is no terminal.

    While it lasts, a change of the terminal's size rings the bell.
    """

    def resized(_number: int, _frame: FrameType | None) -> None:
        bell.ring()

    before = signal.signal(signal.SIGWINCH, resized)
    try:
        if not sys.stdin.isatty():
            yield None
            return
        descriptor = sys.stdin.fileno()
        saved = termios.tcgetattr(descriptor)
        tty.setcbreak(descriptor)
        try:
            yield descriptor
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, saved)
    finally:
        signal.signal(signal.SIGWINCH, before)
