"""Pictures' data for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from services.contract.catalogue import BY_COLUMN
from services.plot.data import Gpu, Picture, Run, Series, Throttled

START = 1_767_484_800.0
"""2026-01-04 00:00 UTC."""
P40 = Gpu(1, "GPU-1", "attic-01", 0, "Tesla P40", slowdown_temp=92.0, memory_total=23040.0, power_limit=250.0)
T4 = Gpu(2, "GPU-2", "attic-01", 1, "Tesla T4", power_limit=70.0)
TEMP = BY_COLUMN["gpu_temp"]
POWER = BY_COLUMN["power_usage"]


def series(values: list[float], gpu: Gpu = P40, step: float = 10.0, **more: Any) -> Series:
    given: dict[str, Any] = {
        "gpu": gpu, "metric": TEMP, "times": START + step * np.arange(len(values)),
        "values": np.array(values, dtype=float),
        "low": None, "high": None, "counts": np.where(np.isnan(values), 0.0, 1.0),
    }  # fmt: skip
    return Series(**{**given, **more})


def picture(*lines: Series, **more: Any) -> Picture:
    shown = lines or (series([40.0, 60.0, 80.0, 88.0, 70.0]),)
    gpus = tuple({s.gpu.gpu_id: s.gpu for s in shown}.values())
    last = max(float(s.times[-1]) for s in shown)
    metrics = tuple({s.metric.column: s.metric for s in shown}.values())
    given: dict[str, Any] = {
        "start": START, "end": last + 10, "gpus": gpus, "metrics": metrics,
        "series": shown, "runs": (), "throttled": (), "relation": "gpu_metrics", "bucket": 0.0,
    }  # fmt: skip
    return Picture(**{**given, **more})


def run(
    start: float, end: float, tag: str | None = "bench", memo: str | None = "gpu-burn", host: str = "attic-01"
) -> Run:
    return Run(host, START + start, START + end, tag, memo)


def held(start: float, end: float, bits: int = 0x20, gpu: Gpu = P40) -> Throttled:
    return Throttled(gpu, START + start, START + end, bits)
