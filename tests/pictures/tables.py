"""A table panel: columns as wide as what is in them, rows as many as there is room for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from services.plot import style
from tests.pictures.fields import Field

ROW: Final = 0.232
"""Inches: a row of Grafana's small cells, at the picture's scale."""
FONT: Final = 7.6
_CHARACTER: Final = 0.062
"""Inches, at that size."""
_BOLD: Final = 0.87
"""How many bold characters take the room of one."""
_PADDING: Final = 0.16
LINK: Final = "#3274d9"


def table(axes: Axes, fields: Sequence[Field]) -> None:
    axes.axis("off")
    box = axes.get_window_extent()
    width, height = box.width / axes.figure.dpi, box.height / axes.figure.dpi
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    rows = min(len(fields[0].values), int(height / ROW) - 1)
    left = 0.0
    for field, wide in zip(fields, _widths(fields, width), strict=True):
        _column(axes, field, rows, left, wide)
        left += wide
    for row in range(rows + 1):
        axes.plot([0, width], [(row + 1) * ROW] * 2, color=style.GRID, linewidth=0.6)
    if rows < len(fields[0].values):
        axes.text(width, -0.55 * ROW, f"{rows} of {len(fields[0].values)} rows", ha="right", va="center",
                  fontsize=6.8, color=style.FAINT)  # fmt: skip


def _widths(fields: Sequence[Field], width: float) -> list[float]:
    needed = [
        max([len(field.name) / _BOLD, *(len(field.text(v)) for v in field.values)]) * _CHARACTER + _PADDING
        for field in fields
    ]
    spare = width - sum(needed)
    if spare >= 0:
        return [each + spare / len(fields) for each in needed]
    return [each * width / sum(needed) for each in needed]


def _column(axes: Axes, field: Field, rows: int, left: float, width: float) -> None:
    right = any(isinstance(v, (int, float)) and not isinstance(v, bool) for v in field.values)
    at, align = (left + width - 0.07, "right") if right else (left + 0.07, "left")
    room = max(3, int((width - 0.1) / _CHARACTER))
    axes.text(
        at,
        ROW / 2,
        _cut(field.name, int(room * _BOLD)),
        ha=align,
        va="center",
        fontsize=FONT,
        weight="bold",
        color=LINK,
    )
    cells = field.config.get("custom.cellOptions", {}).get("type", "auto")
    for row, value in enumerate(field.values[:rows]):
        middle = (row + 1.5) * ROW
        colour = field.colour(value) if cells in ("color-background", "color-text") else None
        if colour and cells == "color-background":
            axes.add_patch(Rectangle((left + 0.01, middle - ROW / 2), width - 0.02, ROW, color=colour, linewidth=0))
        axes.text(at, middle, _cut(field.text(value), room), ha=align, va="center", fontsize=FONT,
                  color=_ink(field, colour, cells))  # fmt: skip


def _ink(field: Field, colour: str | None, cells: str) -> str:
    if colour and cells == "color-background":
        return "white"
    return colour or (LINK if field.config.get("links") else style.INK)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: max(1, room - 1)]}…"
