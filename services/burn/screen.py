"""What a person sees of the run: a live page in a terminal, plain lines elsewhere.

A terminal that is closed in mid-run must not end it: what cannot be shown is not shown.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from services.andon.sparkline import blocks
from services.burn.drive import Now, Screen
from services.contract.clocks_event import THROTTLING, reasons
from services.host.live import Look, Monitor, State

EVERY: Final = 30.0
"""Seconds between two plain lines: a run of half an hour makes a page of them."""
SPARK_WIDTH: Final = 40
SPARK_LOW: Final = 20.0
"""C at the bottom of the sparkline: no board in a room is colder."""
NARROW: Final = 100
"""Columns below which a GPU's model makes room for its sparkline; a detached tmux session has 80."""
STALE: Final = 5.0
"""Seconds after which a reading is shown with its age."""


def open_screen(console: Console, monitor: Monitor | None, limit: float, header: str) -> Screen:
    if console.is_terminal:
        return LiveScreen(console, monitor, limit, header)
    return PlainScreen(console)


class PlainScreen:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = EVERY

    def show(self, now: Now) -> None:
        if now.elapsed < EVERY:
            self._next = EVERY
        if now.elapsed >= self._next:
            self._next += EVERY
            self.say(plain_line(now))

    def say(self, line: str) -> None:
        with suppress(OSError):
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        pass


def plain_line(now: Now) -> str:
    """`burn 60 of 900 s, 24:00 left: GPU 0 71 C 248 W 1303 MHz power_cap`"""
    gpus = "; ".join(_gpu_line(look) for look in now.live.looks) if now.live else ""
    head = f"{now.phase.name} {now.elapsed:.0f} of {now.phase.seconds:.0f} s, {clock_text(now.remaining)} left"
    return ": ".join(part for part in (head, gpus or trouble(now.live)) if part)


def _gpu_line(look: Look) -> str:
    parts = [f"GPU {look.gpu.index}", temperature(look), watts(look), megahertz(look), throttling(look)]
    return " ".join(part for part in parts if part)


def temperature(look: Look) -> str:
    return "? C" if look.sample.temp is None else f"{look.sample.temp:.0f} C"


def watts(look: Look) -> str:
    return "" if look.sample.power is None else f"{look.sample.power:.0f} W"


def megahertz(look: Look) -> str:
    return "" if look.sample.sm_clock is None else f"{look.sample.sm_clock} MHz"


def throttling(look: Look) -> str:
    bits = look.sample.reasons
    return "" if bits is None else ", ".join(reasons(bits & THROTTLING))


def clock_text(seconds: float) -> str:
    """`65` -> `1:05`"""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def trouble(live: State | None) -> str:
    """Why there is no temperature, or how old it is; empty while all is well."""
    if live is None:
        return ""
    if live.age is None:
        return f"no temperature: {live.problem or 'waiting for the driver'}"
    if live.age > STALE:
        return f"last reading {live.age:.0f} s ago{f': {live.problem}' if live.problem else ''}"
    return ""


class Sparkline:
    """The newest values that fit: what a board did a minute ago can go, what it does now cannot."""

    def __init__(self, cells: str, style: str) -> None:
        self._cells, self._style = cells, style

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(1, len(self._cells)), len(self._cells)).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self._cells[-options.max_width :] if options.max_width > 0 else "", style=self._style)


class LiveScreen:
    """Drawn in place, at every look of the run."""

    def __init__(self, console: Console, monitor: Monitor | None, limit: float, header: str) -> None:
        self._monitor = monitor
        self._limit = limit
        self._header = header
        self._peaks: dict[str, float] = {}
        self._live = Live(console=console, auto_refresh=False, transient=True)
        with suppress(OSError):
            self._live.start()

    def show(self, now: Now) -> None:
        with suppress(OSError):
            self._live.update(self.page(now), refresh=True)

    def say(self, line: str) -> None:
        with suppress(OSError):
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        with suppress(OSError):
            self._live.stop()

    def page(self, now: Now) -> RenderableType:
        parts: list[RenderableType] = [Text(self._header, style="dim"), self._progress(now)]
        if now.live is not None and now.live.looks:
            parts.append(self._gpus(now.live))
        for line, style in ((trouble(now.live), "yellow"), (now.load, "dim")):
            if line:
                parts.append(Text(line, style=style, overflow="ellipsis", no_wrap=True))
        return Group(*parts)

    def _progress(self, now: Now) -> Table:
        row = Table.grid(padding=(0, 1))
        for whole in (True, False, True, True):  # only tag and memo give way where it is narrow
            row.add_column(no_wrap=whole)
        memo = f" ({now.phase.status.memo})" if now.phase.status.memo else ""
        row.add_row(
            Text(f"phase {now.number}/{now.of} {now.phase.name}", style="bold"),
            Text(f"{now.phase.status.tag}{memo}", style="cyan", overflow="ellipsis", no_wrap=True),
            ProgressBar(total=max(now.phase.seconds, 1.0), completed=now.elapsed, width=20),
            Text(f"{clock_text(max(now.phase.seconds - now.elapsed, 0))} left, run {clock_text(now.remaining)}"),
        )
        return row

    def _gpus(self, live: State) -> Table:
        table = Table.grid(padding=(0, 2))
        for whole in (True, True, True, False, True, True, True):  # only the sparkline gives way
            table.add_column(no_wrap=whole)
        for look in live.looks:
            table.add_row(*self._row(look))
        return table

    def _row(self, look: Look) -> tuple[RenderableType, ...]:
        history = self._monitor.temperatures(look.gpu.uuid, SPARK_WIDTH) if self._monitor else []
        temp = look.sample.temp
        if temp is not None:
            self._peaks[look.gpu.uuid] = max(self._peaks.get(look.gpu.uuid, temp), temp)
        peak = self._peaks.get(look.gpu.uuid)
        colour = self._colour(temp)
        model = "" if self._live.console.width < NARROW else f"  {look.gpu.model or ''}"
        return (
            Text(f"GPU {look.gpu.index}{model}"),
            Text(temperature(look), style=f"bold {colour}"),
            Text("" if peak is None else f"peak {peak:.0f} C", style="dim"),
            Sparkline(blocks(history, SPARK_LOW, self._limit), colour),
            Text(watts(look)),
            Text(megahertz(look)),
            Text(throttling(look), style="yellow"),
        )

    def _colour(self, temp: float | None) -> str:
        """Yellow from ten degrees below the limit on: time enough to look at the fan."""
        if temp is None:
            return "white"
        return "red" if temp > self._limit else "yellow" if temp > self._limit - 10 else "green"
