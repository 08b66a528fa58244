"""The metric catalogue: every metric the pipeline knows, once, as typed data.

Exposition (mock, exporter), the event, the database schema, the documentation and the tests iterate over `METRICS`;
nothing lists metrics a second time. A new metric is one row here and one migration.

Sources: field ids, names and meanings from NVIDIA's `dcgm_fields.h` (DCGM 4.6); HELP texts and kinds from
dcgm-exporter's counters files; NVML names from `nvml.h`; nvidia-smi paths from the XML of `nvidia-smi -q -x` (v12).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Kind(StrEnum):
    """How a value behaves over time."""

    GAUGE = "gauge"
    COUNTER = "counter"
    """Only grows; starts again at zero when the driver reloads or the GPU is reset."""
    PROPERTY = "property"
    """A limit or maximum of the device. Kept in the inventory (`gpus.properties`), not with every sample."""


class Unit(StrEnum):
    CELSIUS = "C"
    WATT = "W"
    MILLIJOULE = "mJ"
    MEGAHERTZ = "MHz"
    MEBIBYTE = "MiB"
    BYTES_PER_SECOND = "B/s"
    PERCENT = "%"
    RATIO = "ratio"
    """0 to 1."""
    NANOSECOND = "ns"
    COUNT = "count"
    CODE = "code"
    BITMASK = "bitmask"
    FLAG = "flag"
    """0 or 1."""


class SqlType(StrEnum):
    """PostgreSQL types; the narrowest that holds every value the source can give without rounding.

    `real` is enough for watts with three decimals and ratios with six: both come back from the database with the
    very digits that went in (float4 keeps six significant decimal digits; 3 decimals are kept up to 8,192 W).
    """

    SMALLINT = "smallint"
    INTEGER = "integer"
    BIGINT = "bigint"
    REAL = "real"

    @property
    def is_integer(self) -> bool:
        return self is not SqlType.REAL


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `column` is its name everywhere inside the pipeline; `dcgm` its name on the wire."""

    column: str
    unit: Unit
    kind: Kind
    sql: SqlType
    dcgm: str
    dcgm_id: int
    help: str
    low: float
    """Smallest valid value, inclusive."""
    high: float
    """Largest valid value, inclusive: wide enough for every GPU known, narrow enough to stop a sentinel."""
    dcgm_new: str | None = None
    """The name another DCGM release gives the same field id (mostly 4.6's new names); values are unchanged."""
    nvml: str | None = None
    smi: str | None = None
    default: bool = False
    """In dcgm-exporter's default counters file."""
    prof: bool = False
    """A profiling (DCP) field: data-centre Volta and newer only."""
    exported_kind: str | None = None
    """The TYPE dcgm-exporter declares, where it differs from `kind`."""

    @property
    def exposition_type(self) -> str:
        """TYPE on the wire: `gauge` or `counter`, as dcgm-exporter's counters file declares it."""
        return self.exported_kind or ("counter" if self.kind is Kind.COUNTER else "gauge")


_C, _G, _P = Kind.COUNTER, Kind.GAUGE, Kind.PROPERTY
_I2, _I4, _I8, _F4 = SqlType.SMALLINT, SqlType.INTEGER, SqlType.BIGINT, SqlType.REAL
_DEV, _PROF = "DCGM_FI_DEV_", "DCGM_FI_PROF_"
_COUNT_MAX = 2.0**53  # counters arrive as decimal text; above 2^53 only DCGM's blank values live (0x7ffffffffffffff0)

