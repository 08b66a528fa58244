"""GPUs to read, as plain data, and a clock that tests move."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pynvml

from services.contract.catalogue import METRICS
from services.exporter.nvml.source import NvmlSource
from services.exporter.reading import Reading, Sweep
from tests.support.fake_nvml import FakeGpu, FakeNvml

P40_VALUES: dict[str, float] = {
    "sm_clock": 544, "mem_clock": 3615, "clocks_event_reasons": 4, "pstate": 0, "gpu_temp": 69, "slowdown_temp": 92,
    "shutdown_temp": 95, "power_usage": 52.5, "power_limit": 250.0, "pcie_replay_counter": 0, "pcie_max_link_gen": 3,
    "pcie_max_link_width": 16, "pcie_link_gen": 3, "pcie_link_width": 16, "gpu_util": 1, "mem_copy_util": 0,
    "enc_util": 0, "dec_util": 0, "power_violation": 5_000_000_000, "thermal_violation": 0, "fb_total": 24576,
    "fb_free": 24521, "fb_used": 54, "fb_reserved": 0, "retired_sbe": 0, "retired_dbe": 2, "retired_pending": 0,
}  # fmt: skip
"""What a Tesla P40 with driver 535 tells: no memory temperature, fan, energy, ECC (it is off), rows or NVLink."""
FULL_VALUES: dict[str, float] = {
    m.column: (0.125 + number / 1000 if not m.sql.is_integer else 1 if m.high <= 1 else min(2 + number, 15))
    for number, m in enumerate(METRICS)
}
"""A value of its own for every column of the catalogue (where its range has room for one)."""


def p40(**fields: object) -> FakeGpu:
    given: dict[str, object] = {
        "uuid": "GPU-40", "name": "Tesla P40", "vbios": "86.02.23.00.01", "serial": "0420317000000",
        "brand": pynvml.NVML_BRAND_TESLA, "values": dict(P40_VALUES),
    }  # fmt: skip
    return FakeGpu(**given | fields)  # type: ignore[arg-type]  # a table of a dataclass's own fields


def hopper(number: int = 0, **fields: object) -> FakeGpu:
    """Everything the catalogue has."""
    given: dict[str, object] = {
        "uuid": f"GPU-{number}", "pci_bus_id": f"00000000:{number + 1:02X}:00.0", "name": "NVIDIA H100 80GB HBM3",
        "values": dict(FULL_VALUES), "gpm": True,
    }  # fmt: skip
    return FakeGpu(**given | fields)  # type: ignore[arg-type]  # a table of a dataclass's own fields


@dataclass
class FakeClock:
    """Stands still unless it is told to move."""

    now: float = 1_763_790_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@contextmanager
def opened(
    *gpus: FakeGpu,
    clock: FakeClock | None = None,
    pci: Path | None = None,
    processes: bool = False,
    proc: Path | None = None,
) -> Iterator[tuple[FakeNvml, NvmlSource]]:
    fake = FakeNvml(gpus)
    with fake.installed():
        source = NvmlSource(processes, clock=clock or FakeClock(), pci=pci, proc=proc or Path("/nonexistent"))
        try:
            yield fake, source
        finally:
            source.close()
            assert fake.initialised == 0
            assert fake.samples == 0


def only(sweep: Sweep) -> Reading:
    assert sweep.lost == ()
    (reading,) = sweep.readings
    return reading
