"""Plain tables and JSON documents, one per look; and once more what is known when no look comes, so that it ages."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from services.ops.clock import Clock
from services.top import table
from services.top.document import document
from services.top.frame import Frame
from services.top.judge import duration
from services.top.screen import State
from services.top.visible import visible
from services.top.watch import Told


def note(state: State, told: Told) -> None:
    if isinstance(told, Frame):
        state.took(told)
    else:
        state.failed(told)


def show(state: State, now: float, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(document(state, now)), flush=True)
    elif state.error is not None:
        print(f"gpumon top: {visible(state.error)}", file=sys.stderr, flush=True)
    else:
        print("\n".join(plain(state, now)), flush=True)


def plain(state: State, now: float) -> list[str]:
    """A table of any width, without colours and sparklines."""
    lines = state.shown(now)
    wanted = table.widened(table.columns(None, [], trends=False), lines)
    shown = [table.head(wanted).plain, *(table.line(line, wanted, None).plain for line in lines)]
    more = (state.frame.total if state.frame else 0) - len(lines)
    return [*shown, f"{more} more: --limit"] if more > 0 else shown


class Printer:
    """Prints each look as it comes. A source that hangs gives none: then what is known is printed again whenever
    `stale_after` has passed, as what it is by then."""

    def __init__(self, state: State, clock: Clock, *, as_json: bool) -> None:
        self._state, self._clock, self._as_json = state, clock, as_json
        self._began = self._last = clock.monotonic()
        self._printed = False
        self._silence: str | None = None
        """What was said of a source that never answered."""

    def step(self, told: Sequence[Told]) -> None:
        """`told`: the looks since the last call."""
        for each in told:
            note(self._state, each)
            self._show()
        if self._clock.monotonic() - self._last > self._state.stale_after:
            if self._state.frame is None and self._state.error in (None, self._silence):
                waited = duration(self._clock.monotonic() - self._began)
                self._state.error = self._silence = f"{self._state.source} has not answered for {waited}"
            self._show()

    def _show(self) -> None:
        if self._printed and not self._as_json:
            print()
        show(self._state, self._clock.time(), as_json=self._as_json)
        self._printed, self._last = True, self._clock.monotonic()
