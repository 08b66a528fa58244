"""Utilisation -> power -> temperature -> clocks, for the whole fleet at once.

Power: holding a GPU costs `power_idle` to `power_context`; work adds up to `power_peak - power_context` at full clock,
with the square of the clock below it (voltage falls with frequency). The power cap and the thermal limits choose the
clock. Heat flows die -> heat sink -> intake air: two first-order lags, solved exactly for constant power over a step,
so that any step length is stable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mock_dcgm.faults import Effects
from mock_dcgm.models import GpuModel
from mock_dcgm.workload import Activity

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# Clock event reasons, from nvml.h.
GPU_IDLE, SW_POWER_CAP, HW_SLOWDOWN, SW_THERMAL, HW_THERMAL = 0x1, 0x4, 0x8, 0x20, 0x40

_CLOCK_STEP = 15.0  # MHz; NVIDIA's clock tables go in steps of 15 (1,980, 1,965, ...)
_CLOCK_FLOOR = 0.15  # share of the maximum no cap goes below; a T4 at its cap runs at 0.42 on a real board
_SOFT_GAIN = 0.005  # clock share taken per second and C above the operating maximum: settles in a minute, no hunting
_RECOVERY = 0.01  # clock share given back per second at most
_HARD_CLOCK = 0.25  # clock share left by hardware slowdown; NVIDIA halves to quarters
_RUNAWAY_RATE = 0.5  # C per second; from 60 C to slowdown in a minute, which an interval of 10 s resolves
_INTAKE = 20.0  # C, mean intake air; with the spreads below the idle A100 stands at 25 to 36 C as Kalos' do
_INTAKE_HOST = 2.0  # C, standard deviation between hosts
_INTAKE_SLOT = 14.0  # C, between the first and the last slot of a chassis: air warms on its way
_MOUNT_SPREAD = 0.08  # relative standard deviation of thermal resistance: mounting and paste
_IDLE_SPREAD = 0.03  # relative standard deviation of idle power between boards
_BUSY_NOISE = 0.018  # relative, of power under load: 692 +- 7 W on a capped H100, wider in a whole cluster (Kalos)
_IDLE_NOISE = 0.03  # W: 0.01 to 0.05 W measured on idle H100


@dataclass(frozen=True, slots=True)
class Limits:
    """The models' numbers as arrays over the fleet."""

    power_limit: Floats
    power_limit_min: Floats
    power_idle: Floats
    power_context: Floats
    power_peak: Floats
    sm_clock_idle: Floats
    sm_clock_max: Floats
    mem_clock_idle: Floats
    mem_clock_max: Floats
    max_operating_temp: Floats
    slowdown_temp: Floats
    shutdown_temp: Floats
    resistance_die: Floats
    resistance_sink: Floats
    tau_die: Floats
    tau_sink: Floats
    memory_total: Floats
    memory_reserved: Floats
    pcie_gen: Floats
    pcie_width: Floats

    @classmethod
    def of(cls, models: Sequence[GpuModel]) -> Limits:
        return cls(**{
            name: np.array([getattr(m, name) for m in models], dtype=np.float64) for name in cls.__dataclass_fields__
        })  # fmt: skip


@dataclass(slots=True)
class State:
    """What the physics say now, one element per GPU. Energy and violations are sums since driver load."""

    power: Floats
    """W, whole milliwatts: what is reported is what is integrated."""
    die_rise: Floats
    """C above the heat sink."""
    sink: Floats
    """C."""
    runaway: Floats
    """C that a fault adds."""
    thermal_share: Floats
    """Share of the maximum clock that temperature allows."""
    sm_clock: Floats
    mem_clock: Floats
    reasons: Ints
    memory: Floats
    """MiB held by processes."""
    energy: Floats
    """mJ. Exact to 2^53 mJ, 285 years at 1,000 W."""
    power_violation: Floats
    """ns."""
    thermal_violation: Floats
    low_util_violation: Floats
    power_limit: Floats
    """W, as enforced."""

    @property
    def temperature(self) -> Floats:
        """Of the die, C."""
        return self.sink + self.die_rise + self.runaway

    def reset_counters(self, rows: npt.NDArray[np.intp] | Ints | Bools) -> None:
        """The driver has been reloaded."""
        for counter in (self.energy, self.power_violation, self.thermal_violation, self.low_util_violation):
            counter[rows] = 0.0


