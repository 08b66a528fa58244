"""Colours and small words of a picture. Light, and told apart by the colour-blind too."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final, Literal

from services.contract.catalogue import Metric, Unit
from services.plot.data import Gpu
from services.plot.select import shown

Dashes = Literal["-"] | tuple[float, tuple[float, ...]]
LINES: Final = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8c6d00", "#7b5ea7", "#444444",
)  # fmt: skip
"""Okabe and Ito's palette without its yellow, which is lost on white, and two more."""
DASHES: Final[tuple[Dashes, ...]] = ("-", (0, (4, 1.5)))
"""Of the first eight GPUs, and of those that share a colour with them."""

TAGS: Final = MappingProxyType({"idle": "#e3edf6", "bench": "#fbe3c8", "prod": "#dcefdc"})
_OTHER_TAGS: Final = ("#ece4f5", "#f8e0e6", "#e6e6e6", "#f3f0cf")
UNTAGGED: Final = "#f2f2f2"
HEAT: Final = "#c62828"
POWER: Final = "#c77700"
"""Of throttling and of limits: by temperature, by power."""
INK: Final = "#222222"
FAINT: Final = "#666666"
GRID: Final = "#e4e4e4"

WARM: Final = 75.0
HOT: Final = 85.0
"""C. The runbook's: at 75 the fan is to be looked after, 85 is 5 to 10 below where boards begin to slow down."""

TITLES: Final = MappingProxyType(
    {
        "gpu_temp": "GPU temperature",
        "memory_temp": "Memory temperature",
        "power_usage": "Power draw",
        "gpu_util": "Utilization",
        "fb_used": "Memory used",
        "sm_clock": "SM clock",
        "mem_clock": "Memory clock",
        "fan_speed": "Fan",
        "clocks_event_reasons": "Clock event reasons",
    }
)


def line(number: int) -> tuple[str, Dashes]:
    """Colour and dashes of the GPU with this place in the picture."""
    return LINES[number % len(LINES)], DASHES[number // len(LINES) % len(DASHES)]


def tag_colour(tag: str | None, tags: list[str]) -> str:
    """`tags`: all that are in the picture, so that one tag has one colour in it."""
    if tag is None:
        return UNTAGGED
    others = [t for t in tags if t not in TAGS]
    return TAGS.get(tag) or _OTHER_TAGS[others.index(tag) % len(_OTHER_TAGS)]


def title(metric: Metric) -> str:
    return TITLES.get(metric.column) or metric.column.replace("_", " ")


def axis_label(metric: Metric) -> str:
    unit = shown(metric).unit
    return (
        title(metric) if metric.unit in (Unit.COUNT, Unit.CODE, Unit.FLAG, Unit.BITMASK) else f"{title(metric)}, {unit}"
    )


def references(metric: Metric, gpus: tuple[Gpu, ...], top: float) -> list[tuple[float, str, str]]:
    """Lines to compare with: (value as shown, words, colour). `top`: largest value drawn; far limits are left out, or
    the lines of a cool GPU would be flat."""
    if metric.column == "gpu_temp":
        found = [(WARM, f"warm {WARM:.0f} °C", POWER), (HOT, f"hot {HOT:.0f} °C", HEAT)]
        found += [(t, f"slowdown {t:.0f} °C", HEAT) for t in sorted({g.slowdown_temp for g in gpus if g.slowdown_temp})]
        return [each for each in found if each[0] <= top + 15]
    if metric.column == "power_usage":
        limits = sorted({g.power_limit for g in gpus if g.power_limit})
        return [(w, f"limit {w:.0f} W", POWER) for w in limits if w <= top * 1.3]
    if metric.column == "fb_used":
        totals = sorted({g.memory_total for g in gpus if g.memory_total})
        return [(t / 1024, f"total {t / 1024:.1f} GiB", FAINT) for t in totals if t / 1024 <= top * 1.5]
    return []
