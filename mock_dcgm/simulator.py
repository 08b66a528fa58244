"""The simulation: a fleet, moved on by seconds, read as columns. No HTTP, no clock of its own, no threads.

    fleet = build(spread(gpus=1000, hosts=125, models=[("A100", 1)], profile="cluster", seed=1))
    simulator = Simulator(fleet, start=1_700_000_000.0)
    for snapshot in simulator.run(seconds=86_400, interval=10):     # a realistic mock day
        snapshot.columns["power_usage"]                             # float64[E], W
        simulator.present["power_usage"] & snapshot.alive           # bool[E]: whose value counts
        simulator.layout.entities[0].gpu.uuid                       # who row 0 is

Deterministic: the same fleet, seed, start and steps give the same columns, whatever the wall clock says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

from mock_dcgm.columns import Column, Reporter, work_ratios
from mock_dcgm.errors import XID_OFF_BUS, Errors
from mock_dcgm.faults import Effects, FaultBook, Kind, Targets
from mock_dcgm.fleet import Fleet
from mock_dcgm.layout import lay_out, present
from mock_dcgm.models import mig_memory
from mock_dcgm.physics import Physics
from mock_dcgm.workload import Activity, Step, Workload
from services.contract.catalogue import METRICS

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

LONGEST_STEP: Final = 10.0
"""Seconds: longer steps are cut into equal parts, so that limits act on temperatures that are not stale."""
_PARKED: Final = 1.0  # C below slowdown at which a GPU that shut down may come back


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the fleet reports at one moment. Arrays have one element per entity and are never written again."""

    time: float
    """Simulated, seconds since the epoch."""
    elapsed: float
    """Simulated seconds since the start."""
    columns: Mapping[str, Column]
    """Catalogue column -> values: int64 where the metric is a whole number, else float64."""
    alive: Bools
    """False: lost, no series."""


