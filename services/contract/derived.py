"""Percentages that follow from what is measured; unknown where a part of them is."""

from __future__ import annotations


def percent(part: float | None, whole: float | None) -> float | None:
    """`part` of `whole` in percent, two decimals; None where either is unknown or the whole is nothing."""
    return round(100.0 * part / whole, 2) if part is not None and whole else None


def memory_percent(used: int | None, total: int | None, free: int | None, reserved: int | None) -> float | None:
    if total is None and used is not None and free is not None:
        total = used + free + (reserved or 0)
    return percent(used, total)