METRICS: Final[tuple[Metric, ...]] = (
    # Clocks. 5,000 MHz is above any SM clock; GDDR7 memory clocks reach 16,000 MHz.
    Metric("sm_clock", Unit.MEGAHERTZ, _G, _I2, _DEV + "SM_CLOCK", 100, "SM clock frequency (in MHz).", 0, 10_000,
           nvml="nvmlDeviceGetClockInfo(SM)", smi="clocks/sm_clock", default=True),
    Metric("mem_clock", Unit.MEGAHERTZ, _G, _I2, _DEV + "MEM_CLOCK", 101, "Memory clock frequency (in MHz).", 0, 30_000,
           nvml="nvmlDeviceGetClockInfo(MEM)", smi="clocks/mem_clock", default=True),
    Metric("clocks_event_reasons", Unit.BITMASK, _G, _I4, _DEV + "CLOCKS_EVENT_REASONS", 112,
           "Current clocks event reasons (bitmask).", 0, 2**31 - 1, dcgm_new=_DEV + "CLOCK_THROTTLE_REASONS",
           nvml="nvmlDeviceGetCurrentClocksEventReasons", smi="clocks_event_reasons"),
    Metric("pstate", Unit.CODE, _G, _I2, _DEV + "PSTATE", 190, "Performance state (P-State) 0-15, 0 is highest.", 0, 15,
           dcgm_new=_DEV + "GPU_PSTATE", nvml="nvmlDeviceGetPerformanceState", smi="performance_state"),
    # Temperature. Sensors go below zero in cold aisles; shutdown limits are below 130 C on every board.
    Metric("memory_temp", Unit.CELSIUS, _G, _I2, _DEV + "MEMORY_TEMP", 140, "Memory temperature (in C).", -40, 200,
           dcgm_new=_DEV + "MEMORY_TEMP_CELSIUS", nvml="nvmlDeviceGetFieldValues(MEMORY_TEMP)",
           smi="temperature/memory_temp", default=True),
    Metric("gpu_temp", Unit.CELSIUS, _G, _I2, _DEV + "GPU_TEMP", 150, "GPU temperature (in C).", -40, 200,
           dcgm_new=_DEV + "GPU_TEMP_CELSIUS", nvml="nvmlDeviceGetTemperature(GPU)",
           smi="temperature/gpu_temp", default=True),
    Metric("slowdown_temp", Unit.CELSIUS, _P, _I2, _DEV + "SLOWDOWN_TEMP", 158,
           "Slowdown temperature for the device (in C).", 0, 200, dcgm_new=_DEV + "GPU_TEMP_SLOWDOWN_CELSIUS",
           nvml="nvmlDeviceGetTemperatureThreshold(SLOWDOWN)", smi="temperature/gpu_temp_slow_threshold"),
    Metric("shutdown_temp", Unit.CELSIUS, _P, _I2, _DEV + "SHUTDOWN_TEMP", 159,
           "Shutdown temperature for the device (in C).", 0, 200, dcgm_new=_DEV + "GPU_TEMP_SHUTDOWN_CELSIUS",
           nvml="nvmlDeviceGetTemperatureThreshold(SHUTDOWN)", smi="temperature/gpu_temp_max_threshold"),
    Metric("fan_speed", Unit.PERCENT, _G, _I2, _DEV + "FAN_SPEED", 191, "Fan speed for the device (in %).", 0, 200,
           nvml="nvmlDeviceGetFanSpeed", smi="fan_speed"),
    # Power. A GB300 module may draw 1,400 W; 8,000 W is the limit of exact milliwatts in a real.
    Metric("power_usage", Unit.WATT, _G, _F4, _DEV + "POWER_USAGE", 155, "Power draw (in W).", 0, 8_000,
           dcgm_new=_DEV + "BOARD_POWER_WATTS", nvml="nvmlDeviceGetPowerUsage",
           smi="gpu_power_readings/power_draw", default=True),
    Metric("total_energy_consumption", Unit.MILLIJOULE, _C, _I8, _DEV + "TOTAL_ENERGY_CONSUMPTION", 156,
           "Total energy consumption since boot (in mJ).", 0, _COUNT_MAX,
           nvml="nvmlDeviceGetTotalEnergyConsumption", default=True),
    Metric("power_limit", Unit.WATT, _G, _F4, _DEV + "POWER_MGMT_LIMIT", 160,
           "Current power limit for the device (in W).", 0, 8_000, dcgm_new=_DEV + "BOARD_POWER_LIMIT_REQUESTED_WATTS",
           nvml="nvmlDeviceGetPowerManagementLimit", smi="gpu_power_readings/requested_power_limit"),
    # PCIe.
    Metric("pcie_replay_counter", Unit.COUNT, _C, _I8, _DEV + "PCIE_REPLAY_COUNTER", 202,
           "Total number of PCIe retries.", 0, _COUNT_MAX, dcgm_new=_DEV + "PCIE_REPLAY_TOTAL",
           nvml="nvmlDeviceGetPcieReplayCounter", smi="pci/replay_counter", default=True),
    Metric("pcie_max_link_gen", Unit.COUNT, _P, _I2, _DEV + "PCIE_MAX_LINK_GEN", 235, "PCIe max link generation.", 1,
           16, nvml="nvmlDeviceGetMaxPcieLinkGeneration", smi="pci/pci_gpu_link_info/pcie_gen/max_link_gen"),
    Metric("pcie_max_link_width", Unit.COUNT, _P, _I2, _DEV + "PCIE_MAX_LINK_WIDTH", 236, "PCIe max link width.", 1, 64,
           nvml="nvmlDeviceGetMaxPcieLinkWidth", smi="pci/pci_gpu_link_info/link_widths/max_link_width"),
    Metric("pcie_link_gen", Unit.COUNT, _G, _I2, _DEV + "PCIE_LINK_GEN", 237, "PCIe current link generation.", 0, 16,
           nvml="nvmlDeviceGetCurrPcieLinkGeneration", smi="pci/pci_gpu_link_info/pcie_gen/current_link_gen"),
    Metric("pcie_link_width", Unit.COUNT, _G, _I2, _DEV + "PCIE_LINK_WIDTH", 238, "PCIe current link width.", 0, 64,
           nvml="nvmlDeviceGetCurrPcieLinkWidth", smi="pci/pci_gpu_link_info/link_widths/current_link_width"),
    # Utilisation. DCGM 4.6 calls field 203 a ratio, the value is still a percentage.
    Metric("gpu_util", Unit.PERCENT, _G, _I2, _DEV + "GPU_UTIL", 203, "GPU utilization (in %).", 0, 100,
           dcgm_new=_DEV + "GPU_UTIL_RATIO", nvml="nvmlDeviceGetUtilizationRates.gpu",
           smi="utilization/gpu_util", default=True),
    Metric("mem_copy_util", Unit.PERCENT, _G, _I2, _DEV + "MEM_COPY_UTIL", 204, "Memory utilization (in %).", 0, 100,
           nvml="nvmlDeviceGetUtilizationRates.memory", smi="utilization/memory_util", default=True),
    Metric("enc_util", Unit.PERCENT, _G, _I2, _DEV + "ENC_UTIL", 206, "Encoder utilization (in %).", 0, 100,
           nvml="nvmlDeviceGetEncoderUtilization", smi="utilization/encoder_util", default=True),
    Metric("dec_util", Unit.PERCENT, _G, _I2, _DEV + "DEC_UTIL", 207, "Decoder utilization (in %).", 0, 100,
           nvml="nvmlDeviceGetDecoderUtilization", smi="utilization/decoder_util", default=True),
    # Errors and violations.
    Metric("xid_errors", Unit.CODE, _G, _I2, _DEV + "XID_ERRORS", 230, "Value of the last XID error encountered.", 0,
           1_000, dcgm_new=_DEV + "XID_ERROR", default=True),
    Metric("power_violation", Unit.NANOSECOND, _C, _I8, _DEV + "POWER_VIOLATION", 240,
           "Throttling duration due to power constraints (in ns).", 0, _COUNT_MAX,
           nvml="nvmlDeviceGetViolationStatus(POWER)"),
    Metric("thermal_violation", Unit.NANOSECOND, _C, _I8, _DEV + "THERMAL_VIOLATION", 241,
           "Throttling duration due to thermal constraints (in ns).", 0, _COUNT_MAX,
           nvml="nvmlDeviceGetViolationStatus(THERMAL)"),
    Metric("sync_boost_violation", Unit.NANOSECOND, _C, _I8, _DEV + "SYNC_BOOST_VIOLATION", 242,
           "Throttling duration due to sync-boost constraints (in ns).", 0, _COUNT_MAX,
           nvml="nvmlDeviceGetViolationStatus(SYNC_BOOST)"),
    Metric("board_limit_violation", Unit.NANOSECOND, _C, _I8, _DEV + "BOARD_LIMIT_VIOLATION", 243,
           "Throttling duration due to board limit constraints (in ns).", 0, _COUNT_MAX,
           nvml="nvmlDeviceGetViolationStatus(BOARD_LIMIT)"),
    Metric("low_util_violation", Unit.NANOSECOND, _C, _I8, _DEV + "LOW_UTIL_VIOLATION", 244,
           "Throttling duration due to low utilization (in ns).", 0, _COUNT_MAX,
           nvml="nvmlDeviceGetViolationStatus(LOW_UTILIZATION)"),
    Metric("reliability_violation", Unit.NANOSECOND, _C, _I8, _DEV + "RELIABILITY_VIOLATION", 245,
           "Throttling duration due to reliability constraints (in ns).", 0, _COUNT_MAX,
           nvml="nvmlDeviceGetViolationStatus(RELIABILITY)"),
    # Framebuffer. 2 TiB is above any board announced.
    Metric("fb_total", Unit.MEBIBYTE, _P, _I4, _DEV + "FB_TOTAL", 250, "Framebuffer memory total (in MiB).", 0,
           2_097_152, nvml="nvmlDeviceGetMemoryInfo_v2.total", smi="fb_memory_usage/total"),
    Metric("fb_free", Unit.MEBIBYTE, _G, _I4, _DEV + "FB_FREE", 251, "Framebuffer memory free (in MiB).", 0, 2_097_152,
           nvml="nvmlDeviceGetMemoryInfo_v2.free", smi="fb_memory_usage/free", default=True),
    Metric("fb_used", Unit.MEBIBYTE, _G, _I4, _DEV + "FB_USED", 252, "Framebuffer memory used (in MiB).", 0, 2_097_152,
           nvml="nvmlDeviceGetMemoryInfo_v2.used", smi="fb_memory_usage/used", default=True),
    Metric("fb_reserved", Unit.MEBIBYTE, _G, _I4, _DEV + "FB_RESERVED", 253, "Framebuffer memory reserved (in MiB).", 0,
           2_097_152, nvml="nvmlDeviceGetMemoryInfo_v2.reserved", smi="fb_memory_usage/reserved", default=True),
    # ECC, retired pages (before Ampere), remapped rows (Ampere and newer).
    Metric("ecc_sbe_vol_total", Unit.COUNT, _C, _I8, _DEV + "ECC_SBE_VOL_TOTAL", 310,
           "Total number of single-bit volatile ECC errors.", 0, _COUNT_MAX,
           nvml="nvmlDeviceGetTotalEccErrors(CORRECTED, VOLATILE)", smi="ecc_errors/volatile/*_correctable"),
    Metric("ecc_dbe_vol_total", Unit.COUNT, _C, _I8, _DEV + "ECC_DBE_VOL_TOTAL", 311,
           "Total number of double-bit volatile ECC errors.", 0, _COUNT_MAX,
           nvml="nvmlDeviceGetTotalEccErrors(UNCORRECTED, VOLATILE)", smi="ecc_errors/volatile/*_uncorrectable"),
    Metric("ecc_sbe_agg_total", Unit.COUNT, _C, _I8, _DEV + "ECC_SBE_AGG_TOTAL", 312,
           "Total number of single-bit persistent ECC errors.", 0, _COUNT_MAX,
           nvml="nvmlDeviceGetTotalEccErrors(CORRECTED, AGGREGATE)", smi="ecc_errors/aggregate/*_correctable"),
    Metric("ecc_dbe_agg_total", Unit.COUNT, _C, _I8, _DEV + "ECC_DBE_AGG_TOTAL", 313,
           "Total number of double-bit persistent ECC errors.", 0, _COUNT_MAX,
           nvml="nvmlDeviceGetTotalEccErrors(UNCORRECTED, AGGREGATE)", smi="ecc_errors/aggregate/*_uncorrectable"),
    Metric("retired_sbe", Unit.COUNT, _C, _I4, _DEV + "RETIRED_SBE", 390,
           "Total number of retired pages due to single-bit errors.", 0, 2**31 - 1,
           dcgm_new=_DEV + "PAGE_RETIRED_SBE_TOTAL",
           nvml="nvmlDeviceGetRetiredPages(SBE)", smi="retired_pages/multiple_single_bit_retirement/retired_count"),
    Metric("retired_dbe", Unit.COUNT, _C, _I4, _DEV + "RETIRED_DBE", 391,
           "Total number of retired pages due to double-bit errors.", 0, 2**31 - 1,
           dcgm_new=_DEV + "PAGE_RETIRED_DBE_TOTAL",
           nvml="nvmlDeviceGetRetiredPages(DBE)", smi="retired_pages/double_bit_retirement/retired_count"),
    Metric("retired_pending", Unit.COUNT, _G, _I4, _DEV + "RETIRED_PENDING", 392,
           "Total number of pages pending retirement.", 0, 2**31 - 1, dcgm_new=_DEV + "PAGE_RETIRED_PENDING",
           nvml="nvmlDeviceGetRetiredPagesPendingStatus", smi="retired_pages/pending_retirement",
           exported_kind="counter"),
    Metric("uncorrectable_remapped_rows", Unit.COUNT, _C, _I4, _DEV + "UNCORRECTABLE_REMAPPED_ROWS", 393,
           "Number of remapped rows for uncorrectable errors", 0, 2**31 - 1,
           dcgm_new=_DEV + "ROW_REMAP_UNCORRECTABLE_TOTAL", nvml="nvmlDeviceGetRemappedRows.uncRows",
           smi="remapped_rows/remapped_row_unc", default=True),
    Metric("correctable_remapped_rows", Unit.COUNT, _C, _I4, _DEV + "CORRECTABLE_REMAPPED_ROWS", 394,
           "Number of remapped rows for correctable errors", 0, 2**31 - 1,
           dcgm_new=_DEV + "ROW_REMAP_CORRECTABLE_TOTAL", nvml="nvmlDeviceGetRemappedRows.corrRows",
           smi="remapped_rows/remapped_row_corr", default=True),
    Metric("row_remap_failure", Unit.FLAG, _G, _I2, _DEV + "ROW_REMAP_FAILURE", 395,
           "Whether remapping of rows has failed", 0, 1, dcgm_new=_DEV + "ROW_REMAP_FAILED",
           nvml="nvmlDeviceGetRemappedRows.failureOccurred", smi="remapped_rows/remapped_row_failure", default=True),
    Metric("row_remap_pending", Unit.FLAG, _G, _I2, _DEV + "ROW_REMAP_PENDING", 396,
           "Whether remapping of rows is pending", 0, 1,
           nvml="nvmlDeviceGetRemappedRows.isPending", smi="remapped_rows/remapped_row_pending"),
    # NVLink. Field 449 is declared a counter by dcgm-exporter, behaves as a rate, and is kept as a gauge.
    Metric("nvlink_crc_flit_error_count", Unit.COUNT, _C, _I8, _DEV + "NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL", 409,
           "Total number of NVLink flow-control CRC errors.", 0, _COUNT_MAX,
           dcgm_new=_DEV + "NVLINK_CRC_FLIT_ERROR_TOTAL", nvml="nvmlDeviceGetNvLinkErrorCounter(CRC_FLIT)"),
    Metric("nvlink_crc_data_error_count", Unit.COUNT, _C, _I8, _DEV + "NVLINK_CRC_DATA_ERROR_COUNT_TOTAL", 419,
           "Total number of NVLink data CRC errors.", 0, _COUNT_MAX, dcgm_new=_DEV + "NVLINK_CRC_DATA_ERROR_TOTAL",
           nvml="nvmlDeviceGetNvLinkErrorCounter(CRC_DATA)"),
    Metric("nvlink_replay_error_count", Unit.COUNT, _C, _I8, _DEV + "NVLINK_REPLAY_ERROR_COUNT_TOTAL", 429,
           "Total number of NVLink retries.", 0, _COUNT_MAX, dcgm_new=_DEV + "NVLINK_REPLAY_ERROR_TOTAL",
           nvml="nvmlDeviceGetNvLinkErrorCounter(REPLAY)"),
    Metric("nvlink_recovery_error_count", Unit.COUNT, _C, _I8, _DEV + "NVLINK_RECOVERY_ERROR_COUNT_TOTAL", 439,
           "Total number of NVLink recovery errors.", 0, _COUNT_MAX, dcgm_new=_DEV + "NVLINK_RECOVERY_ERROR_TOTAL",
           nvml="nvmlDeviceGetNvLinkErrorCounter(RECOVERY)"),
    Metric("nvlink_bandwidth_total", Unit.COUNT, _G, _I8, _DEV + "NVLINK_BANDWIDTH_TOTAL", 449,
           "Total number of NVLink bandwidth counters for all lanes.", 0, _COUNT_MAX,
           dcgm_new=_DEV + "NVLINK_THROUGHPUT_TOTAL", default=True, exported_kind="counter"),
    Metric("vgpu_license_status", Unit.CODE, _G, _I2, _DEV + "VGPU_LICENSE_STATUS", 526, "vGPU License status", 0, 100,
           default=True),
    # Profiling (DCP): ratios 0-1, byte rates. PCIe 7 x16 moves 242 GB/s; 10 TB/s bounds NVLink generously.
    Metric("gr_engine_active", Unit.RATIO, _G, _F4, _PROF + "GR_ENGINE_ACTIVE", 1001,
           "Ratio of time the graphics engine is active.", 0, 1.0, dcgm_new=_PROF + "GR_ENGINE_UTIL_RATIO",
           default=True, prof=True),
    Metric("sm_active", Unit.RATIO, _G, _F4, _PROF + "SM_ACTIVE", 1002,
           "The ratio of cycles an SM has at least 1 warp assigned.", 0, 1.0, dcgm_new=_PROF + "SM_UTIL_RATIO",
           prof=True),
    Metric("sm_occupancy", Unit.RATIO, _G, _F4, _PROF + "SM_OCCUPANCY", 1003,
           "The ratio of number of warps resident on an SM.", 0, 1.0, dcgm_new=_PROF + "SM_OCCUPANCY_RATIO", prof=True),
    Metric("tensor_active", Unit.RATIO, _G, _F4, _PROF + "PIPE_TENSOR_ACTIVE", 1004,
           "Ratio of cycles the tensor (HMMA) pipe is active.", 0, 1.0, dcgm_new=_PROF + "TENSOR_UTIL_RATIO",
           default=True, prof=True),
    Metric("dram_active", Unit.RATIO, _G, _F4, _PROF + "DRAM_ACTIVE", 1005,
           "Ratio of cycles the device memory interface is active sending or receiving data.", 0, 1.0,
           dcgm_new=_PROF + "DRAM_UTIL_RATIO", default=True, prof=True),
    Metric("fp64_active", Unit.RATIO, _G, _F4, _PROF + "PIPE_FP64_ACTIVE", 1006,
           "Ratio of cycles the fp64 pipes are active.", 0, 1.0, dcgm_new=_PROF + "FP64_UTIL_RATIO", prof=True),
    Metric("fp32_active", Unit.RATIO, _G, _F4, _PROF + "PIPE_FP32_ACTIVE", 1007,
           "Ratio of cycles the fp32 pipes are active.", 0, 1.0, dcgm_new=_PROF + "FP32_UTIL_RATIO", prof=True),
    Metric("fp16_active", Unit.RATIO, _G, _F4, _PROF + "PIPE_FP16_ACTIVE", 1008,
           "Ratio of cycles the fp16 pipes are active.", 0, 1.0, dcgm_new=_PROF + "FP16_UTIL_RATIO", prof=True),
    Metric("pcie_tx_bytes", Unit.BYTES_PER_SECOND, _G, _I8, _PROF + "PCIE_TX_BYTES", 1009,
           "The rate of data transmitted over the PCIe bus - including both protocol headers and data payloads - "
           "in bytes per second.", 0, 1e13, default=True, prof=True),
    Metric("pcie_rx_bytes", Unit.BYTES_PER_SECOND, _G, _I8, _PROF + "PCIE_RX_BYTES", 1010,
           "The rate of data received over the PCIe bus - including both protocol headers and data payloads - "
           "in bytes per second.", 0, 1e13, default=True, prof=True),
    Metric("nvlink_tx_bytes", Unit.BYTES_PER_SECOND, _G, _I8, _PROF + "NVLINK_TX_BYTES", 1011,
           "The rate of data transmitted over NVLink, not including protocol headers, in bytes per second.", 0, 1e13,
           prof=True),
    Metric("nvlink_rx_bytes", Unit.BYTES_PER_SECOND, _G, _I8, _PROF + "NVLINK_RX_BYTES", 1012,
           "The rate of data received over NVLink, not including protocol headers, in bytes per second.", 0, 1e13,
           prof=True),
)  # fmt: skip

