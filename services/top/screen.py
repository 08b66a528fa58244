"""The whole screen: head, GPUs as cards or as a table, processes, foot. Pure: state in, renderable out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from services.andon import AndonSystem
from services.top import cards, guide, table
from services.top.figures import status
from services.top.frame import Frame, Row
from services.top.history import History
from services.top.judge import Light, duration, judge
from services.top.local import place
from services.top.table import SIGNS, Line
from services.top.visible import visible, visible_line

Key = Callable[[Row], tuple[float | str | int, ...]]


def _falling(column: str) -> Key:
    return lambda row: (row.lost is None, -row.values.get(column, float("-inf")), *place(row))


ORDERS: Final = MappingProxyType(
    {
        "index": place,
        "temp": _falling("gpu_temp"),
        "util": _falling("gpu_util"),
        "power": _falling("power_usage"),
        "memory": _falling("fb_used"),
    }
)
"""How GPUs may be sorted: by place, or the largest first; lost GPUs before all."""


@dataclass(slots=True)
class State:
    """What the screen shows, changed by the sources and the keys."""

    source: str
    interval: float
    """Seconds between two looks."""
    stale_after: float
    """Seconds after which values are no longer shown as current."""
    andon: AndonSystem
    order: str = "index"
    frame: Frame | None = None
    error: str | None = None
    """Why the last look failed; None: it did not."""
    history: History = field(default_factory=History)
    offset: int = 0
    """First GPU shown."""
    page: int = 1
    """GPUs that fitted on the screen when it was last drawn."""
    helping: bool = False
    """The keys are shown in place of the GPUs."""

    def took(self, frame: Frame) -> None:
        """Takes in a look. A GPU that was there before and is no more is lost, whether its source says so or not."""
        self.history.add(frame)
        if frame.total == len(frame.rows):
            frame = self._with_missing(frame)
        self.frame, self.error = frame, None
        self.source = frame.source

    def _with_missing(self, frame: Frame) -> Frame:
        """MIG instances that are gone while their GPU is there were reconfigured, not lost."""
        here = {row.uuid or row.key for row in frame.rows}
        before = self.frame.rows if self.frame is not None else ()
        gone = [row for row in before if row.instance_id is None and (row.uuid or row.key) not in here]
        since = time.strftime("%H:%M:%S", time.localtime(frame.time))
        missing = [row if row.lost else replace(row, values={}, lost=f"not reported since {since}") for row in gone]
        rows = (*frame.rows, *missing)
        return replace(frame, rows=rows, total=len(rows))

    def failed(self, error: str) -> None:
        self.error = error
        self.history.add(None)

    def judged(self, now: float) -> list[Line]:
        """The rows in order with their verdicts. `now`: seconds since the epoch."""
        if self.frame is None:
            return []
        frame, rows = self.frame, sorted(self.frame.rows, key=ORDERS[self.order])
        verdicts = [judge(row, self.andon, frame.age_of(row, now), self.stale_after) for row in rows]
        return [Line(row, verdict, self.history) for row, verdict in zip(rows, verdicts, strict=True)]

    def shown(self, now: float) -> list[Line]:
        """As `judged`, without control characters: for a terminal."""
        return [visible_line(line) for line in self.judged(now)]


def draw(state: State, width: int, height: int, now: float) -> RenderableType:
    """The screen at `now` (seconds since the epoch), `width` x `height` cells. Notes in `state` what fitted."""
    lines = state.shown(now)
    shared = _shared_status(lines)
    top = _head(state, lines, shared, width, now)
    room = height - len(top) - 1
    if state.helping:
        return Group(*top, *guide.page(width, room), _foot(state, len(lines), width))
    lines = [_without(shared, line) for line in lines]
    rows = [line.row for line in lines]
    if cards.fit(width, room, len(lines)):
        state.page, state.offset = len(lines), 0
        body: list[RenderableType] = [cards.card(line, width) for line in lines]
        used = len(lines) * cards.HEIGHT
    else:
        body = list(_table(state, lines, width, room))
        used = len(body)
    more = cards.processes(rows, room - used)
    padding = [Text("")] * max(room - used - len(more), 0)
    return Group(*top, *body, *more, *padding, _foot(state, len(lines), width))


def _shared_status(lines: Sequence[Line]) -> str:
    """What all GPUs that are there are doing; empty where they do different things, or nothing."""
    said = {status(line.row) for line in lines if line.row.lost is None}
    return said.pop() if len(said) == 1 else ""


def _without(shared: str, line: Line) -> Line:
    """What the head says of all need not be said of each."""
    told = bool(shared) and status(line.row) == shared
    return replace(line, row=replace(line.row, status=None)) if told else line


def _table(state: State, lines: Sequence[Line], width: int, room: int) -> list[Text]:
    state.page = max(room - 1, 1)
    state.offset = min(max(state.offset, 0), max(len(lines) - state.page, 0))
    shown = lines[state.offset : state.offset + state.page]
    wanted = table.columns(width, [line.row.host for line in lines], [line.row.name for line in lines])
    head = table.head(wanted)
    head.truncate(width)
    return [head, *(table.line(line, wanted, width) for line in shown)] if lines else []


def _head(state: State, lines: Sequence[Line], shared: str, width: int, now: float) -> list[Text]:
    """Who, where, when; then how many GPUs are well, or what is wrong with the source."""
    clock = time.strftime("%H:%M:%S %Z", time.localtime(now))
    hosts = state.frame.hosts if state.frame else []
    drivers = {line.row.driver for line in lines if line.row.driver}
    where = hosts[0] if len(hosts) == 1 else f"{len(hosts)} hosts" if hosts else ""
    parts = [where, state.source, f"driver {drivers.pop()}" if len(drivers) == 1 else ""]
    text = Text("gpumon top", style="bold", no_wrap=True)
    for part in filter(None, parts):
        text.append(f"  {visible(part)}", "not bold")
    right = f"{clock}  every {state.interval:g} s"
    text.truncate(max(width - len(right) - 1, 0), overflow="ellipsis", pad=True)
    return [text.append(f" {right}", "dim"), _summary(state, lines, shared, width, now)]


def _summary(state: State, lines: Sequence[Line], shared: str, width: int, now: float) -> Text:
    text = Text(no_wrap=True)
    if state.error is not None:
        old = f"; what is shown is {duration(now - state.frame.time)} old" if state.frame else ""
        text.append(f"{SIGNS[Light.RED]} {visible(state.error)} (trying again{old})", "bold red")
    elif state.frame is None:
        text.append(f"asking {visible(state.source)} ...", "dim")
    else:
        count = Counter((line.verdict.light, line.verdict.word) for line in lines)
        for (light, word), number in sorted(count.items(), key=lambda each: list(Light).index(each[0][0])):
            text.append(f"{SIGNS[light]} {number} {word}  ", light.value)
        text.append(f"[{shared}]" if shared else "")
    text.truncate(width, overflow="ellipsis")
    return text


def _foot(state: State, gpus: int, width: int) -> Text:
    text = Text("q quit  s sort: ", style="dim", no_wrap=True)
    text.append(state.order, "not dim")
    text.append("  ? help")
    if gpus > state.page:
        last = min(state.offset + state.page, gpus)
        text.append(f"  up/down scroll: GPUs {state.offset + 1}-{last} of {gpus}")
    total = state.frame.total if state.frame else 0
    if total > gpus:
        text.append(f"  ({total} in all; --limit)")
    text.truncate(width, overflow="ellipsis")
    return text


def press(state: State, key: str) -> bool:
    """What a key does; False: leave."""
    if key in ("q", "Q", "\x03", "\x04"):
        return False
    if state.helping or key == "?":
        state.helping = not state.helping
        return True
    names = list(ORDERS)
    match key:
        case "s":
            state.order = names[(names.index(state.order) + 1) % len(names)]
        case "j" | "down":
            state.offset += 1
        case "k" | "up":
            state.offset -= 1
        case " " | "pgdn":
            state.offset += state.page
        case "b" | "pgup":
            state.offset -= state.page
        case "g" | "home":
            state.offset = 0
        case "G" | "end":
            state.offset = 1_000_000
    return True
