"""What `?` shows: the keys, and what the words of the lights mean. docs/top.md has the thresholds."""

from __future__ import annotations

from typing import Final

from rich.text import Text

KEYS: Final = (
    ("q", "quit"),
    ("s", "sort: index, temp, util, power, memory"),
    ("up down  k j", "one GPU up, down"),
    ("PgUp PgDn  b space", "one page up, down"),
    ("Home End  g G", "first, last GPU"),
    ("?", "this help; any key closes it"),
)
LIGHTS: Final = (
    ("HOT", "near the temperature at which it slows down"),
    ("MEM", "memory full: the next allocation fails"),
    ("SLOW", "clocks held down by heat or by the hardware"),
    ("IDLE", "memory held, and no work for long: it may hang"),
    ("ECC", "memory errors, or a repair that waits for a reset"),
    ("XID", "the newest error the driver reported"),
    ("STALE", "values too old to be shown as current"),
    ("LOST", "it was there and cannot be read"),
)
_ROOM: Final = 20
"""Columns of the longest key."""


def page(width: int, height: int) -> list[Text]:
    """`height` lines, none wider than `width`."""
    lines = [Text(""), _title("Keys"), *map(_line, KEYS), Text(""), _title("Lights"), *map(_line, LIGHTS)]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    shown = lines[: max(height, 0)]
    return [*shown, *[Text("")] * (height - len(shown))]


def _title(word: str) -> Text:
    return Text(word, style="bold", no_wrap=True)


def _line(of: tuple[str, str]) -> Text:
    return Text(f"  {of[0]:<{_ROOM}}", style="cyan", no_wrap=True).append(of[1], "default")
