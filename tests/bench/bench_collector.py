"""How many GPUs one core of a collector scrapes, reads and publishes every 10 s, from exporters of eight GPUs each."""

from __future__ import annotations

from tests.bench.live import run_live
from tests.bench.report import Figure, Options


def run(options: Options) -> list[Figure]:
    gpus, seconds = (1000, 20.0) if options.quick else (10_000, 40.0)
    live = run_live(gpus, interval=10.0, seconds=seconds)
    note = f"{gpus:,} GPUs, {gpus // 8:,} targets, {live.progress.scraped / live.balance.published:.0f} samples a GPU"
    return [
        Figure("collector", f"cores busy with {gpus:,} GPUs at 10 s", live.cores["collector"], "cores", note=note),
        Figure("collector", "GPUs a core can take at 10 s", gpus / live.cores["collector"], "GPUs", note=note),
        Figure("collector", f"sink: cores busy with {gpus:,} GPUs at 10 s", live.cores["sink"], "cores", note=note),
    ]
