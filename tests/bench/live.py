"""Runs the whole pipeline for a while and reads what it says and what it weighs."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from services.demo.ledger import Balance, Ledger
from services.demo.pipeline import Pipeline, Plan
from services.demo.watch import Progress, look
from services.settings import load

DRAIN_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class LiveRun:
    balance: Balance
    progress: Progress
    resident: dict[str, float]
    """MiB by role, the largest seen."""


def resident_mib(pid: int) -> float:
    """VmHWM of a process: its peak resident set, MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no VmHWM for process {pid}")


def run_live(gpus: int, interval: float, seconds: float) -> LiveRun:
    """`gpus` mock GPUs on hosts of eight, every `interval` s for `seconds` s. Raises when events are missing."""
    settings = load()
    with tempfile.TemporaryDirectory(prefix="gpumon-bench-") as scratch:
        plan = Plan(gpus, max(1, gpus // 8), interval, Path(scratch), None)
        pipeline = Pipeline(plan, settings, lambda _text: None)
        try:
            pipeline.start()
            ledger = Ledger(pipeline, settings)
            ledger.open()
            time.sleep(seconds)
            pipeline.check()
            resident = {name: resident_mib(role.pid) for name, role in pipeline.roles.items()}
            pipeline.stop_role("collector")
            if not ledger.drain(DRAIN_SECONDS):
                raise RuntimeError(f"{gpus} GPUs: the sink did not catch up within {DRAIN_SECONDS:.0f} s")
            progress = look(pipeline.roles)
            balance = ledger.close()
        finally:
            pipeline.stop()
    if balance.published != balance.rows:
        raise RuntimeError(f"{gpus} GPUs: {balance.published} events published, {balance.rows} rows")
    return LiveRun(balance, progress, resident)
