"""Three hours of 64 GPUs for the picture of the fleet: two clusters, and some trouble."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from mock_dcgm.faults import FaultSpec, Kind
from mock_dcgm.fleet import FleetSpec, GpuSpec, HostSpec, build
from mock_dcgm.layout import Entity
from mock_dcgm.simulator import Simulator
from services.store.connect import Connection
from tests.pictures.filling import Filler

SPAN: Final = 3 * 3600.0
STEP: Final = 30.0
"""Seconds, as dcgm-exporter's own default."""
SILENT_HOST: Final = "east-2"
SILENT: Final = dt.timedelta(minutes=25)
"""Before the end, since when its exporter does not answer."""
FLEET: Final = FleetSpec(
    seed=5,
    hosts=(
        HostSpec("east-{index}", (GpuSpec("A100", 8, "training", (), "llm-{host}-{gpu}", "llm", "main"),), 4),
        HostSpec("west-{index}", (GpuSpec("H100", 8, "cluster", (), "job-{host}-{gpu}", "research", "main"),), 4),
    ),
)
FAULTS: Final[tuple[dict[str, Any], ...]] = (
    {"kind": Kind.FAN_FAILURE, "host": 1, "start": 7200.0, "value": 1.35},
    {"kind": Kind.STUCK_POWER_CAP, "host": 6, "gpu": 3, "start": 3600.0, "value": 200.0},
    {"kind": Kind.ECC_STORM, "host": 2, "gpu": 5, "start": 4000.0, "duration": 2400.0, "value": 0.05},
    {"kind": Kind.NVLINK_ERRORS, "host": 5, "gpu": 1, "start": 6000.0, "duration": 1800.0, "value": 0.1},
    {"kind": Kind.XID, "host": 0, "gpu": 2, "start": 2000.0, "value": 31},
    {"kind": Kind.XID, "host": 4, "gpu": 6, "start": 7000.0, "value": 43},
    {"kind": Kind.XID, "host": 7, "gpu": 7, "start": SPAN - 2400.0, "value": 79},
    {"kind": Kind.GPU_LOST, "host": 7, "gpu": 7, "start": SPAN - 2400.0},
)
"""Host by its number."""


def fill(connection: Connection, end: dt.datetime) -> None:
    """Up to `end`, into an empty database."""
    fleet = build(FLEET)
    simulator = Simulator(fleet, start=end.timestamp() - SPAN)
    for fault in FAULTS:
        simulator.faults.add(FaultSpec(**{**fault, "host": fleet.hosts[fault["host"]].name}), 0.0)

    def more(entity: Entity, time: dt.datetime) -> dict[str, Any] | None:
        return None if entity.host.name == SILENT_HOST and end - time < SILENT else {}

    Filler(connection, simulator, end, SPAN).fill(STEP, place, more)


def place(entity: Entity) -> dict[str, str]:
    cluster, _, number = entity.host.name.partition("-")
    return {"cluster": cluster, "datacenter": "dc1", "rack": f"r{int(number) // 2 + 1}"}
