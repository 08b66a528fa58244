"""Six hours of a workstation with one P40, for the picture of a host: daily use, two burns, a benchmark of models.

The operator's tags and the load belong together here: what `gpumon burn` and `gpumon ollama-bench` leave behind.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from typing import Any, Final, NamedTuple

import numpy as np

from mock_dcgm.faults import FaultSpec, Kind
from mock_dcgm.fleet import FleetSpec, GpuSpec, HostSpec, build
from mock_dcgm.layout import Entity
from mock_dcgm.simulator import Simulator
from mock_dcgm.workload import Activity, Step, Workload
from services.store.connect import Connection
from tests.pictures.filling import Filler

HOST: Final = "attic-01"
SPAN: Final = 6 * 3600.0
STEP: Final = 10.0


class Stretch(NamedTuple):
    """What the operator said, and how hard the GPU worked (share of full load)."""

    minute: float
    """Since the start."""
    tag: str
    memo: str | None
    load: float


STORY: Final = (
    Stretch(0, "prod", "normal usage", 0.35),
    Stretch(80, "idle", "pre gpu-burn idle", 0.0),
    Stretch(83, "bench", "gpu-burn fan=100%", 1.0),
    Stretch(113, "idle", "cooldown idle", 0.0),
    Stretch(135, "bench", "gpu-burn fan=25%", 1.0),
    Stretch(165, "idle", "cooldown idle", 0.0),
    Stretch(190, "prod", "normal usage", 0.4),
    Stretch(250, "bench", "ollama_qwen2.5-coder_14b", 0.75),
    Stretch(272, "idle", "cooldown idle (ollama-bench)", 0.0),
    Stretch(282, "bench", "ollama_qwen2.5-coder_32b", 0.9),
    Stretch(310, "idle", None, 0.0),
    Stretch(325, "prod", "normal usage", 0.35),
)
SLOW_FAN: Final = FaultSpec(kind=Kind.FAN_FAILURE, host=HOST, start=135 * 60.0, duration=32 * 60.0, value=1.25)


class Operated(Workload):
    """Follows the story; daily use comes in bursts of requests."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(7)

    def step(self, now: Step) -> Activity:
        stretch = at(now.elapsed / 60)
        level = stretch.load
        if stretch.tag == "prod":
            level *= float(self._rng.uniform(0.4, 1.6)) * (1 if now.elapsed % 900 < 600 else 0.15)
        level = min(1.0, max(0.0, level + float(self._rng.normal(0, 0.01)) * (level > 0)))
        one = np.full(1, level)
        return Activity(
            util=one, sm=one, tensor=one * 0, dram=one * 0.4, heat=one, memory=np.full(1, 0.62 if level else 0.0),
            awake=np.full(1, float(level > 0)), pcie=one * 0.1, nvlink=one * 0,
        )  # fmt: skip


def at(minute: float) -> Stretch:
    return STORY[bisect_right([s.minute for s in STORY], minute) - 1]


def fill(connection: Connection, end: dt.datetime) -> None:
    """Up to `end`, into an empty database."""
    simulator = Simulator(build(FleetSpec((HostSpec(HOST, (GpuSpec("P40", 1, "idle"),)),), 3)), end.timestamp() - SPAN)
    simulator._workload = Operated()
    simulator.faults.add(SLOW_FAN, 0.0)
    start = end - dt.timedelta(seconds=SPAN)
    filler = Filler(connection, simulator, end, SPAN)

    def more(_entity: Entity, time: dt.datetime) -> dict[str, Any]:
        now = at((time - start).total_seconds() / 60)
        return {"status_tag": now.tag, "status_memo": now.memo}

    filler.fill(STEP, lambda _entity: {}, more)
    for stretch in STORY:
        detail = {"tag": stretch.tag, "memo": stretch.memo}
        filler.tell(start + dt.timedelta(minutes=stretch.minute), "status", HOST, detail)
