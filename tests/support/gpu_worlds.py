"""GPUs as plain data, and the same GPUs behind each source that can be told what to see: NVML and nvidia-smi.

For tests that hold the sources against each other. Each goes through its own fake of the driver's outer edge (the C
library, the program), from the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import pynvml

from services.exporter.nvml.source import NvmlSource
from services.exporter.reading import Source
from services.exporter.smi.source import SmiSource
from tests.support.fake_nvml import FakeGpu, FakeInstance, FakeNvml, FakeProcess
from tests.support.fake_smi import FakeSmi, GpuState, MigState

BRANDS: Final = {
    "Tesla": pynvml.NVML_BRAND_TESLA,
    "GeForce": pynvml.NVML_BRAND_GEFORCE,
    "NVIDIA": pynvml.NVML_BRAND_NVIDIA,
}
SMI_TIMEOUT: Final = 20.0
"""Seconds; the fake answers in 0.05, on a busy machine later."""


@dataclass(frozen=True)
class Gpu:
    """`values` by catalogue column, None for what the card lacks."""

    uuid: str
    pci_bus_id: str
    model: str
    brand: str
    values: dict[str, float | int | None]
    serial: str = "0420317000000"
    vbios: str = "86.02.23.00.01"
    instances: tuple[tuple[int, str, dict[str, int]], ...] = ()
    """MIG: id, profile, framebuffer."""
    processes: tuple[tuple[int, str, int], ...] = ()
    """pid, kind, MiB."""


@dataclass(frozen=True)
class World:
    """One host."""

    name: str
    gpus: tuple[Gpu, ...]
    driver: str = "535.129.03"
    schema: int = 12


class Stage(Protocol):
    """A source in front of a world, and what may happen to the GPUs in it."""

    source: Source

    def lose(self, gpu: int) -> None: ...

    def refuse(self, gpu: int, column: str, outcome: str) -> None:
        """`unsupported`, `permission` or `failed` for one metric."""

    def break_down(self, trouble: str) -> None:
        """`no_driver`, `mismatch` or `permission` for the host, from the next `read` of a new source."""

    def fresh(self) -> Source:
        """A source as after a start of the exporter; may raise SourceError already."""


@dataclass
class NvmlStage:
    world: World
    fake: FakeNvml
    source: Source

    def lose(self, gpu: int) -> None:
        self.fake.gpus[gpu].lost = True

    def refuse(self, gpu: int, column: str, outcome: str) -> None:
        errors = {
            "unsupported": pynvml.NVML_ERROR_NOT_SUPPORTED,
            "permission": pynvml.NVML_ERROR_NO_PERMISSION,
            "failed": pynvml.NVML_ERROR_UNKNOWN,
        }
        self.fake.gpus[gpu].errors[column] = errors[outcome]

    def break_down(self, trouble: str) -> None:
        self.source.close()
        self.fake.init_error = {
            "no_driver": pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
            "mismatch": pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
            "permission": pynvml.NVML_ERROR_NO_PERMISSION,
        }[trouble]

    def fresh(self) -> Source:
        return NvmlSource()


@dataclass
class SmiStage:
    world: World
    fake: FakeSmi
    source: Source
    proc: Path

    def lose(self, gpu: int) -> None:
        self.fake.lose(gpu)

    def refuse(self, gpu: int, column: str, outcome: str) -> None:
        text = {"unsupported": "[N/A]", "permission": "[Insufficient Permissions]", "failed": "[Unknown Error]"}[
            outcome
        ]
        self.fake.state(gpu, **{column: text})

    def break_down(self, trouble: str) -> None:
        {
            "no_driver": self.fake.no_driver,
            "mismatch": self.fake.mismatch,
            "permission": self.fake.no_permission,
        }[trouble]()

    def fresh(self) -> Source:
        return SmiSource(self.fake.program, SMI_TIMEOUT, proc=self.proc)


@contextmanager
def nvml_stage(world: World, directory: Path, processes: bool = False) -> Iterator[NvmlStage]:
    fake = FakeNvml([_fake_gpu(gpu) for gpu in world.gpus], driver_version=world.driver)
    with fake.installed():
        source = NvmlSource(processes=processes)
        yield NvmlStage(world, fake, source)
        source.close()


@contextmanager
def smi_stage(world: World, directory: Path, processes: bool = False) -> Iterator[SmiStage]:
    states = [_gpu_state(gpu) for gpu in world.gpus]
    fake = FakeSmi(directory / "smi", gpus=states, driver=world.driver, schema=world.schema)
    proc = directory / "no-proc" if not processes else Path("/proc")
    yield SmiStage(world, fake, SmiSource(fake.program, SMI_TIMEOUT, processes, proc=proc), proc)


def _fake_gpu(gpu: Gpu) -> FakeGpu:
    instances = [FakeInstance(number, profile, dict(memory)) for number, profile, memory in gpu.instances]
    return FakeGpu(
        uuid=gpu.uuid,
        pci_bus_id=gpu.pci_bus_id,
        name=gpu.model,
        serial=gpu.serial,
        vbios=gpu.vbios,
        brand=BRANDS[gpu.brand],
        values={column: value for column, value in gpu.values.items() if value is not None},
        instances=instances or None,
        processes=[FakeProcess(pid, used, kind) for pid, kind, used in gpu.processes],
    )


def _gpu_state(gpu: Gpu) -> GpuState:
    return GpuState(
        uuid=gpu.uuid,
        pci_bus_id=gpu.pci_bus_id,
        model=gpu.model,
        brand=gpu.brand,
        serial=gpu.serial,
        vbios=gpu.vbios,
        values=dict(gpu.values),
        processes=[(pid, kind, "[Not Found]", used) for pid, kind, used in gpu.processes],
        mig=[MigState(number, profile, dict(memory)) for number, profile, memory in gpu.instances],
    )


_P40: Final[dict[str, float | int | None]] = {
    "sm_clock": 1303, "mem_clock": 3615, "clocks_event_reasons": 4, "pstate": 0, "memory_temp": None, "gpu_temp": 83,
    "slowdown_temp": 92, "shutdown_temp": 95, "fan_speed": None, "power_usage": 187.45, "power_limit": 180.0,
    "pcie_replay_counter": 3, "pcie_max_link_gen": 3, "pcie_max_link_width": 16, "pcie_link_gen": 3,
    "pcie_link_width": 4, "gpu_util": 99, "mem_copy_util": 41, "enc_util": 0, "dec_util": 0, "fb_total": 24576,
    "fb_reserved": 95, "fb_used": 22010, "fb_free": 2471, "ecc_sbe_vol_total": None, "ecc_dbe_vol_total": None,
    "ecc_sbe_agg_total": None, "ecc_dbe_agg_total": None, "retired_sbe": 2, "retired_dbe": 1, "retired_pending": 1,
    "uncorrectable_remapped_rows": None, "correctable_remapped_rows": None, "row_remap_failure": None,
    "row_remap_pending": None,
}  # fmt: skip
_NO_PAGES: Final[dict[str, float | int | None]] = dict.fromkeys(("retired_sbe", "retired_dbe", "retired_pending"))
_DATA_CENTRE: Final[dict[str, float | int | None]] = {
    **_P40, **_NO_PAGES, "memory_temp": 79, "ecc_sbe_vol_total": 8, "ecc_dbe_vol_total": 1, "ecc_sbe_agg_total": 44,
    "ecc_dbe_agg_total": 7, "uncorrectable_remapped_rows": 1, "correctable_remapped_rows": 2, "row_remap_failure": 0,
    "row_remap_pending": 1, "power_usage": 611.4, "power_limit": 700.0, "clocks_event_reasons": 0x24,
}  # fmt: skip
_UTILISATION: Final[dict[str, float | int | None]] = dict.fromkeys(
    ("gpu_util", "mem_copy_util", "enc_util", "dec_util")
)

P40: Final = World("p40", (Gpu("GPU-p40", "00000000:06:00.0", "Tesla P40", "Tesla", _P40),))
T4: Final = World(
    "t4-v11",
    (
        Gpu(
            "GPU-t4",
            "00000000:3B:00.0",
            "Tesla T4",
            "NVIDIA",
            {**_DATA_CENTRE, "memory_temp": None, "retired_sbe": 3, "retired_dbe": 0, "retired_pending": 0},
        ),
    ),
    "515.105.01",
    11,
)
H100S: Final = World(
    "three-h100-v13",
    tuple(
        Gpu(
            f"GPU-h{n}", f"00000000:{bus}:00.0", "NVIDIA H100 80GB HBM3", "NVIDIA", {**_DATA_CENTRE, "gpu_temp": 60 + n}
        )
        for n, bus in enumerate(("19", "5D", "CA"))
    ),
    "580.105.08",
    13,
)
MIG: Final = World(
    "a100-mig",
    (
        Gpu(
            "GPU-mig",
            "00000000:47:00.0",
            "NVIDIA A100-SXM4-40GB",
            "NVIDIA",
            {**_DATA_CENTRE, **_UTILISATION},
            instances=(
                (2, "3g.20gb", {"fb_total": 19968, "fb_used": 6021, "fb_free": 13947, "fb_reserved": 0}),
                (9, "1g.5gb", {"fb_total": 4864, "fb_used": 12, "fb_free": 4852, "fb_reserved": 0}),
            ),
        ),
    ),
)
CONSUMER: Final = World(
    "rtx-3080-v13",
    (
        Gpu(
            "GPU-rtx",
            "00000000:0C:00.0",
            "NVIDIA GeForce RTX 3080",
            "GeForce",
            {**_P40, **_NO_PAGES, "fan_speed": 0, "slowdown_temp": 95},
            serial="N/A",
        ),
    ),
    "595.58.03",
    13,
)
WORLDS: Final = (P40, T4, H100S, MIG, CONSUMER)


def with_values(world: World, values: dict[str, float | int | None]) -> World:
    """The first GPU of `world` with other numbers."""
    first, *rest = world.gpus
    return replace(world, gpus=(replace(first, values={**first.values, **values}), *rest))
