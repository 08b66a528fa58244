"""`P40=1,H100=8`: the boards of the mock source as written in EXPORTER_MOCK and after --mock."""

from __future__ import annotations

from typing import Final

MOST: Final = 32
"""GPUs: the simulator builds no larger host."""


def boards(text: str) -> tuple[tuple[str, int], ...]:
    """(model, count) in order, comma-separated `MODEL` or `MODEL=COUNT`. Raises ValueError with what is allowed."""
    found = tuple(_board(part.strip()) for part in text.split(","))
    total = sum(count for _, count in found)
    if total > MOST:
        raise ValueError(f"{total} GPUs; a simulated host has at most {MOST}")
    return found


def _board(part: str) -> tuple[str, int]:
    from mock_dcgm.models import MODELS  # noqa: PLC0415  # only where boards are named, which is seldom

    model, equals, count = part.partition("=")
    if model not in MODELS:
        raise ValueError(f"unknown model {model!r}; known are {', '.join(MODELS)}; for example P40=1 or P40=1,H100=8")
    if equals and (not (count.isascii() and count.isdigit()) or int(count) < 1):
        raise ValueError(f"{part}: the count is a whole number above 0")
    return model, int(count or 1)