SAMPLED: Final[tuple[Metric, ...]] = tuple(m for m in METRICS if m.kind is not Kind.PROPERTY)
"""Metrics with a column in `gpu_metrics`, in column order."""
PROPERTIES: Final[tuple[Metric, ...]] = tuple(m for m in METRICS if m.kind is Kind.PROPERTY)
"""Metrics kept per GPU in `gpus.properties`."""
COUNTERS: Final[tuple[Metric, ...]] = tuple(m for m in METRICS if m.kind is Kind.COUNTER)

BY_COLUMN: Final = MappingProxyType({m.column: m for m in METRICS})
BY_DCGM_NAME: Final = MappingProxyType({name: m for m in METRICS for name in (m.dcgm, m.dcgm_new) if name is not None})
"""Wire name -> metric, old and new (DCGM 4.6) names alike."""

LABEL_FIELDS: Final = MappingProxyType(
    {
        "DCGM_FI_DRIVER_VERSION": "driver_version",
        "DCGM_FI_SYSTEM_DRIVER_VERSION": "driver_version",
        "DCGM_FI_DEV_VBIOS_VERSION": "vbios_version",
        "DCGM_FI_DEV_SERIAL": "serial",
        "DCGM_FI_DEV_BOARD_SERIAL": "serial",
        "DCGM_FI_DEV_BRAND": "brand",
        "DCGM_FI_DEV_GPU_BRAND": "brand",
        "DCGM_FI_NVML_VERSION": "nvml_version",
        "DCGM_FI_SYSTEM_NVML_VERSION": "nvml_version",
    }
)
"""Fields that dcgm-exporter turns into labels on every series, and the inventory column each belongs to."""
