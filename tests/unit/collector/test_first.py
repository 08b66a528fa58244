"""The collector says once that it works: one line, and a count after the first interval; never a line per target."""

from __future__ import annotations

import logging

import pytest

from services.collector.batch import Batch
from services.collector.first import FirstSamples
from tests.unit.collector.fakes import ManualClock

TARGETS = 2_000


def scraped(target: int, gpus: int = 1) -> Batch:
    messages = [("metrics", f"GPU-{gpu}", b"") for gpu in range(gpus)]
    return Batch(f"host-{target}:9400", [*messages, ("events", "GPU-0", b"")])


def first(clock: ManualClock, targets: int) -> FirstSamples:
    return FirstSamples("TimescaleDB", "metrics", 10, lambda: targets, clock)


def test_one_target_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "collector")
    clock = ManualClock()
    arrived = first(clock, 1)
    arrived(Batch("host-0:9400", [("events", "host-0:9400", b"")]))
    assert caplog.messages == [], "an event is no sample"
    for _ in range(5):
        arrived(scraped(0))
        clock.now += 10
    assert caplog.messages == ["first samples of host-0:9400 are in TimescaleDB (1 GPU)"]


def test_a_fleet_has_two_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "collector")
    clock = ManualClock()
    arrived = first(clock, TARGETS)
    for _ in range(4):
        for target in range(TARGETS - 1):
            arrived(scraped(target, 8))
        clock.now += 6
    assert caplog.messages == [
        "first samples of host-0:9400 are in TimescaleDB (8 GPUs)",
        f"samples of {TARGETS - 1} of {TARGETS} targets are in TimescaleDB ({(TARGETS - 1) * 8} GPUs)",
    ]
