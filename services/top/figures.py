"""The figures of a GPU as text: `-` is unknown, never zero."""

from __future__ import annotations

from collections.abc import Sequence

from services.andon.metrics import memory_total
from services.andon.sparkline import blocks
from services.top.frame import Row
from services.top.history import History

UNKNOWN = "-"
_COOL, _WARM = 30.0, 100.0
"""C. Scale of the temperature's sparkline: idle boards stand at 25 to 40, and shut down at 95 to 110."""


def whole(row: Row, column: str, unit: str = "") -> str:
    """A value without decimals, and its unit."""
    value = row.values.get(column)
    return UNKNOWN if value is None else f"{value:.0f}{unit}"


def temperature(row: Row) -> str:
    return whole(row, "gpu_temp", " C")


def power(row: Row) -> str:
    """`249/250 W`; the limit only where it is known."""
    limit = row.values.get("power_limit")
    drawn = whole(row, "power_usage")
    if limit is None:
        return drawn if drawn == UNKNOWN else f"{drawn} W"
    return f"{drawn}/{limit:.0f} W"


def memory(row: Row) -> str:
    """`21.3/22.5 GiB`."""
    used, total = row.values.get("fb_used"), memory_total(row.values)
    if used is None and total is None:
        return UNKNOWN
    if total is None:
        return f"{_gib(used)} GiB"
    return f"{_gib(used)}/{_gib(total)} GiB"


def memory_percent(row: Row) -> float | None:
    return row.metrics().memory_percent()


def percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.0f} %"


def _gib(mebibytes: float | None) -> str:
    return UNKNOWN if mebibytes is None else f"{mebibytes / 1024:.1f}"


def pstate(row: Row) -> str:
    value = row.values.get("pstate")
    return UNKNOWN if value is None else f"P{value:.0f}"


def status(row: Row) -> str:
    """`bench: gpu-burn`; empty without any."""
    if row.status is None:
        return ""
    return ": ".join(part for part in (row.status.tag, row.status.memo) if part)


def trend(row: Row, history: History, column: str, width: int) -> str:
    """A sparkline of the last looks, on a scale that stays: degrees from 30 to 100, percent, watts up to the limit."""
    values = history.last(row.key, column, width)
    low, high = {"gpu_temp": (_COOL, _WARM), "gpu_util": (0.0, 100.0)}.get(column, (0.0, _top(row, values)))
    return blocks(values, low, high).rjust(width)


def _top(row: Row, values: Sequence[float | None]) -> float:
    limit = row.values.get("power_limit")
    return float(limit) if limit else max((v for v in values if v is not None), default=1.0)


def bar(share: float | None, width: int) -> str:
    """`█████░░░`; empty where nothing is known."""
    if share is None:
        return " " * width
    filled = round(min(max(share, 0.0), 100.0) / 100 * width)
    return "█" * filled + "░" * (width - filled)
