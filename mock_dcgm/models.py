"""The GPU models the mock knows: limits read off real boards, and what each board does not report.

Sources, cited per model below:
  [q]     `nvidia-smi -q` or `-q -x` of a real board of that model (limits, clocks, memory, thresholds, idle power);
  [exp]   `/metrics` of a real dcgm-exporter on that model;
  [sheet] NVIDIA's data sheet;
  [trace] 100 ms telemetry of eight H100 over five-minute runs: least-squares fit of temperature on low-passed power
          (0.06 C/W in all, of which 0.023 C/W within a second, the rest in 15 to 30 s), 71 W idle, 120 W held;
  [kalos] distributions of A100 power and temperature in a production cluster (AcmeTrace, CC BY 4.0);
  [est]   no measurement at hand: an engineering estimate, consistent with the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from services.contract.catalogue import METRICS


@dataclass(frozen=True, slots=True)
class GpuModel:
    """One board. Power in W, temperature in C, clocks in MHz, memory in MiB."""

    key: str
    name: str
    """The product name, `modelName` on the wire."""
    driver: str
    memory_total: int
    memory_reserved: int
    power_limit: float
    power_limit_min: float
    power_idle: float
    """No process on the GPU, clocks down."""
    power_context: float
    """A process holds the GPU and does nothing: clocks up."""
    power_peak: float
    """What full load would draw at full clock if no limit stood against it: above the limit, the cap throttles."""
    sm_clock_idle: int
    sm_clock_max: int
    mem_clock_idle: int
    mem_clock_max: int
    max_operating_temp: int
    """Above it software lowers the clocks."""
    slowdown_temp: int
    """Above it hardware lowers the clocks, hard."""
    shutdown_temp: int
    resistance_die: float
    """C/W from die to heat sink."""
    resistance_sink: float
    """C/W from heat sink to intake air."""
    tau_die: float
    """Seconds."""
    tau_sink: float
    """Seconds."""
    pcie_gen: int
    lacks: frozenset[str]
    """Catalogue columns this board does not report; they are absent from the exposition, never 0."""
    pcie_width: int = 16
    memory_temp: tuple[float, float] | None = None
    """(offset C, slope): memory temperature = offset + slope x heat-sink temperature."""
    nvlinks: int = 0
    nvlink_link_rate: float = 0.0
    """Bytes per second and direction of one link."""
    mig_profiles: tuple[str, ...] = ()
    row_remapping: bool = False
    """Ampere and newer remap rows; older boards retire pages."""


_PROF = frozenset(m.column for m in METRICS if m.prof)
_NVLINK = frozenset(m.column for m in METRICS if m.column.startswith("nvlink_"))
_ROW_REMAP = frozenset(
    {"uncorrectable_remapped_rows", "correctable_remapped_rows", "row_remap_failure", "row_remap_pending"}
)
_RETIRED_PAGES = frozenset({"retired_sbe", "retired_dbe", "retired_pending"})
_PASSIVE = frozenset({"fan_speed"})  # every board here is cooled by the chassis: [q] says N/A on all five

P40: Final = GpuModel(
    key="P40",
    name="Tesla P40",
    driver="535.129.03",  # [q]
    memory_total=23_040,  # 24,576 with ECC off [q]; ECC, on as delivered, takes one sixteenth of GDDR5
    memory_reserved=0,  # [q]
    power_limit=250.0,  # [q]
    power_limit_min=125.0,  # [q]
    power_idle=10.0,  # [est] P8
    power_context=52.5,  # [q] P0, 1 % utilisation
    power_peak=255.0,  # [est] gpu-burn just reaches the limit
    sm_clock_idle=544,  # [q]
    sm_clock_max=1_531,  # [q]
    mem_clock_idle=405,  # [est] P8
    mem_clock_max=3_615,  # [q]
    max_operating_temp=90,  # [est] [q] gives none; software must act below slowdown
    slowdown_temp=92,  # [q]
    shutdown_temp=95,  # [q]
    resistance_die=0.05,  # [est]
    resistance_sink=0.17,  # [est] 250 W in 25 C air: 80 C
    tau_die=2.0,  # [est]
    tau_sink=60.0,  # [est] heavy passive sink, slow server air
    pcie_gen=3,  # [q]
    lacks=_PROF | _NVLINK | _ROW_REMAP | _PASSIVE | {"memory_temp", "total_energy_consumption"},
    # Energy: NVML gives it from Volta on. Profiling: Volta on. No sensor in GDDR5.
)

T4: Final = GpuModel(
    key="T4",
    name="Tesla T4",
    driver="580.105.08",  # [exp]
    memory_total=15_360,  # [q]
    memory_reserved=447,  # [exp]
    power_limit=70.0,  # [q]
    power_limit_min=60.0,  # [q]
    power_idle=14.5,  # [exp]
    power_context=26.8,  # [q]
    power_peak=125.0,  # [est] from [exp]: at 68 W under load the clock is down to 660 of 1,590 MHz
    sm_clock_idle=300,  # [exp]
    sm_clock_max=1_590,  # [q]
    mem_clock_idle=405,  # [exp]
    mem_clock_max=5_000,  # [exp] 5,001 as a maximum in [q]
    max_operating_temp=85,  # [q]
    slowdown_temp=93,  # [q]
    shutdown_temp=96,  # [q]
    resistance_die=0.15,  # [est]
    resistance_sink=0.50,  # [exp] 74 C at 68 W, 24 C at 14.5 W
    tau_die=1.5,  # [est]
    tau_sink=40.0,  # [est]
    pcie_gen=3,  # [q]
    lacks=_NVLINK | _ROW_REMAP | _PASSIVE | {"memory_temp"},
    # A real exporter prints MEMORY_TEMP 0 here [exp]: a sensor that is not there. The mock leaves it out.
)

A100: Final = GpuModel(
    key="A100",
    name="NVIDIA A100-SXM4-80GB",
    driver="535.54.03",  # [q]
    memory_total=81_920,  # [q]
    memory_reserved=869,  # [q]
    power_limit=400.0,  # [sheet]; [kalos] p90 404 W
    power_limit_min=100.0,  # [q]
    power_idle=62.0,  # [kalos] p5; 67 W in [q]
    power_context=90.0,  # [kalos] p35
    power_peak=440.0,  # [est] dense training reaches the limit, and draws 410 W in [exp]
    sm_clock_idle=210,  # [est]
    sm_clock_max=1_410,  # [q]
    mem_clock_idle=1_593,  # [q] HBM does not clock down
    mem_clock_max=1_593,
    max_operating_temp=85,  # [q]
    slowdown_temp=89,  # [q]
    shutdown_temp=92,  # [q]
    resistance_die=0.033,  # split as [trace]
    resistance_sink=0.045,  # [kalos] 27 C at 63 W (p10), 58 C at 404 W (p90)
    tau_die=1.0,  # [trace], same class of board
    tau_sink=25.0,  # [trace], same class of board
    pcie_gen=4,  # [q]
    memory_temp=(19.5, 0.85),  # [kalos] memory 40 C where the GPU is at 25 C (p5), 64 C where it is at 62 C (p95)
    nvlinks=12,  # [sheet]
    nvlink_link_rate=25e9,  # [sheet]
    mig_profiles=("1g.10gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"),
    row_remapping=True,
    lacks=_RETIRED_PAGES | _PASSIVE,
)

H100: Final = GpuModel(
    key="H100",
    name="NVIDIA H100 80GB HBM3",
    driver="580.105.08",  # [q]
    memory_total=81_559,  # [q]
    memory_reserved=480,  # [q]
    power_limit=700.0,  # [q]
    power_limit_min=200.0,  # [q]
    power_idle=70.0,  # [q] 69.85 W
    power_context=120.0,  # [trace]
    power_peak=780.0,  # [trace] training capped at 692 W in nine samples of ten
    sm_clock_idle=345,  # [q]
    sm_clock_max=1_980,  # [q]
    mem_clock_idle=2_619,  # [q]
    mem_clock_max=2_619,
    max_operating_temp=87,  # [q] 41 C with a T.Limit margin of 46 C
    slowdown_temp=89,  # [q] margin -2 C
    shutdown_temp=95,  # [q] margin -8 C
    resistance_die=0.023,  # [trace]
    resistance_sink=0.039,  # [trace]
    tau_die=1.0,  # [trace]
    tau_sink=20.0,  # [trace]
    pcie_gen=5,  # [q]
    memory_temp=(32.0, 0.40),  # [q] 48 C at 41 C, 55 C at 59 C
    nvlinks=18,  # [sheet]
    nvlink_link_rate=25e9,  # [sheet]
    mig_profiles=("1g.10gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"),
    row_remapping=True,
    lacks=_RETIRED_PAGES | _PASSIVE,
)

H200: Final = GpuModel(
    key="H200",
    name="NVIDIA H200",
    driver="590.48.01",  # [q]
    memory_total=143_771,  # [q]
    memory_reserved=614,  # [q]
    power_limit=700.0,  # [q]
    power_limit_min=200.0,  # [q]
    power_idle=77.7,  # [q]
    power_context=125.0,  # [est] H100 plus the larger memory
    power_peak=780.0,  # [trace] of H100
    sm_clock_idle=345,  # [q]
    sm_clock_max=1_980,  # [q]
    mem_clock_idle=3_201,  # [q]
    mem_clock_max=3_201,
    max_operating_temp=87,  # [q] 28 C with a margin of 59 C
    slowdown_temp=89,  # [q]
    shutdown_temp=95,  # [q]
    resistance_die=0.020,  # split as [trace]
    resistance_sink=0.032,  # [q] 28 C at 78 W, 54 C and rising at 630 W
    tau_die=1.0,  # [trace] of H100
    tau_sink=20.0,  # [trace] of H100
    pcie_gen=5,  # [q]
    memory_temp=(21.0, 0.42),  # [q] 32 C at 28 C, 42 C at 54 C
    nvlinks=18,  # [sheet]
    nvlink_link_rate=25e9,  # [sheet]
    mig_profiles=("1g.18gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb"),
    row_remapping=True,
    lacks=_RETIRED_PAGES | _PASSIVE,
)

MODELS: Final = MappingProxyType({m.key: m for m in (P40, T4, A100, H100, H200)})


def mig_slices(profile: str) -> int:
    """Compute slices of a MIG profile: `mig_slices("3g.40gb") == 3`."""
    return int(profile.partition("g.")[0])


def mig_gigabytes(profile: str) -> int:
    """Framebuffer of a MIG profile as its name says, in GB: `mig_gigabytes("3g.40gb") == 40`."""
    return int(profile.partition(".")[2].removesuffix("gb"))


def mig_memory(model: GpuModel, profile: str) -> int:
    """Framebuffer of a MIG instance in MiB: its share of the board's (the largest profile is the whole board)."""
    return model.memory_total * mig_gigabytes(profile) // mig_gigabytes(model.mig_profiles[-1])
