"""What goes wrong by itself or by a fault: ECC errors, row remaps, retired pages, XIDs, PCIe replays, NVLink errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mock_dcgm.faults import Effects, Fault, Kind

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Rows = Ints | Bools

_DAY: Final = 86_400.0
_DBE_PER_DAY: Final = 5.4e-5  # 60 DBE faults on 3,200 GPUs in 349 days (InfiniteHBD trace)
_SBE_PER_DAY: Final = 0.02  # estimate: most boards see one in weeks ...
_SBE_WEAK_PER_DAY: Final = 20.0  # ... and few see many
_WEAK_SHARE: Final = 0.01  # estimate
_REPLAY_PER_DAY: Final = 0.05  # estimate: links retry now and then
_SOFTWARE_XID_PER_DAY: Final = 0.002  # estimate: XID 13 or 31, the application's own fault
_LINK_REPLAYS: Final = 0.5  # replays per second on a link that trained down: estimate
XID_GRAPHICS_EXCEPTION, XID_PAGE_FAULT, XID_DBE, XID_REMAPPED, XID_REMAP_FAILED, XID_OFF_BUS = 13, 31, 48, 63, 64, 79


@dataclass(slots=True)
class Counts:
    """Error counters and flags, one element per GPU. Volatile: since driver load. Aggregate: for the board's life."""

    sbe_volatile: Ints
    sbe_aggregate: Ints
    dbe_volatile: Ints
    dbe_aggregate: Ints
    remapped_correctable: Ints
    remapped_uncorrectable: Ints
    remap_pending: Ints
    remap_failed: Ints
    retired_sbe: Ints
    retired_dbe: Ints
    retired_pending: Ints
    replays: Ints
    nvlink_crc: Ints
    nvlink_replay: Ints
    xid: Ints

    @classmethod
    def zeros(cls, gpus: int) -> Counts:
        return cls(*(np.zeros(gpus, dtype=np.int64) for _ in cls.__dataclass_fields__))


class Errors:
    """`advance` draws what happens in a step; `strike` does what a one-time fault says."""

    def __init__(self, row_remapping: Bools, rng: np.random.Generator) -> None:
        gpus = len(row_remapping)
        self.counts = Counts.zeros(gpus)
        self._remaps, self._rng = row_remapping, rng
        weak = rng.random(gpus) < _WEAK_SHARE
        self._sbe = np.where(weak, _SBE_WEAK_PER_DAY, _SBE_PER_DAY) / _DAY
        # A board in service has a past: what it corrected so far.
        self.counts.sbe_aggregate += rng.poisson(self._sbe * _DAY * 100)

    def advance(self, busy: Bools, effects: Effects | None, dt: float) -> None:
        """`busy`: a process holds the GPU, so that there is something to fail."""
        rates = self._sbe if effects is None else self._sbe + effects.sbe_rate
        # One draw for the fleet, then dealt out by weight: a draw per GPU would cost more than all the physics.
        self._add_sbe(rates, dt)
        gpus = len(busy)
        for row in self._few(gpus * _DBE_PER_DAY * dt / _DAY, gpus):
            self.double_bit(np.array([row]), 1)
        self.counts.replays[self._few(gpus * _REPLAY_PER_DAY * dt / _DAY, gpus)] += 1
        crashed = self._few(gpus * _SOFTWARE_XID_PER_DAY * dt / _DAY, gpus)
        crashed = crashed[busy[crashed]]
        self.counts.xid[crashed] = self._rng.choice((XID_GRAPHICS_EXCEPTION, XID_PAGE_FAULT), len(crashed))
        if effects is not None:
            self._link_errors(effects, dt)

    def _few(self, mean: float, gpus: int) -> Ints:
        """Positions struck by a process with `mean` events in the whole fleet."""
        return self._rng.integers(0, gpus, self._rng.poisson(mean))

    def _add_sbe(self, rates: npt.NDArray[np.float64], dt: float) -> None:
        total = float(rates.sum())
        events = int(self._rng.poisson(total * dt))
        if not events:
            return
        rows = np.searchsorted(np.cumsum(rates), self._rng.random(events) * total)
        struck = np.bincount(rows, minlength=len(rates))[: len(rates)]
        self.counts.sbe_volatile += struck
        self.counts.sbe_aggregate += struck

    def _link_errors(self, effects: Effects, dt: float) -> None:
        struck = self._rng.poisson(effects.nvlink_rate * dt)
        self.counts.nvlink_crc += struck
        self.counts.nvlink_replay += struck
        self.counts.replays += self._rng.poisson(np.where(np.isfinite(effects.link_gen), _LINK_REPLAYS * dt, 0.0))

    def double_bit(self, rows: Ints, count: int) -> None:
        """XID 48, and the board's answer: a row to remap (Ampere on), or a page to retire, at the next reset."""
        counts = self.counts
        counts.dbe_volatile[rows] += count
        counts.dbe_aggregate[rows] += count
        counts.xid[rows] = XID_DBE
        remap, retire = rows[self._remaps[rows]], rows[~self._remaps[rows]]
        counts.remapped_uncorrectable[remap] += count
        counts.remap_pending[remap] = 1
        counts.retired_dbe[retire] += count
        counts.retired_pending[retire] += count

    def strike(self, fault: Fault) -> None:
        """A one-time fault happens (`counter_reset` is the simulator's: it concerns more than errors)."""
        rows, value = fault.gpus, fault.spec.value
        match fault.spec.kind:
            case Kind.DBE:
                self.double_bit(rows, int(value or 1))
            case Kind.XID:
                self.counts.xid[rows] = int(value or XID_GRAPHICS_EXCEPTION)
            case Kind.ROW_REMAP:
                self.counts.remapped_correctable[rows] += int(value or 1)
                self.counts.remap_pending[rows] = 1
                self.counts.xid[rows] = XID_REMAPPED
            case Kind.ROW_REMAP_FAILURE:
                self.counts.remap_failed[rows] = 1
                self.counts.xid[rows] = XID_REMAP_FAILED

    def reload(self, rows: Rows) -> None:
        """The driver was loaded anew: volatile counters and the last XID are gone, pending repairs are done."""
        counts = self.counts
        for name in ("sbe_volatile", "dbe_volatile", "replays", "nvlink_crc", "nvlink_replay", "xid",
                     "remap_pending", "retired_pending"):  # fmt: skip
            getattr(counts, name)[rows] = 0
