"""Faults that can be injected: what, where, from when, for how long. On a schedule or by the control endpoint.

Device faults change the simulation of the GPUs they name; exporter faults change how a host's exporter answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Final

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Kind(StrEnum):
    THERMAL_RUNAWAY = "thermal_runaway"
    FAN_FAILURE = "fan_failure"
    ECC_STORM = "ecc_storm"
    DBE = "dbe"
    XID = "xid"
    ROW_REMAP = "row_remap"
    ROW_REMAP_FAILURE = "row_remap_failure"
    STUCK_POWER_CAP = "stuck_power_cap"
    PCIE_DOWNTRAIN = "pcie_downtrain"
    NVLINK_ERRORS = "nvlink_errors"
    FROZEN_COUNTERS = "frozen_counters"
    COUNTER_RESET = "counter_reset"
    GPU_LOST = "gpu_lost"
    EXPORTER_HANG = "exporter_hang"
    SLOW_SCRAPE = "slow_scrape"
    TRUNCATED_BODY = "truncated_body"


MEANING: Final = MappingProxyType(
    {
        Kind.THERMAL_RUNAWAY: "0.5 C/s up to `value` C (default: between slowdown and shutdown); lost at shutdown",
        Kind.FAN_FAILURE: "chassis fans fail: heat-sink resistance times `value` (default 2.5)",
        Kind.ECC_STORM: "`value` single-bit errors per second (default 5)",
        Kind.DBE: "once: `value` double-bit errors (default 1), XID 48, a row to remap or a page to retire",
        Kind.XID: "once: XID `value` (default 13); the gauge keeps it, as DCGM does",
        Kind.ROW_REMAP: "once: `value` rows remapped for correctable errors (default 1), pending until a reset, XID 63",
        Kind.ROW_REMAP_FAILURE: "once: a remapping failed, XID 64",
        Kind.STUCK_POWER_CAP: "power limit stuck at `value` W (default: the board's minimum)",
        Kind.PCIE_DOWNTRAIN: "link at generation `value` (default 1), a quarter of its lanes, replays counting",
        Kind.NVLINK_ERRORS: "`value` NVLink CRC errors per second (default 10)",
        Kind.FROZEN_COUNTERS: "every value stays what it was when the fault began",
        Kind.COUNTER_RESET: "once: counters since driver load and the last XID start again at 0",
        Kind.GPU_LOST: "no series; when it returns its driver has been reloaded",
        Kind.EXPORTER_HANG: "the exporter takes the request and never answers",
        Kind.SLOW_SCRAPE: "the answer takes `value` seconds (default 5)",
        Kind.TRUNCATED_BODY: "the answer breaks off after the share `value` of its bytes (default 0.5)",
    }
)
ONCE: Final = frozenset({Kind.DBE, Kind.XID, Kind.ROW_REMAP, Kind.ROW_REMAP_FAILURE, Kind.COUNTER_RESET})
"""Happen when they start; a duration only keeps them in the list."""
EXPORTER: Final = MappingProxyType({Kind.EXPORTER_HANG: 0.0, Kind.SLOW_SCRAPE: 5.0, Kind.TRUNCATED_BODY: 0.5})
"""Concern the answer of a host's exporter, not a device; with the default of their value."""


