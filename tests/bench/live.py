"""Runs the whole pipeline for a while and reads what it says and what it weighs."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from contextlib import closing
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
    cores: dict[str, float]
    """Cores busy by role, after the start: processor seconds per second."""


def resident_mib(pid: int) -> float:
    """VmHWM of a process: its peak resident set, MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no VmHWM for process {pid}")


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_live(gpus: int, interval: float, seconds: float) -> LiveRun:
    """`gpus` mock GPUs on hosts of eight, every `interval` s for `seconds` s. Raises when events are missing."""
    settings = load()
    with tempfile.TemporaryDirectory(prefix="gpumon-bench-") as scratch:
        plan = Plan(gpus, max(1, gpus // 8), interval, Path(scratch), None)
        pipeline = Pipeline(plan, settings, lambda _text: None, threading.Event())
        try:
            pipeline.start()
            with closing(Ledger(pipeline, settings)) as ledger:
                ledger.open()
                cores = _measured(pipeline, interval, seconds)
                resident = {name: resident_mib(role.pid) for name, role in pipeline.roles.items()}
                pipeline.stop_role("collector")
                if not ledger.drain(DRAIN_SECONDS, pipeline.check):
                    raise RuntimeError(f"{gpus} GPUs: the sink did not catch up within {DRAIN_SECONDS:.0f} s")
                progress = look(pipeline.roles)
                balance = ledger.balance()
        finally:
            pipeline.stop()
    if balance.published != balance.rows:
        raise RuntimeError(f"{gpus} GPUs: {balance.published} events published, {balance.rows} rows")
    return LiveRun(balance, progress, resident, cores)


def _measured(pipeline: Pipeline, interval: float, seconds: float) -> dict[str, float]:
    """Cores busy by role over `seconds`."""
    time.sleep(interval)  # the first scrape is cold: every GPU, label and identity is new
    before, began = _busy(pipeline), time.monotonic()
    time.sleep(seconds)
    pipeline.check()
    span = time.monotonic() - began
    return {name: (busy - before[name]) / span for name, busy in _busy(pipeline).items()}


def _busy(pipeline: Pipeline) -> dict[str, float]:
    return {name: processor_seconds(role.pid) for name, role in pipeline.roles.items()}
