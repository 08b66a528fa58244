"""What the GPUs do: workload profiles, each a vectorised state machine over the units that run it.

A unit is a GPU, or a MIG instance of one. A profile gives an `Activity`; physics turns it into watts and degrees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class Activity:
    """One array per quantity, one element per unit; ratios 0 to 1."""

    util: Floats
    """Share of time a kernel ran (GPU_UTIL, GR_ENGINE_ACTIVE)."""
    sm: Floats
    tensor: Floats
    dram: Floats
    heat: Floats
    """Dynamic power as a share of what full load draws at full clock."""
    memory: Floats
    """Framebuffer the processes hold."""
    awake: Floats
    """1 while a process holds the GPU (clocks up), 0 on an empty GPU."""
    pcie: Floats
    nvlink: Floats

    @classmethod
    def zeros(cls, units: int) -> Activity:
        return cls(*(np.zeros(units) for _ in fields(cls)))

    def put(self, where: Ints, part: Activity) -> None:
        """Write `part` into the elements `where`."""
        for field in fields(self):
            getattr(self, field.name)[where] = getattr(part, field.name)


@dataclass(frozen=True, slots=True)
class Step:
    """The span of time a profile is asked about."""

    elapsed: float
    """Simulated seconds from the start of the mock to the end of the step."""
    clock: float
    """The same moment, epoch seconds."""
    dt: float
    """Length, seconds."""


class Profile(Protocol):
    """Made from `groups`, which gives each unit its host (the units of a host run one job), and a generator."""

    def step(self, now: Step, /) -> Activity:
        """Activity over the step."""


def _noise(rng: np.random.Generator, size: int, deviation: float) -> Floats:
    return rng.standard_normal(size) * deviation


def _ratio(values: Floats) -> Floats:
    return np.clip(values, 0.0, 1.0)


class Idle:
    """Nobody on the GPU: exact zeros, as real exporters report them."""

    def __init__(self, groups: Ints, _rng: np.random.Generator, /) -> None:
        self._nothing = Activity.zeros(len(groups))

    def step(self, _now: Step, /) -> Activity:
        return self._nothing


class Held:
    """A process holds memory and does nothing: the notebook left open."""

    def __init__(self, groups: Ints, rng: np.random.Generator, /) -> None:
        self._held = Activity.zeros(len(groups))
        self._held.awake += 1.0
        self._held.memory += rng.uniform(0.1, 0.9, len(groups))

    def step(self, _now: Step, /) -> Activity:
        return self._held


class Cycle:
    """Five minutes: 10 % to 60 s, up to 120 s, 90 % to 240 s, down to 300 s. All GPUs in step, as users know it."""

    def __init__(self, groups: Ints, rng: np.random.Generator, /) -> None:
        self._rng, self._units = rng, len(groups)

    def step(self, now: Step, /) -> Activity:
        base = float(np.interp(now.elapsed % 300.0, (0, 60, 120, 240, 300), (0.1, 0.1, 0.9, 0.9, 0.1)))
        level = _ratio(base + _noise(self._rng, self._units, 0.015))
        return Activity(
            util=level, sm=0.95 * level, tensor=0.65 * level, dram=0.42 * level, heat=level,
            memory=np.full(self._units, base), awake=np.ones(self._units), pcie=0.1 * level, nvlink=0.2 * level,
        )  # fmt: skip


class Training:
    """Steady load; every 20 to 40 minutes the job of a host stops for a checkpoint of 45 s, then goes on."""

    CHECKPOINT: Final = 45.0

    def __init__(self, groups: Ints, rng: np.random.Generator, /) -> None:
        self._rng = rng
        _, self._job = np.unique(groups, return_inverse=True)
        jobs = int(self._job.max()) + 1
        self._period = rng.uniform(1200.0, 2400.0, jobs)
        self._phase = rng.uniform(0.0, 2400.0, jobs)
        self._level = rng.uniform(0.80, 1.0, jobs)[self._job]
        self._memory = rng.uniform(0.75, 0.95, jobs)[self._job]

    def step(self, now: Step, /) -> Activity:
        size = len(self._job)
        saving = ((now.elapsed + self._phase) % self._period < self.CHECKPOINT)[self._job]
        level = np.where(saving, 0.02, _ratio(self._level + _noise(self._rng, size, 0.015)))
        util = np.where(saving, 0.03, _ratio(1.0 - np.abs(_noise(self._rng, size, 0.008))))
        return Activity(
            util=util, sm=0.95 * level, tensor=0.65 * level, dram=0.42 * level, heat=level, memory=self._memory,
            awake=np.ones(size), pcie=np.where(saving, 0.4, 0.02), nvlink=0.25 * level,
        )  # fmt: skip


class Inference:
    """Follows the day (quiet at 3 h, busy at 15 h UTC) with a slow random walk per server; memory full of cache."""

    def __init__(self, groups: Ints, rng: np.random.Generator, /) -> None:
        self._rng, size = rng, len(groups)
        self._scale = rng.uniform(0.6, 1.0, size)
        self._memory = rng.uniform(0.80, 0.92, size)
        self._drift = np.zeros(size)

    def step(self, now: Step, /) -> Activity:
        size = len(self._scale)
        keep = float(np.exp(-now.dt / 60.0))  # load at a server forgets itself in about a minute
        self._drift = keep * self._drift + np.sqrt(1 - keep**2) * _noise(self._rng, size, 0.08)
        day = 0.52 - 0.40 * np.cos(2 * np.pi * ((now.clock / 3600.0 - 3.0) % 24.0) / 24.0)
        level = _ratio(day * self._scale + self._drift)
        return Activity(
            util=level, sm=0.35 * level, tensor=0.06 * level, dram=0.30 * level, heat=0.25 * level,
            memory=self._memory, awake=np.ones(size), pcie=0.01 * level, nvlink=0.02 * level,
        )  # fmt: skip


class Bursty:
    """Short jobs: two minutes on, five off on average; between jobs the GPU is empty."""

    ON, OFF = 120.0, 300.0

    def __init__(self, groups: Ints, rng: np.random.Generator, /) -> None:
        self._rng, size = rng, len(groups)
        self._running = rng.random(size) < self.ON / (self.ON + self.OFF)
        self._level = rng.uniform(0.3, 1.0, size)
        self._memory = rng.uniform(0.1, 0.7, size)

    def step(self, now: Step, /) -> Activity:
        size = len(self._level)
        mean = np.where(self._running, self.ON, self.OFF)
        change = self._rng.random(size) < -np.expm1(-now.dt / mean)
        started = change & ~self._running
        self._running = self._running ^ change
        self._level = np.where(started, self._rng.uniform(0.3, 1.0, size), self._level)
        on = self._running.astype(np.float64)
        level = on * _ratio(self._level + _noise(self._rng, size, 0.03))
        return Activity(
            util=level, sm=0.8 * level, tensor=0.4 * level, dram=0.4 * level, heat=0.8 * level,
            memory=on * self._memory, awake=on, pcie=0.05 * level, nvlink=np.zeros(size),
        )  # fmt: skip


_CLUSTER: Final = np.array([
    # rank, util,  sm,   heat,  memory, awake
    (0.258, 0.00, 0.000, 0.000, 0.000, 0.00),
    (0.262, 0.09, 0.000, 0.000, 0.000, 0.16),
    (0.280, 0.47, 0.000, 0.000, 0.005, 0.25),
    (0.310, 0.69, 0.000, 0.000, 0.200, 0.45),
    (0.350, 0.91, 0.000, 0.002, 0.360, 1.00),
    (0.376, 0.94, 0.000, 0.006, 0.430, 1.00),
    (0.400, 0.97, 0.018, 0.011, 0.490, 1.00),
    (0.450, 0.97, 0.112, 0.020, 0.600, 1.00),
    (0.500, 0.98, 0.335, 0.033, 0.755, 1.00),
    (0.550, 0.98, 0.556, 0.086, 0.768, 1.00),
    (0.600, 0.99, 0.652, 0.170, 0.769, 1.00),
    (0.650, 0.99, 0.694, 0.423, 0.771, 1.00),
    (0.700, 0.99, 0.713, 0.675, 0.772, 1.00),
    (0.750, 0.99, 0.729, 0.806, 0.774, 1.00),
    (0.800, 1.00, 0.769, 0.854, 0.777, 1.00),
    (0.900, 1.00, 0.915, 0.920, 0.881, 1.00),
    (0.950, 1.00, 0.941, 0.960, 0.938, 1.00),
    (1.000, 1.00, 0.970, 1.000, 0.960, 1.00),
]).T  # fmt: skip
"""Inverse distribution functions of a production A100 cluster (AcmeTrace Kalos, CC BY 4.0), rounded, read at common
ranks: a quarter of the samples empty, a third busy-waiting (utilisation near 100 %, little power), the rest at work.
Heat is power between holding the GPU (90 W) and full load at full clock (440 W)."""


class Cluster:
    """A production cluster: each host runs jobs of an hour on average, each job at its own rank of `_CLUSTER`."""

    JOB_SECONDS: Final = 3600.0

    def __init__(self, groups: Ints, rng: np.random.Generator, /) -> None:
        self._rng = rng
        _, self._host = np.unique(groups, return_inverse=True)
        hosts = int(self._host.max()) + 1
        # Evenly spread at the start, so that a small fleet has its share of each kind too.
        self._rank = rng.permutation((np.arange(hosts) + rng.random(hosts)) / hosts)
        self._offset = _noise(rng, len(groups), 0.010)

    def step(self, now: Step, /) -> Activity:
        over = self._rng.random(len(self._rank)) < -np.expm1(-now.dt / self.JOB_SECONDS)
        self._rank = np.where(over, self._rng.random(len(self._rank)), self._rank)
        rank = self._rank[self._host] + self._offset
        rank = 1.0 - np.abs(1.0 - np.abs(rank))  # reflected at both ends: the ranks stay evenly spread
        util, sm, heat, memory, awake = (np.interp(rank, _CLUSTER[0], row) for row in _CLUSTER[1:])
        busy = 1.0 + _noise(self._rng, len(rank), 0.01)  # a factor, so that zeros stay zeros
        heat = _ratio(heat * busy)
        return Activity(
            util=_ratio(util * np.minimum(busy, 1.0)), sm=_ratio(sm * busy), tensor=0.65 * heat, dram=0.42 * heat,
            heat=heat, memory=memory, awake=awake, pcie=0.03 * heat, nvlink=0.25 * heat,
        )  # fmt: skip


PROFILES: Final[Mapping[str, Callable[[Ints, np.random.Generator], Profile]]] = MappingProxyType(
    {
        "cycle": Cycle,
        "training": Training,
        "inference": Inference,
        "idle": Idle,
        "held": Held,
        "bursty": Bursty,
        "cluster": Cluster,
    }
)


class Workload:
    """All units of a fleet, each under its profile."""

    def __init__(self, profiles: Sequence[str], groups: Ints, rng: np.random.Generator) -> None:
        names = np.array(profiles)
        self._units = len(names)
        self._parts: list[tuple[Ints, Profile]] = []
        for name in sorted(set(profiles)):
            where = np.flatnonzero(names == name).astype(np.int64)
            self._parts.append((where, PROFILES[name](groups[where], rng)))

    def step(self, now: Step) -> Activity:
        """Advance every profile. What comes back may be kept by a profile: read, never write."""
        if len(self._parts) == 1:
            return self._parts[0][1].step(now)
        activity = Activity.zeros(self._units)
        for where, profile in self._parts:
            activity.put(where, profile.step(now))
        return activity
