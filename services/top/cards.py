"""A box per GPU, for hosts whose GPUs all fit on the screen, and the table of processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.panel import Panel
from rich.text import Text

from services.top import figures
from services.top.figures import UNKNOWN
from services.top.frame import Row
from services.top.judge import Light, Verdict
from services.top.table import SIGNS, Line, notes_of

HEIGHT: Final = 5
"""Lines of a card, borders included."""
_WIDTH_LEAST: Final = 76
"""Columns below which a table says more."""
_BAR: Final = 12


def fit(width: int, height: int, gpus: int) -> bool:
    """Whether all GPUs fit as cards."""
    return width >= _WIDTH_LEAST and 0 < gpus * HEIGHT <= height


def card(of: Line, width: int) -> Panel:
    """Temperature, power and utilisation with their past; memory, clocks and fan; what else is to be said."""
    row, verdict = of.row, of.verdict
    inner = width - 4
    lines = [_lost(of)] if row.lost is not None else [_trends(of, inner), _details(row, verdict, inner)]
    notes = Text("; ".join(notes_of(of)) if row.lost is None else "", style=_plain(verdict.light))
    notes.truncate(inner, overflow="ellipsis")
    body = Text("\n").join([*lines, notes])
    body.no_wrap = True
    if verdict.word == "STALE":
        body.stylize("dim")
    return Panel(
        body,
        title=_title(row),
        title_align="left",
        subtitle=Text(f" {SIGNS[verdict.light]} {verdict.word} ", style=f"bold {verdict.light.value}"),
        subtitle_align="right",
        border_style=_plain(verdict.light) or "bright_black",
        box=box.ROUNDED,
        height=HEIGHT,
        width=width,
    )


def _title(row: Row) -> Text:
    text = Text(f" {row.number} ", style="bold")
    text.append(row.name, "bold")
    if row.pci_bus_id:
        text.append(f"  {row.pci_bus_id}", "dim")
    return text.append(" ")


def _lost(of: Line) -> Text:
    return Text(f"LOST: {of.row.lost}", style="bold red")


def _trends(of: Line, inner: int) -> Text:
    """Three thirds, each label, figure, sparkline."""
    row, text = of.row, Text()
    third = inner // 3
    parts = (
        ("temp", figures.temperature(row), 6, "gpu_temp"),
        ("power", figures.power(row), 10, "power_usage"),
        ("util", figures.whole(row, "gpu_util", " %"), 6, "gpu_util"),
    )
    for number, (label, said, room, column) in enumerate(parts):
        width = (inner - 2 * third if number == 2 else third - 1) - len(label) - 1 - room - 1
        text.append(f"{label} ", "dim")
        text.append(said.rjust(room), _figure(of.verdict, column))
        text.append(" ")
        text.append(figures.trend(row, of.history, column, max(width, 0)), "cyan")
        text.append(" " if number < 2 else "")
    return text


def _details(row: Row, verdict: Verdict, inner: int) -> Text:
    share = figures.memory_percent(row)
    text = Text("mem  ", style="dim")
    text.append(figures.bar(share, _BAR), verdict.colours.get("fb_used", Light.GREEN).value)
    text.append(f" {figures.memory(row)} {figures.percent(share)}", _figure(verdict, "fb_used"))
    for label, said in (
        ("SM", figures.whole(row, "sm_clock", " MHz")),
        ("", figures.pstate(row)),
        ("fan", figures.whole(row, "fan_speed", " %")),
        ("mem temp", figures.whole(row, "memory_temp", " C")),
        ("ECC", _ecc(row)),
    ):
        if len(text) + 2 + len(label) + 1 + len(said) <= inner:
            text.append(f"  {label} " if label else "  ", "dim").append(said)
    return text


def _ecc(row: Row) -> str:
    """Corrected / uncorrectable errors since the driver was loaded."""
    counts = [figures.whole(row, f"ecc_{kind}_vol_total") for kind in ("sbe", "dbe")]
    return UNKNOWN if counts == [UNKNOWN, UNKNOWN] else "/".join(counts)


def _figure(verdict: Verdict, column: str) -> str:
    colour = verdict.colours.get(column)
    return f"bold {colour.value}" if colour else "bold"


def _plain(light: Light) -> str:
    return light.value if light in (Light.RED, Light.YELLOW) else ""


def processes(rows: Sequence[Row], height: int) -> list[Text]:
    """A line per process, those with most memory first, with how many were left out; nothing where nobody tells."""
    told = [(row, p) for row in rows for p in row.processes or ()]
    if height < 2 or all(row.processes is None for row in rows):
        return []
    told.sort(key=lambda each: -(each[1].used_memory or 0))
    text = Text(f"{'GPU':>5} {'PID':>8} {'USER':<12} {'TYPE':<5} {'MEMORY':>11} COMMAND", style="bold", no_wrap=True)
    if not told:
        return [Text("no processes on these GPUs", style="dim")]
    shown = told[: height - 1] if len(told) <= height - 1 else told[: height - 2]
    lines = [text, *(_process(row.number, p.pid, p.user, p.kind, p.used_memory, p.command) for row, p in shown)]
    rest = len(told) - len(shown)
    return [*lines, Text(f"... {rest} more", style="dim")] if rest else lines


def _process(*told: str | int | None) -> Text:
    number, pid, user, kind, used, command = (UNKNOWN if each is None else str(each) for each in told)
    memory = used if used == UNKNOWN else f"{used} MiB"
    text = f"{number:>5} {pid:>8} {user[:12]:<12} {kind:<5} {memory:>11} {command}"
    return Text(text, no_wrap=True, overflow="ellipsis")
