"""Seconds from scrape to commit at 1,000 GPUs every 10 s, all parts on this machine. Goal: under a second."""

from __future__ import annotations

from tests.bench.live import run_live
from tests.bench.report import Figure, Options


def run(options: Options) -> list[Figure]:
    gpus, seconds = (100, 25.0) if options.quick else (1000, 65.0)
    live = run_live(gpus, interval=10.0, seconds=seconds)
    note = f"{gpus} GPUs at 10 s, {live.balance.rows} rows, mock, broker and embedded database on the same machine"
    p50, p99 = live.progress.freshness_p50, live.progress.freshness_p99
    if p50 is None or p99 is None:
        raise RuntimeError("the sink reported no freshness")
    return [
        Figure("freshness", "p50", p50, "s", "< 1 s", p50 < 1, note),
        Figure("freshness", "p99", p99, "s", "< 1 s", p99 < 1, note),
    ]