class Simulator:
    """Use `step`, `snapshot`, `run`, `faults`."""

    def __init__(self, fleet: Fleet, start: float = 0.0) -> None:
        """`start`: simulated time of the beginning, epoch seconds (the day's rhythm follows from it)."""
        self.fleet, self.start, self.elapsed = fleet, start, 0.0
        self.layout = layout = lay_out(fleet)
        self.present: dict[str, Bools] = {m.column: present(layout, m) for m in METRICS}
        self._rng = rng = np.random.default_rng(fleet.seed)
        gpus = fleet.gpus
        models = [gpu.model for gpu in gpus]
        self._workload = Workload(layout.unit_profiles, layout.gpu_hosts[layout.unit_gpus], rng)
        slots = [i / max(len(h.gpus) - 1, 1) for h in fleet.hosts for i in range(len(h.gpus))]
        self._physics = Physics(models, layout.gpu_hosts, np.array(slots), rng)
        self._errors = Errors(np.array([m.row_remapping for m in models]), rng)
        self._reporter = Reporter.of(models, self._physics.limits, rng)
        self._instance_memory = np.array([
            mig_memory(gpu.model, instance.profile) for gpu in gpus for instance in gpu.instances
        ])  # fmt: skip
        self._lost = np.zeros(len(gpus), dtype=bool)
        self._shut_down = np.zeros(len(gpus), dtype=bool)
        self.faults = FaultBook(self._targets())
        for spec in fleet.faults:
            self.faults.add(spec, 0.0)
        self._unit_activity = Activity.zeros(len(layout.unit_gpus))
        self._activity = Activity.zeros(len(gpus))
        self._effects: Effects | None = None
        self._snapshot = self._read(None)

    def _targets(self) -> Targets:
        limits = self._physics.limits
        entities = [e for e in self.layout.entities if e.instance is None]
        return Targets(
            hosts=[e.host.name for e in entities],
            indices=[e.gpu.index for e in entities],
            uuids=[e.gpu.uuid for e in entities],
            critical_temp=(limits.slowdown_temp + limits.shutdown_temp) / 2,
            power_limit_min=limits.power_limit_min,
            row_remapping=np.array([e.gpu.model.row_remapping for e in entities]),
        )

    @property
    def snapshot(self) -> Snapshot:
        """The latest."""
        return self._snapshot

    def step(self, seconds: float) -> Snapshot:
        """Move on by `seconds` of simulated time; gives what is then reported."""
        parts = max(1, math.ceil(seconds / LONGEST_STEP))
        for _ in range(parts):
            self._advance(seconds / parts)
        self._snapshot = self._read(self._snapshot)
        return self._snapshot

    def run(self, seconds: float, interval: float = 10.0) -> Iterator[Snapshot]:
        """A snapshot every `interval` simulated seconds, for `seconds`."""
        for _ in range(round(seconds / interval)):
            yield self.step(interval)

    def _advance(self, dt: float) -> None:
        self.elapsed += dt
        for fault in self.faults.due(self.elapsed):
            if fault.spec.kind is Kind.COUNTER_RESET:
                self._reload(fault.gpus)
            else:
                self._errors.strike(fault)
        effects = self._effects = self.faults.effects(self.elapsed)
        self._unit_activity = self._workload.step(Step(self.elapsed, self.start + self.elapsed, dt))
        self._activity = self._of_gpus(self._unit_activity)
        self._physics.advance(self._activity, effects, dt)
        self._errors.advance(self._activity.awake > 0.0, effects, dt)
        self._lose(effects)

    def _of_gpus(self, units: Activity) -> Activity:
        """Of whole GPUs: the sum of their instances by share; nothing runs on a lost GPU."""
        layout = self.layout
        if layout.whole and not self._lost.any():
            return units
        here = np.where(self._lost, 0.0, 1.0)

        def summed(name: str) -> Floats:
            share = layout.unit_memory if name == "memory" else layout.unit_share
            parts = np.bincount(layout.unit_gpus, getattr(units, name) * share, len(here))
            return here * parts.astype(np.float64)

        return Activity(*(summed(f.name) for f in fields(Activity)))

    def _lose(self, effects: Effects | None) -> None:
        """GPUs that fall off the bus, and those that come back (their driver has been loaded anew)."""
        state, limits = self._physics.state, self._physics.limits
        hot = state.temperature >= limits.shutdown_temp
        self._errors.counts.xid[hot & ~self._shut_down] = XID_OFF_BUS
        self._shut_down = hot | (self._shut_down & (state.temperature > limits.slowdown_temp - _PARKED))
        lost = self._shut_down if effects is None else self._shut_down | effects.lost
        back = self._lost & ~lost
        if back.any():
            self._reload(back)
        self._lost = lost

    def _reload(self, rows: npt.NDArray[np.int64] | Bools) -> None:
        self._physics.state.reset_counters(rows)
        self._errors.reload(rows)

    def _read(self, before: Snapshot | None) -> Snapshot:
        state, counts = self._physics.state, self._errors.counts
        report = self._reporter.report(state, counts, self._activity, self._effects, self._rng)
        columns = self._to_entities(report)
        if before is not None and self._effects is not None and self._effects.frozen.any():
            frozen = self._entities_of(self._effects.frozen)
            for name, values in columns.items():
                values[frozen] = before.columns[name][frozen]
        return Snapshot(self.start + self.elapsed, self.elapsed, columns, self._entities_of(~self._lost))

    def _entities_of(self, of_gpus: Bools) -> Bools:
        """A mark per GPU -> the same for the GPU and its instances."""
        return of_gpus[self.layout.entity_gpus]

    def _to_entities(self, columns: dict[str, Column]) -> dict[str, Column]:
        """Values of GPUs -> values of entities, always copies: counters live on in place.

        Instances get their own values where they have any.
        """
        spread = {name: values[self.layout.entity_gpus] for name, values in columns.items()}
        if not self.layout.whole:
            for name, values in self._instance_values().items():
                spread[name][self.layout.instance_rows] = values
        return spread

    def _instance_values(self) -> dict[str, Column]:
        units = self.layout.instance_units
        activity = Activity(*(getattr(self._unit_activity, f.name)[units] for f in fields(Activity)))
        used = np.rint(activity.memory * self._instance_memory).astype(np.int64)
        return {
            **work_ratios(activity),
            "fb_total": self._instance_memory,
            "fb_used": used,
            "fb_free": self._instance_memory - used,
        }
