"""The mock simulator behind the port of a source: the GPUs of one simulated host, moved on by the wall clock."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from mock_dcgm.columns import Column
from mock_dcgm.fleet import Fleet, FleetSpec, Gpu, GpuSpec, Host, HostSpec, build
from mock_dcgm.layout import Entity
from mock_dcgm.simulator import Simulator, Snapshot
from services.contract.catalogue import METRICS
from services.contract.sentinels import Missing
from services.exporter.reading import Device, Lost, Reading, Sweep
from services.ops.clock import Clock, SystemClock

_FIRST_STEP: Final = 1.0
"""Seconds the simulation has run when it is first read: at 0 nothing has begun."""


def fleet(hostname: str, gpus: Sequence[tuple[str, int]], profile: str = "cycle") -> Fleet:
    """One host with (model, count) boards. Raises FleetError."""
    boards = tuple(GpuSpec(model, count, profile) for model, count in gpus)
    built = build(FleetSpec((HostSpec(hostname.replace("{", "").replace("}", ""), boards),)))
    return replace(built, hosts=tuple(replace(host, gpus=_identified(host)) for host in built.hosts))


def _identified(host: Host) -> tuple[Gpu, ...]:
    """With UUIDs that follow from the model too: another board in the same place is another GPU, with its own history.

    The fleet's own follow from the place alone, so that a fleet file that names another model keeps its series.
    """
    return tuple(replace(gpu, uuid=_uuid(f"{host.name}/{gpu.index}/{gpu.model.key}")) for gpu in host.gpus)


def _uuid(of: str) -> str:
    return f"GPU-{uuid.UUID(bytes=hashlib.sha256(of.encode()).digest()[:16])}"


class MockSource:
    """Simulated GPUs. A GPU that a fault takes off the bus is lost, as a real one."""

    name: Final = "mock"

    def __init__(self, fleet: Fleet, clock: Clock | None = None) -> None:
        """The first host of `fleet` is this one."""
        self._clock = clock or SystemClock()
        self.simulator = Simulator(fleet, start=self._clock.time())
        self._simulated = self._clock.monotonic() - _FIRST_STEP

    def read(self) -> Sweep:
        now = self._clock.monotonic()
        if now > self._simulated:
            self.simulator.step(now - self._simulated)
            self._simulated = now
        return self._sweep(self.simulator.snapshot)

    def close(self) -> None:
        """Nothing is held."""

    def _sweep(self, snapshot: Snapshot) -> Sweep:
        layout = self.simulator.layout
        rows = layout.hosts[self.simulator.fleet.hosts[0].name]
        values = {column: _listed(array) for column, array in snapshot.columns.items()}
        alive = snapshot.alive.tolist()
        numbers = range(rows.start, rows.stop)
        return Sweep(
            source=self.name,
            time=self._clock.time(),
            readings=tuple(self._reading(i, layout.entities[i], values) for i in numbers if alive[i]),
            lost=tuple(
                _lost(layout.entities[i]) for i in numbers if not alive[i] and layout.entities[i].instance is None
            ),
        )

    def _reading(self, row: int, entity: Entity, values: dict[str, list[int | float]]) -> Reading:
        present = {column for column, has in self.simulator.present.items() if has[row]}
        return Reading(
            device=_device(entity),
            values={column: values[column][row] for column in values if column in present},
            missing={m.column: Missing.UNSUPPORTED for m in METRICS if m.column not in present},
        )


def _listed(column: Column) -> list[int | float]:
    found: list[int | float] = column.tolist()
    return found


def _device(entity: Entity) -> Device:
    gpu, instance = entity.gpu, entity.instance
    return Device(
        uuid=gpu.uuid,
        index=gpu.index,
        pci_bus_id=gpu.pci_bus_id,
        model=gpu.model.name,
        instance_id=None if instance is None else instance.id,
        instance_profile=None if instance is None else instance.profile,
        labels={"DCGM_FI_DRIVER_VERSION": entity.host.driver},
    )


def _lost(entity: Entity) -> Lost:
    gpu = entity.gpu
    return Lost("GPU is lost", gpu.uuid, gpu.index, gpu.pci_bus_id, gpu.model.name)