class Physics:
    """`advance` moves `state` on. Randomness only from `rng`."""

    def __init__(self, models: Sequence[GpuModel], hosts: Ints, slots: Floats, rng: np.random.Generator) -> None:
        """`hosts` numbers each GPU's host, `slots` gives its place in the air flow, 0 to 1."""
        self.limits = limits = Limits.of(models)
        self._rng, size = rng, len(models)
        host_air = rng.standard_normal(int(hosts.max()) + 1) * _INTAKE_HOST
        self._intake = _INTAKE + host_air[hosts] + _INTAKE_SLOT * slots
        mount = 1.0 + np.clip(rng.standard_normal(size) * _MOUNT_SPREAD, -0.2, 0.2)
        self._die, self._sink = limits.resistance_die * mount, limits.resistance_sink * mount
        self._idle = limits.power_idle * (1.0 + np.clip(rng.standard_normal(size) * _IDLE_SPREAD, -0.08, 0.08))
        self.state = self._cold(size)

    def _cold(self, size: int) -> State:
        """Idle for a long time."""
        limits, idle = self.limits, np.round(self._idle, 3)
        return State(
            power=idle, die_rise=self._die * idle, sink=self._intake + self._sink * idle, runaway=np.zeros(size),
            thermal_share=np.ones(size), sm_clock=limits.sm_clock_idle.copy(), mem_clock=limits.mem_clock_idle.copy(),
            reasons=np.full(size, GPU_IDLE), memory=np.zeros(size), energy=np.zeros(size),
            power_violation=np.zeros(size), thermal_violation=np.zeros(size), low_util_violation=np.zeros(size),
            power_limit=limits.power_limit.copy(),
        )  # fmt: skip

    def advance(self, activity: Activity, effects: Effects | None, dt: float) -> None:
        """One step of `dt` seconds under constant activity. Shapes: one element per GPU."""
        state, limits = self.state, self.limits
        cap = limits.power_limit if effects is None else np.minimum(limits.power_limit, effects.power_cap)
        state.power_limit = np.maximum(cap, 0.0)
        self._limit_by_heat(dt)
        self._choose_clock(activity)
        self._draw_power(activity)
        self._warm(effects, dt)
        awake = activity.awake > 0.0
        target = activity.memory * (limits.memory_total - limits.memory_reserved)
        # Allocations come in seconds and end at once.
        state.memory = np.where(awake, target + (state.memory - target) * np.exp(-dt / 5.0), 0.0)
        state.mem_clock = np.where(awake, limits.mem_clock_max, limits.mem_clock_idle)
        self._count(dt)

    def _limit_by_heat(self, dt: float) -> None:
        """Software takes clock away bit by bit above the operating maximum, hardware at once above slowdown."""
        state, limits = self.state, self.limits
        excess = state.temperature - limits.max_operating_temp
        change = np.minimum(-_SOFT_GAIN * excess, _RECOVERY) * dt
        share = np.clip(state.thermal_share + change, _HARD_CLOCK, 1.0)
        state.thermal_share = np.where(state.temperature >= limits.slowdown_temp, _HARD_CLOCK, share)

    def _choose_clock(self, activity: Activity) -> None:
        """The clock the caps leave, and the reasons for it."""
        state, limits = self.state, self.limits
        static = self._static(activity)
        work = (limits.power_peak - limits.power_context) * activity.heat
        room = np.maximum(state.power_limit - static, 0.0)
        by_power = np.sqrt(np.divide(room, work, out=np.ones_like(room), where=work > room))
        by_heat = state.thermal_share
        hard = state.temperature >= limits.slowdown_temp
        share = np.maximum(np.minimum(by_power, by_heat), _CLOCK_FLOOR)
        awake = activity.awake > 0.0
        full = share >= 1.0
        stepped = np.floor(limits.sm_clock_max * share / _CLOCK_STEP) * _CLOCK_STEP
        busy_clock = np.where(full, limits.sm_clock_max, stepped)
        state.sm_clock = np.where(awake, busy_clock, limits.sm_clock_idle)
        soft = (by_heat < 1.0) & ~hard
        reasons = np.where(by_power < 1.0, SW_POWER_CAP, 0)
        reasons |= np.where(soft, SW_THERMAL, 0) | np.where(hard, HW_SLOWDOWN | HW_THERMAL, 0)
        state.reasons = np.where(awake, reasons, GPU_IDLE | (reasons & (HW_SLOWDOWN | HW_THERMAL)))

    def _static(self, activity: Activity) -> Floats:
        """Power before any work, W."""
        return self._idle + (self.limits.power_context - self.limits.power_idle) * activity.awake

    def _draw_power(self, activity: Activity) -> None:
        state, limits = self.state, self.limits
        share = np.where(activity.awake > 0.0, state.sm_clock / limits.sm_clock_max, 0.0)
        work = (limits.power_peak - limits.power_context) * activity.heat * share**2
        normal = self._rng.standard_normal(len(work))
        noise = normal * (_IDLE_NOISE + _BUSY_NOISE * work)
        state.power = np.round(np.maximum(self._static(activity) + work + noise, 1.0), 3)

    def _warm(self, effects: Effects | None, dt: float) -> None:
        state, limits = self.state, self.limits
        sink_resistance = self._sink if effects is None else self._sink * effects.sink_factor
        sink_goal = self._intake + sink_resistance * state.power
        state.sink = sink_goal + (state.sink - sink_goal) * np.exp(-dt / limits.tau_sink)
        die_goal = self._die * state.power
        state.die_rise = die_goal + (state.die_rise - die_goal) * np.exp(-dt / limits.tau_die)
        if effects is None and not state.runaway.any():
            return
        goal = np.full_like(state.runaway, np.nan) if effects is None else effects.runaway_target
        short = np.where(np.isnan(goal), -np.inf, goal - state.temperature)
        # While the clocks still have room to fall, the heat does not give way: the throttling has to.
        least = np.where(np.isnan(goal) | (state.thermal_share <= _HARD_CLOCK), -_RUNAWAY_RATE * dt, 0.0)
        move = np.clip(short, least, _RUNAWAY_RATE * dt)
        state.runaway = np.maximum(state.runaway + move, 0.0)

    def _count(self, dt: float) -> None:
        """Counters since driver load. Violations are in ns: time below the clock that was asked for."""
        state = self.state
        state.energy += state.power * dt * 1e3
        span = dt * 1e9
        state.power_violation += np.where(state.reasons & SW_POWER_CAP, span, 0.0)
        state.thermal_violation += np.where(state.reasons & (SW_THERMAL | HW_THERMAL), span, 0.0)
        state.low_util_violation += np.where(state.reasons & GPU_IDLE, span, 0.0)