class FaultSpec(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """A fault as the schedule or the control endpoint gives it. Times are simulated seconds."""

    kind: Kind
    host: str | None = None
    """None: every host."""
    gpu: Annotated[int, msgspec.Meta(ge=0)] | str | None = None
    """Index in the host, or UUID; None: every GPU of the host."""
    start: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """In a schedule: after the start of the mock. At the control endpoint: from now."""
    duration: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """None: until cleared."""
    value: Annotated[float, msgspec.Meta(ge=0)] | None = None


class FaultError(Exception):
    """The fault names no such host, GPU or value."""


@dataclass(slots=True)
class Fault:
    """A fault with its identity, its targets resolved and its state."""

    id: int
    spec: FaultSpec
    start: float
    """Simulated seconds since the start of the mock."""
    gpus: Ints
    """Positions in the fleet's arrays."""
    hosts: frozenset[str]
    fired: bool = False

    def active(self, elapsed: float) -> bool:
        end = None if self.spec.duration is None else self.start + self.spec.duration
        return self.start <= elapsed and (end is None or elapsed < end)


@dataclass(slots=True)
class Effects:
    """What the active faults do to each GPU, for one step. Neutral values change nothing."""

    runaway_target: Floats
    """C; NaN where no runaway."""
    sink_factor: Floats
    power_cap: Floats
    """W; infinite where none."""
    sbe_rate: Floats
    """Errors per second."""
    nvlink_rate: Floats
    link_gen: Floats
    """Infinite where the link is as it should be."""
    frozen: Bools
    lost: Bools

    @classmethod
    def neutral(cls, gpus: int) -> Effects:
        return cls(
            runaway_target=np.full(gpus, np.nan),
            sink_factor=np.ones(gpus),
            power_cap=np.full(gpus, np.inf),
            sbe_rate=np.zeros(gpus),
            nvlink_rate=np.zeros(gpus),
            link_gen=np.full(gpus, np.inf),
            frozen=np.zeros(gpus, dtype=bool),
            lost=np.zeros(gpus, dtype=bool),
        )


@dataclass(slots=True)
class Targets:
    """Where faults may strike: per GPU of the fleet, its host, index and UUID, and the limits defaults come from."""

    hosts: Sequence[str]
    indices: Sequence[int]
    uuids: Sequence[str]
    critical_temp: Floats
    """Half way from slowdown to shutdown, C."""
    power_limit_min: Floats
    row_remapping: Bools

    def resolve(self, spec: FaultSpec) -> Ints:
        """Positions of the GPUs a fault names. Raises FaultError where there are none."""
        if spec.kind in EXPORTER and spec.gpu is not None:
            raise FaultError(f"{spec.kind} concerns an exporter: name a host, no gpu")
        found = [
            i
            for i, (host, index, uuid) in enumerate(zip(self.hosts, self.indices, self.uuids, strict=True))
            if spec.host in (None, host) and spec.gpu in (None, index, uuid)
        ]
        if not found:
            raise FaultError(f"no GPU matches host={spec.host!r}, gpu={spec.gpu!r}")
        rows = np.array(found)
        if spec.kind in (Kind.ROW_REMAP, Kind.ROW_REMAP_FAILURE):
            rows = rows[self.row_remapping[rows]]
            if not len(rows):
                raise FaultError(f"{spec.kind}: the board retires pages, it does not remap rows (use {Kind.DBE})")
        return rows


def _check(spec: FaultSpec) -> None:
    """Raises FaultError where the value is not possible."""
    if spec.value is None:
        return
    whole = {Kind.XID: 1_000, Kind.PCIE_DOWNTRAIN: 16, Kind.DBE: 1_000, Kind.ROW_REMAP: 1_000}.get(spec.kind)
    if whole is not None and (spec.value != int(spec.value) or not 1 <= spec.value <= whole):
        raise FaultError(f"{spec.kind}: value={spec.value:g}, allowed are whole numbers from 1 to {whole}")
    if spec.kind is Kind.TRUNCATED_BODY and spec.value >= 1:
        raise FaultError(f"{spec.kind}: value={spec.value:g} is the share of the body that is sent, below 1")


@dataclass(slots=True)
class FaultBook:
    """All faults of a mock: add, list, clear, and what they do at a moment."""

    targets: Targets
    _faults: dict[int, Fault] = field(default_factory=dict)
    _last_id: int = 0

    def add(self, spec: FaultSpec, now: float) -> Fault:
        """Register a fault that starts `spec.start` seconds after `now`. Raises FaultError."""
        _check(spec)
        rows = self.targets.resolve(spec)
        self._last_id += 1
        hosts = frozenset(self.targets.hosts[i] for i in rows)
        fault = Fault(self._last_id, spec, now + spec.start, rows, hosts)
        self._faults[fault.id] = fault
        return fault

    def clear(self, fault_id: int | None = None) -> list[Fault]:
        """Remove one fault, or all. Gives what was removed."""
        gone = [f for f in self._faults.values() if fault_id in (None, f.id)]
        self._faults = {i: f for i, f in self._faults.items() if f not in gone}
        return gone

    def entries(self) -> list[Fault]:
        """Every fault not yet cleared, those that are over included."""
        return [*self._faults.values()]

    def exporter(self, host: str | None, elapsed: float) -> dict[Kind, float]:
        """Exporter faults active for `host` (None: the endpoint of the whole fleet) -> value."""
        return {
            f.spec.kind: EXPORTER[f.spec.kind] if f.spec.value is None else f.spec.value
            for f in self._faults.values()
            if f.spec.kind in EXPORTER and f.active(elapsed) and (f.spec.host is None or host in f.hosts)
        }

    def due(self, elapsed: float) -> list[Fault]:
        """One-time faults that start now; each is given once."""
        due = [f for f in self._faults.values() if f.spec.kind in ONCE and not f.fired and f.start <= elapsed]
        for fault in due:
            fault.fired = True
        return due

    def effects(self, elapsed: float) -> Effects | None:
        """What the lasting device faults do now; None where none is active."""
        lasting = [
            f
            for f in self._faults.values()
            if f.spec.kind not in ONCE and f.spec.kind not in EXPORTER and f.active(elapsed)
        ]
        if not lasting:
            return None
        effects = Effects.neutral(len(self.targets.hosts))
        for fault in lasting:
            self._apply(fault, effects)
        return effects

    def _apply(self, fault: Fault, to: Effects) -> None:
        rows = fault.gpus
        match fault.spec.kind:
            case Kind.THERMAL_RUNAWAY:
                to.runaway_target[rows] = _value(fault, self.targets.critical_temp[rows])
            case Kind.FAN_FAILURE:
                to.sink_factor[rows] *= _value(fault, 2.5)
            case Kind.STUCK_POWER_CAP:
                to.power_cap[rows] = _value(fault, self.targets.power_limit_min[rows])
            case Kind.ECC_STORM:
                to.sbe_rate[rows] += _value(fault, 5.0)
            case Kind.NVLINK_ERRORS:
                to.nvlink_rate[rows] += _value(fault, 10.0)
            case Kind.PCIE_DOWNTRAIN:
                to.link_gen[rows] = _value(fault, 1.0)
            case Kind.FROZEN_COUNTERS:
                to.frozen[rows] = True
            case Kind.GPU_LOST:
                to.lost[rows] = True


def _value(fault: Fault, default: float | Floats) -> float | Floats:
    return default if fault.spec.value is None else fault.spec.value
