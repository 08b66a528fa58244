"""Peak resident memory of mock, collector and sink at 100, 1,000 and 10,000 GPUs. Goal: linear, small."""

from __future__ import annotations

from tests.bench.live import run_live
from tests.bench.report import Figure, Options


def run(options: Options) -> list[Figure]:
    sizes = (100, 1000) if options.quick else (100, 1000, 10_000)
    runs = {gpus: run_live(gpus, interval=10.0, seconds=35.0).resident for gpus in sizes}
    figures = [
        Figure("memory", f"{role} at {gpus:,} GPUs", mib, "MiB")
        for gpus, resident in runs.items()
        for role, mib in resident.items()
    ]
    small, large = sizes[0], sizes[-1]
    for role in runs[large]:
        each = (runs[large][role] - runs[small][role]) * 1024 / (large - small)
        figures.append(
            Figure("memory", f"{role} per GPU", each, "KiB", note=f"growth from {small:,} to {large:,} GPUs")
        )
    return figures
