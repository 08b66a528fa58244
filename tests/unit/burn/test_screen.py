"""The live page in windows of several widths."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from services.burn.drive import Now
from services.burn.plan import Phase
from services.burn.screen import LiveScreen
from services.contract.event import Status
from services.host.live import Look, State
from services.host.series import Sample
from services.host.telemetry import Gpu

P40 = Gpu("GPU-1", 0, "Tesla P40")
RISING = [20.0] * 20 + [45.0] * 10 + [90.0] * 10
"""Oldest first."""


class Temperatures:
    def temperatures(self, uuid: str, last: int) -> list[float]:
        return RISING[-last:]


def page(width: int, memo: str = "gpu-burn (max workload)") -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=24, force_terminal=True, color_system=None)
    monitor: Any = Temperatures()
    screen = LiveScreen(console, monitor, 90, "gpumon burn")
    state = State((Look(P40, Sample(1, 90, 248.4, 0x4, None, 1303)),), 0.5, None, 9)
    phase = Phase("burn", Status(tag="bench", memo=memo), 900)
    with console.capture() as capture:
        console.print(screen.page(Now(phase, 2, 3, 61, 1439, state, "")))
    screen.close()
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize(("width", "cells"), [(140, 40), (80, 20), (70, 10)])
def test_the_sparkline_shows_the_newest_that_fit(width: int, cells: int) -> None:
    [line] = [line for line in page(width) if "GPU 0" in line]
    spark = "".join(char for char in line if char in "▁▂▃▄▅▆▇█")
    assert len(spark) >= cells
    assert spark.endswith("█" * 10)
    assert "…" not in line
    assert "248 W  1303 MHz  power_cap" in line
    assert ("Tesla P40" in line) == (width >= 100)


@pytest.mark.parametrize("width", [80, 120])
def test_the_phase_takes_one_line(width: int) -> None:
    lines = page(width, memo="a memo that is much longer than the place there is for it in a terminal of this width")
    assert len(lines) == 3
    assert lines[1].startswith("phase 2/3 burn bench (a memo")
    assert lines[1].endswith("13:59 left, run 23:59")
