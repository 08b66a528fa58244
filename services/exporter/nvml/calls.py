"""Which NVML call gives which column of the catalogue. A table, and a second one for what one call gives many of.

Where two ways exist, the first is tried once per GPU; if the GPU or its driver has it not, `instead` takes its place.
The values are NVML's own (milliwatts, bytes); `nvml_values` brings them into the catalogue's units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pynvml

Handle = Any
"""An nvmlDevice_t of pynvml: an opaque ctypes pointer."""


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One function of NVML and the columns it fills, in the order in which `read` gives them."""

    function: str
    columns: tuple[str, ...]
    read: Callable[[Handle], tuple[int, ...]]
    """Raises NVMLError."""
    static: bool = False
    """Does not change while the driver is loaded: asked once."""
    instead: Call | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One id of nvmlDeviceGetFieldValues."""

    field_id: int
    column: str
    instead: Call | None = None


def _one(function: str, column: str, *arguments: int, static: bool = False, instead: Call | None = None) -> Call:
    """A getter that gives one number. The function is looked up when it is called: an old pynvml may lack it."""
    return Call(function, (column,), lambda h: (getattr(pynvml, function)(h, *arguments),), static, instead)


def _ecc(column: str, kind: int, counter: int) -> Call:
    return _one("nvmlDeviceGetTotalEccErrors", column, kind, counter)


def _retired(column: str, cause: int) -> Call:
    return Call("nvmlDeviceGetRetiredPages", (column,), lambda h: (len(pynvml.nvmlDeviceGetRetiredPages(h, cause)),))


def _violation(column: str, policy: int) -> Call:
    """Nanoseconds, as DCGM reads them."""

    def read(handle: Handle) -> tuple[int, ...]:
        return (pynvml.nvmlDeviceGetViolationStatus(handle, policy).violationTime,)

    return Call("nvmlDeviceGetViolationStatus", (column,), read)


def _memory(handle: Handle) -> tuple[int, ...]:
    info = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    return (info.total, info.free, info.used, info.reserved)


def _memory_v1(handle: Handle) -> tuple[int, ...]:
    """Drivers before 510: what the driver keeps for itself is in `used`, as their nvidia-smi shows it as well."""
    info = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return (info.total, info.free, info.used)


def _utilisation(handle: Handle) -> tuple[int, ...]:
    rates = pynvml.nvmlDeviceGetUtilizationRates(handle)
    return (rates.gpu, rates.memory)


def _codec(function: str, column: str) -> Call:
    """NVML gives the sampling period as well."""
    return Call(function, (column,), lambda h: (getattr(pynvml, function)(h)[0],))


def _nvlink_errors(handle: Handle) -> tuple[int, ...]:
    """Sums over the active links; drivers that give totals are asked for those instead."""
    links = _active_links(handle)
    if not links:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return tuple(
        sum(pynvml.nvmlDeviceGetNvLinkErrorCounter(handle, link, counter) for link in links)
        for _, counter, _ in _NVLINK
    )


def _active_links(handle: Handle) -> list[int]:
    links = []
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        try:
            if pynvml.nvmlDeviceGetNvLinkState(handle, link):
                links.append(link)
        except pynvml.NVMLError_InvalidArgument:  # behind the last one this GPU has
            break
    return links


_NVLINK: Final = (
    (
        "nvlink_crc_flit_error_count",
        pynvml.NVML_NVLINK_ERROR_DL_CRC_FLIT,
        pynvml.NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL,
    ),
    (
        "nvlink_crc_data_error_count",
        pynvml.NVML_NVLINK_ERROR_DL_CRC_DATA,
        pynvml.NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL,
    ),
    (
        "nvlink_replay_error_count",
        pynvml.NVML_NVLINK_ERROR_DL_REPLAY,
        pynvml.NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL,
    ),
    (
        "nvlink_recovery_error_count",
        pynvml.NVML_NVLINK_ERROR_DL_RECOVERY,
        pynvml.NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL,
    ),
)
"""Column, counter of one link, field id of the sum over all."""
_NVLINK_BY_LINK: Final = Call(
    "nvmlDeviceGetNvLinkErrorCounter", tuple(column for column, _, _ in _NVLINK), _nvlink_errors
)
_CORRECTED, _UNCORRECTED = pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
_VOLATILE, _AGGREGATE = pynvml.NVML_VOLATILE_ECC, pynvml.NVML_AGGREGATE_ECC

FIELDS: Final[tuple[Field, ...]] = (
    Field(pynvml.NVML_FI_DEV_MEMORY_TEMP, "memory_temp"),
    Field(
        pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION,
        "total_energy_consumption",
        _one("nvmlDeviceGetTotalEnergyConsumption", "total_energy_consumption"),
    ),
    Field(
        pynvml.NVML_FI_DEV_PCIE_REPLAY_COUNTER,
        "pcie_replay_counter",
        _one("nvmlDeviceGetPcieReplayCounter", "pcie_replay_counter"),
    ),
    Field(pynvml.NVML_FI_DEV_ECC_SBE_VOL_TOTAL, "ecc_sbe_vol_total", _ecc("ecc_sbe_vol_total", _CORRECTED, _VOLATILE)),
    Field(
        pynvml.NVML_FI_DEV_ECC_DBE_VOL_TOTAL, "ecc_dbe_vol_total", _ecc("ecc_dbe_vol_total", _UNCORRECTED, _VOLATILE)
    ),
    Field(pynvml.NVML_FI_DEV_ECC_SBE_AGG_TOTAL, "ecc_sbe_agg_total", _ecc("ecc_sbe_agg_total", _CORRECTED, _AGGREGATE)),
    Field(
        pynvml.NVML_FI_DEV_ECC_DBE_AGG_TOTAL, "ecc_dbe_agg_total", _ecc("ecc_dbe_agg_total", _UNCORRECTED, _AGGREGATE)
    ),
    Field(
        pynvml.NVML_FI_DEV_RETIRED_SBE,
        "retired_sbe",
        _retired("retired_sbe", pynvml.NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS),
    ),
    Field(
        pynvml.NVML_FI_DEV_RETIRED_DBE,
        "retired_dbe",
        _retired("retired_dbe", pynvml.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR),
    ),
    Field(
        pynvml.NVML_FI_DEV_RETIRED_PENDING,
        "retired_pending",
        _one("nvmlDeviceGetRetiredPagesPendingStatus", "retired_pending"),
    ),
    *(Field(field_id, column, _NVLINK_BY_LINK) for column, _, field_id in _NVLINK),
)
"""All of them in one call of nvmlDeviceGetFieldValues."""

_MEMORY_V1: Final = Call("nvmlDeviceGetMemoryInfo", ("fb_total", "fb_free", "fb_used"), _memory_v1)
MEMORY: Final = Call(
    "nvmlDeviceGetMemoryInfo_v2", ("fb_total", "fb_free", "fb_used", "fb_reserved"), _memory, instead=_MEMORY_V1
)
"""Of a GPU or of a MIG device."""

CALLS: Final[tuple[Call, ...]] = (
    _one("nvmlDeviceGetClockInfo", "sm_clock", pynvml.NVML_CLOCK_SM),
    _one("nvmlDeviceGetClockInfo", "mem_clock", pynvml.NVML_CLOCK_MEM),
    _one(
        "nvmlDeviceGetCurrentClocksEventReasons",
        "clocks_event_reasons",
        instead=_one("nvmlDeviceGetCurrentClocksThrottleReasons", "clocks_event_reasons"),  # its name before 535
    ),
    _one("nvmlDeviceGetPerformanceState", "pstate"),
    _one(
        "nvmlDeviceGetTemperature",
        "gpu_temp",
        pynvml.NVML_TEMPERATURE_GPU,
        instead=_one("nvmlDeviceGetTemperatureV", "gpu_temp", pynvml.NVML_TEMPERATURE_GPU),  # its successor, from 570
    ),
    _one("nvmlDeviceGetTemperatureThreshold", "slowdown_temp", pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN, static=True),
    _one("nvmlDeviceGetTemperatureThreshold", "shutdown_temp", pynvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN, static=True),
    _one("nvmlDeviceGetFanSpeed", "fan_speed"),
    _one("nvmlDeviceGetPowerUsage", "power_usage"),
    _one("nvmlDeviceGetPowerManagementLimit", "power_limit"),
    _one("nvmlDeviceGetMaxPcieLinkGeneration", "pcie_max_link_gen", static=True),
    _one("nvmlDeviceGetMaxPcieLinkWidth", "pcie_max_link_width", static=True),
    _one("nvmlDeviceGetCurrPcieLinkGeneration", "pcie_link_gen"),
    _one("nvmlDeviceGetCurrPcieLinkWidth", "pcie_link_width"),
    Call("nvmlDeviceGetUtilizationRates", ("gpu_util", "mem_copy_util"), _utilisation),
    _codec("nvmlDeviceGetEncoderUtilization", "enc_util"),
    _codec("nvmlDeviceGetDecoderUtilization", "dec_util"),
    _violation("power_violation", pynvml.NVML_PERF_POLICY_POWER),
    _violation("thermal_violation", pynvml.NVML_PERF_POLICY_THERMAL),
    _violation("sync_boost_violation", pynvml.NVML_PERF_POLICY_SYNC_BOOST),
    _violation("board_limit_violation", pynvml.NVML_PERF_POLICY_BOARD_LIMIT),
    _violation("low_util_violation", pynvml.NVML_PERF_POLICY_LOW_UTILIZATION),
    _violation("reliability_violation", pynvml.NVML_PERF_POLICY_RELIABILITY),
    MEMORY,
    Call(
        "nvmlDeviceGetRemappedRows",
        ("correctable_remapped_rows", "uncorrectable_remapped_rows", "row_remap_pending", "row_remap_failure"),
        lambda h: tuple(pynvml.nvmlDeviceGetRemappedRows(h)),
    ),
)
