"""Rows and states for tests."""

from __future__ import annotations

from typing import Any

from services.andon import AndonSystem
from services.contract.event import Status
from services.top.frame import Frame, Row
from services.top.screen import State

NOW = 1_767_500_000.0
BUSY: dict[str, int | float] = {
    "gpu_temp": 71, "gpu_util": 97, "power_usage": 180.5, "power_limit": 250.0, "fb_used": 8192, "fb_total": 23040,
    "sm_clock": 1303, "pstate": 0, "clocks_event_reasons": 0,
}  # fmt: skip


class HandClock:
    """Moves when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return NOW + self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def row(index: int = 0, host: str = "box", **more: Any) -> Row:
    given = {"uuid": f"GPU-{host}-{index}", "model": "Tesla P40", "age": 0.0, "values": BUSY, **more}
    return Row(host=host, index=index, **given)


def frame(*rows: Row, total: int | None = None, time: float = NOW) -> Frame:
    return Frame("nvml", time, rows, len(rows) if total is None else total)


def state(*rows: Row, **more: Any) -> State:
    made = State("nvml", 2.0, 10.0, AndonSystem(clock=HandClock()), **more)
    if rows:
        made.took(frame(*rows))
    return made


BENCH = Status(tag="bench", memo="gpu-burn")
