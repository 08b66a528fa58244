"""Hours at the box, from the mock's physics: idle, bench, cool-down, prod. For tests of what reads it, and pictures.

python -m tests.support.burn_in DSN [--end 2026-01-04T06:00:00+09:00] [--step 10]
"""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import psycopg

from mock_dcgm.faults import Effects
from mock_dcgm.models import MODELS, GpuModel
from mock_dcgm.physics import Physics
from mock_dcgm.workload import Activity
from services.store.connect import Connection
from tests.support.database import Row, insert, refresh, register, settings_for

HOST = "attic-01"


@dataclass(frozen=True)
class Phase:
    """`load`: share of full load of each GPU. `cooling`: factor on the heat sinks' resistance, 1 is as built."""

    minutes: float
    tag: str | None
    memo: str | None
    load: tuple[float, ...] = (0.0, 0.0)
    cooling: float = 1.0
    recorded: bool = True


BURN_IN: tuple[Phase, ...] = (
    Phase(25, "idle", "baseline"),
    Phase(3, "idle", "pre gpu-burn idle (baseline)"),
    Phase(30, "bench", "gpu-burn fan=100%", (1.0, 1.0)),
    Phase(20, "idle", "cooldown idle (post gpu-burn)"),
    Phase(3, "idle", "pre gpu-burn idle (baseline)", cooling=1.35),
    Phase(30, "bench", "gpu-burn fan=25%", (1.0, 1.0), cooling=1.35),
    Phase(20, "idle", "cooldown idle (post gpu-burn)", cooling=1.35),
    Phase(16, None, None, recorded=False),
    Phase(40, "prod", "prod (normal usage)", (0.45, 0.25)),
)
P40_AND_T4: tuple[GpuModel, ...] = (MODELS["P40"], MODELS["T4"])


USERS = 240.0
"""Seconds in which those who use the box change what they ask of it."""
Floats = npt.NDArray[np.float64]


def rows(
    gpu_ids: Sequence[int], start: dt.datetime, step: float, phases: Sequence[Phase] = BURN_IN,
    *, models: Sequence[GpuModel] = P40_AND_T4, seed: int = 7,
) -> Iterator[Row]:  # fmt: skip
    """One row per GPU every `step` seconds; a phase that is not recorded leaves a gap."""
    rng = np.random.default_rng(seed)
    count = len(models)
    physics = Physics(models, np.zeros(count, dtype=np.int64), np.linspace(0.2, 0.0, count), rng)
    second, demand = 0.0, np.zeros(count)
    keep = float(np.exp(-step / USERS))
    for phase in phases:
        effects = _cooled(count, phase.cooling)
        for _ in range(round(phase.minutes * 60 / step)):
            demand = keep * demand + np.sqrt(1 - keep**2) * rng.standard_normal(count)
            activity = _activity(phase.load, demand, rng)
            physics.advance(activity, effects, step)
            second += step
            if phase.recorded:
                time = start + dt.timedelta(seconds=second)
                for i, gpu_id in enumerate(gpu_ids):
                    yield _row(physics, activity, i, gpu_id=gpu_id, time=time, phase=phase)


def _activity(load: tuple[float, ...], demand: Floats, rng: np.random.Generator) -> Activity:
    level = np.array(load)
    busy = level > 0
    activity = Activity.zeros(len(level))
    noise = np.where(level >= 1, 1 + rng.standard_normal(len(level)) * 0.01, 1 + 0.45 * demand)
    activity.util = np.clip(level * noise, 0, 1)
    activity.heat = activity.util.copy()
    activity.memory = np.where(level >= 1, 0.9, np.where(busy, 0.4, 0.0))
    activity.awake = busy.astype(np.float64)
    return activity


def _cooled(count: int, factor: float) -> Effects | None:
    if factor == 1.0:
        return None
    effects = Effects.neutral(count)
    effects.sink_factor[:] = factor
    return effects


def _row(physics: Physics, activity: Activity, i: int, *, gpu_id: int, time: dt.datetime, phase: Phase) -> Row:
    state = physics.state
    used = round(float(state.memory[i]))
    total = round(float(physics.limits.memory_total[i] - physics.limits.memory_reserved[i]))
    return {
        "time": time, "gpu_id": gpu_id,
        "gpu_temp": round(float(state.temperature[i])), "power_usage": round(float(state.power[i]), 3),
        "power_limit": float(state.power_limit[i]), "gpu_util": round(100 * float(activity.util[i])),
        "sm_clock": round(float(state.sm_clock[i])), "clocks_event_reasons": int(state.reasons[i]),
        "fb_used": used, "fb_free": total - used, "pstate": 0 if activity.awake[i] else 8,
        "thermal_violation": round(float(state.thermal_violation[i])),
        "status_tag": phase.tag, "status_memo": phase.memo,
    }  # fmt: skip


def gpus(connection: Connection, seen: dt.datetime, models: Sequence[GpuModel] = P40_AND_T4) -> list[int]:
    """Registers one GPU per model at HOST; their gpu_ids."""
    return [
        register(
            connection, seen, uuid=f"GPU-burn-in-{index}", hostname=HOST, index=index, model=model.name,
            properties={"slowdown_temp": model.slowdown_temp, "shutdown_temp": model.shutdown_temp,
                        "fb_total": model.memory_total},
        )
        for index, model in enumerate(models)
    ]  # fmt: skip


def fill(
    connection: Connection, end: dt.datetime, step: float = 10.0, phases: Sequence[Phase] = BURN_IN
) -> dt.datetime:
    """Writes the whole story so that it ends at `end`, and brings the aggregates up to it. Returns its start."""
    start = end - dt.timedelta(minutes=sum(phase.minutes for phase in phases))
    insert(connection, rows(gpus(connection, start), start, step, phases))
    connection.execute("SELECT refresh_gpu_latest()")
    refresh(connection)
    return start


def main() -> None:
    from services.store.migrate import migrate

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dsn")
    parser.add_argument("--end", type=dt.datetime.fromisoformat, default=dt.datetime.now(dt.UTC))
    parser.add_argument("--step", type=float, default=10.0)
    args = parser.parse_args()
    with psycopg.connect(args.dsn, autocommit=True) as connection:
        migrate(
            connection,
            settings_for(args.dsn, retention="3640 days", retention_1min="3640 days", retention_1hour="3640 days"),
        )
        print(fill(connection, args.end, args.step).isoformat())


if __name__ == "__main__":
    main()
