"""Values over time as one line of block characters."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, isfinite
from typing import Final

BLOCKS: Final = "▁▂▃▄▅▆▇█"
GAP: Final = " "
_PERCENT: Final = 100.0
"""Top of the scale of `sparkline` unless a value is larger: it was made for percentages and degrees."""


def sparkline(values: Iterable[float | None]) -> str:
    """`sparkline([45, 67, 82, 91, 88, 75, 60]) == "▃▅▆█▇▅▄"`. None and NaN are gaps (blanks); no values, no text.

    The scale begins at zero and ends at 100, or at the largest value above it; below zero it begins at the smallest.
    A cell shows the eighths that lie wholly below its value, at least one (a zero is seen, and is no gap), so █ stays
    free to mark the peak, wherever that is. A constant line has no peak. (No even scale from the smallest to the
    largest value gives the documented line: 67 and 75 share a block there, 88 and 91 do not.)
    """
    cells = [value if value is not None and isfinite(value) else None for value in values]
    known = [value for value in cells if value is not None]
    if not known:
        return GAP * len(cells)
    top, low = max(known), min(*known, 0.0)
    flat = top == min(known)
    step = (max(top, _PERCENT) - low) / len(BLOCKS)

    def cell(value: float) -> str:
        if value == top and not flat:
            return BLOCKS[-1]
        return BLOCKS[max(ceil((value - low) / step) - 2, 0)]

    return "".join(GAP if value is None else cell(value) for value in cells)


def blocks(values: Iterable[float | None], low: float, high: float) -> str:
    """On a fixed scale, so that lines beside each other compare: ▁ at `low` and below, █ at `high` and above."""
    span = high - low

    def cell(value: float | None) -> str:
        if value is None or not isfinite(value):
            return GAP
        share = (value - low) / span if span > 0 else 0.0
        return BLOCKS[min(max(ceil(share * len(BLOCKS)) - 1, 0), len(BLOCKS) - 1)]

    return "".join(map(cell, values))
