"""One line per GPU: columns that fit the width, those that say most first. Also the plain table of `--once`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from rich.text import Text

from services.top import figures
from services.top.frame import Row
from services.top.history import History
from services.top.judge import Light, Verdict

SIGNS: Final = {Light.GREEN: "●", Light.YELLOW: "▲", Light.RED: "■", Light.GREY: "?"}
"""A shape per colour: colour alone is not enough."""


@dataclass(frozen=True, slots=True)
class Line:
    """A GPU as judged, with its past."""

    row: Row
    verdict: Verdict
    history: History


@dataclass(frozen=True, slots=True)
class Column:
    head: str
    width: int
    rank: int
    """The smaller, the later it is left out."""
    text: Callable[[Line], str]
    right: bool = True
    column: str | None = None
    """Whose colour it takes."""


def _trend(column: str, width: int) -> Callable[[Line], str]:
    return lambda line: figures.trend(line.row, line.history, column, width)


HOST: Final = Column("HOST", 16, 0, lambda n: n.row.host, right=False)
GPU: Final = Column("GPU", 4, 0, lambda n: n.row.number)
NAME: Final = Column("NAME", 17, 2, lambda n: n.row.name, right=False)
STATE: Final = Column("STATE", 7, 0, lambda n: f"{SIGNS[n.verdict.light]} {n.verdict.word}", right=False)
FIGURES: Final = (
    Column("TEMP", 5, 0, lambda n: figures.temperature(n.row), column="gpu_temp"),
    Column("FAN", 5, 6, lambda n: figures.whole(n.row, "fan_speed", " %")),
    Column("POWER", 10, 1, lambda n: figures.power(n.row), column="power_usage"),
    Column("UTIL", 5, 1, lambda n: figures.whole(n.row, "gpu_util", " %"), column="gpu_util"),
    Column("MEMORY", 15, 4, lambda n: figures.memory(n.row), column="fb_used"),
    Column("MEM", 5, 3, lambda n: figures.percent(figures.memory_percent(n.row)), column="fb_used"),
    Column("SM MHz", 6, 5, lambda n: figures.whole(n.row, "sm_clock")),
    Column("P", 3, 7, lambda n: figures.pstate(n.row)),
)
TRENDS: Final = (
    Column("", 8, 8, _trend("gpu_temp", 8), column="gpu_temp"),
    Column("", 8, 10, _trend("power_usage", 8), column="power_usage"),
    Column("", 8, 9, _trend("gpu_util", 8), column="gpu_util"),
)
_NAMES: Final = (HOST.head, GPU.head, NAME.head, STATE.head)
"""Columns that a lost GPU fills too."""
HOST_MOST: Final = 24
NOTES_LEAST: Final = 20
"""Columns of the terminal that notes get at least, before anything of higher rank is shown."""


def columns(width: int | None, hosts: Sequence[str], names: Sequence[str] = (), *, trends: bool = True) -> list[Column]:
    """Those that fit, in order; all where the width does not matter. One host needs no column."""
    host = _fitted(HOST, hosts, HOST_MOST)
    wanted = [*([] if len(set(hosts)) == 1 else [host]), GPU, _fitted(NAME, names, NAME.width), STATE]
    for column in FIGURES:
        wanted.append(column)
        pair = {"gpu_temp": 0, "power_usage": 1, "gpu_util": 2}.get(column.column or "")
        if trends and pair is not None:
            wanted.append(TRENDS[pair])
    while width is not None and _length(wanted) + NOTES_LEAST > width and any(c.rank for c in wanted):
        wanted.remove(max(wanted, key=lambda c: c.rank))
    return wanted


def _fitted(column: Column, texts: Sequence[str], most: int) -> Column:
    """As wide as its texts, within bounds; as it is without any."""
    longest = max(map(len, texts), default=column.width)
    return replace(column, width=min(max(longest, len(column.head)), most))


def widened(wanted: Sequence[Column], lines: Sequence[Line]) -> list[Column]:
    """As wide as what stands in them, so that nothing is cut."""
    return [replace(c, width=max([len(c.head), *(len(c.text(each)) for each in lines)])) for c in wanted]


def _length(wanted: Sequence[Column]) -> int:
    return sum(c.width + 1 for c in wanted)


def head(wanted: Sequence[Column]) -> Text:
    cells = [c.head.rjust(c.width) if c.right else c.head.ljust(c.width) for c in wanted]
    return Text(" ".join([*cells, "NOTES"]), style="bold", no_wrap=True)


def line(of: Line, wanted: Sequence[Column], width: int | None) -> Text:
    """One GPU. A lost one has only its name, its state and why."""
    text = Text(no_wrap=True, overflow="ellipsis")
    verdict = of.verdict
    faded = verdict.word in ("LOST", "STALE")
    for column in wanted:
        said = column.text(of)
        if column.head not in _NAMES and of.row.lost is not None:
            said = figures.UNKNOWN if column.head else ""
        said = _cut(said, column.width)
        style = _style(column, verdict, faded=faded)
        text.append(said.rjust(column.width) if column.right else said.ljust(column.width), style)
        text.append(" ")
    notes = "; ".join(notes_of(of))
    text.append(notes, verdict.light.value if verdict.light in (Light.RED, Light.YELLOW) else "")
    if width is not None:
        text.truncate(width, overflow="ellipsis")
    else:
        text.rstrip()
    return text


def notes_of(of: Line) -> list[str]:
    said = figures.status(of.row)
    return [*of.verdict.notes, *([f"[{said}]"] if said else [])]


def _style(column: Column, verdict: Verdict, *, faded: bool) -> str:
    if column.head == STATE.head:
        return f"bold {verdict.light.value}"
    if faded:
        return "dim"
    colour = verdict.colours.get(column.column or "")
    if colour is not None:
        return f"bold {colour.value}"
    return "cyan" if not column.head else ""


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
