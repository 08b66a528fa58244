"""The C functions of the stand-in for NVML (`fake_nvml`), each with the argument types of `nvml.h`."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from ctypes import POINTER, c_char, c_int32, c_uint, c_ulonglong, c_void_p
from typing import Any, Final

import pynvml

from tests.support.fake_nvml import (
    _GPM,
    _HANDLE_P,
    _HANDLE_STEP,
    _NO_INSTANCE,
    _SIGNATURES,
    MIB,
    OK,
    FakeGpu,
    FakeNvml,
    NvmlAnswer,
    _c,
    _give,
    _Mig,
    _native,
)

_TEXT: Final = POINTER(c_char)
_UINT_P: Final = POINTER(c_uint)
_ULL_P: Final = POINTER(c_ulonglong)

_FIELD_COLUMNS: Final = {
    pynvml.NVML_FI_DEV_ECC_SBE_VOL_TOTAL: "ecc_sbe_vol_total",
    pynvml.NVML_FI_DEV_ECC_DBE_VOL_TOTAL: "ecc_dbe_vol_total",
    pynvml.NVML_FI_DEV_ECC_SBE_AGG_TOTAL: "ecc_sbe_agg_total",
    pynvml.NVML_FI_DEV_ECC_DBE_AGG_TOTAL: "ecc_dbe_agg_total",
    pynvml.NVML_FI_DEV_RETIRED_SBE: "retired_sbe",
    pynvml.NVML_FI_DEV_RETIRED_DBE: "retired_dbe",
    pynvml.NVML_FI_DEV_RETIRED_PENDING: "retired_pending",
    pynvml.NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL: "nvlink_crc_flit_error_count",
    pynvml.NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL: "nvlink_crc_data_error_count",
    pynvml.NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL: "nvlink_replay_error_count",
    pynvml.NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL: "nvlink_recovery_error_count",
    pynvml.NVML_FI_DEV_MEMORY_TEMP: "memory_temp",
    pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION: "total_energy_consumption",
    pynvml.NVML_FI_DEV_PCIE_REPLAY_COUNTER: "pcie_replay_counter",
}
_UINT_FIELDS: Final = ("memory_temp", "retired_sbe", "retired_dbe", "retired_pending", "pcie_replay_counter")
_UINT_GETTERS: Final = {
    "nvmlDeviceGetFanSpeed": "fan_speed",
    "nvmlDeviceGetPerformanceState": "pstate",
    "nvmlDeviceGetPowerUsage": "power_usage",
    "nvmlDeviceGetPowerManagementLimit": "power_limit",
    "nvmlDeviceGetPcieReplayCounter": "pcie_replay_counter",
    "nvmlDeviceGetMaxPcieLinkGeneration": "pcie_max_link_gen",
    "nvmlDeviceGetMaxPcieLinkWidth": "pcie_max_link_width",
    "nvmlDeviceGetCurrPcieLinkGeneration": "pcie_link_gen",
    "nvmlDeviceGetCurrPcieLinkWidth": "pcie_link_width",
    "nvmlDeviceGetRetiredPagesPendingStatus": "retired_pending",
}
_ULL_GETTERS: Final = {
    "nvmlDeviceGetTotalEnergyConsumption": "total_energy_consumption",
    "nvmlDeviceGetCurrentClocksEventReasons": "clocks_event_reasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons": "clocks_event_reasons",
}
_VIOLATIONS: Final = {
    pynvml.NVML_PERF_POLICY_POWER: "power_violation",
    pynvml.NVML_PERF_POLICY_THERMAL: "thermal_violation",
    pynvml.NVML_PERF_POLICY_SYNC_BOOST: "sync_boost_violation",
    pynvml.NVML_PERF_POLICY_BOARD_LIMIT: "board_limit_violation",
    pynvml.NVML_PERF_POLICY_LOW_UTILIZATION: "low_util_violation",
    pynvml.NVML_PERF_POLICY_RELIABILITY: "reliability_violation",
}
_NVLINK: Final = {
    pynvml.NVML_NVLINK_ERROR_DL_CRC_FLIT: "nvlink_crc_flit_error_count",
    pynvml.NVML_NVLINK_ERROR_DL_CRC_DATA: "nvlink_crc_data_error_count",
    pynvml.NVML_NVLINK_ERROR_DL_REPLAY: "nvlink_replay_error_count",
    pynvml.NVML_NVLINK_ERROR_DL_RECOVERY: "nvlink_recovery_error_count",
}
_NVLINKS: Final = 4
"""Active links of a GPU that has NVLink; its errors are all on the first."""


def _put(buffer: Any, length: int, text: str | None) -> None:
    if text is None:
        raise NvmlAnswer(pynvml.NVML_ERROR_NOT_SUPPORTED)
    data = text.encode() + b"\0"
    if len(data) > length:
        raise NvmlAnswer(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
    ctypes.memmove(buffer, data, len(data))


@_c("nvmlInitWithFlags", c_uint)
def _init(nvml: FakeNvml, _flags: int) -> None:
    nvml.attach()


@_c("nvmlShutdown")
def _shutdown(nvml: FakeNvml) -> None:
    nvml.detach()


_SIGNATURES["nvmlErrorString"] = ((c_uint,), lambda *_: None)


@_c("nvmlSystemGetDriverVersion", _TEXT, c_uint)
def _driver_version(nvml: FakeNvml, buffer: Any, length: int) -> None:
    _put(buffer, length, nvml.driver_version)


@_c("nvmlSystemGetNVMLVersion", _TEXT, c_uint)
def _nvml_version(nvml: FakeNvml, buffer: Any, length: int) -> None:
    _put(buffer, length, nvml.nvml_version)


@_c("nvmlDeviceGetCount_v2", _UINT_P)
def _count(nvml: FakeNvml, count: Any) -> None:
    count[0] = len(nvml._attached)


@_c("nvmlDeviceGetHandleByIndex_v2", c_uint, _HANDLE_P)
def _by_index(nvml: FakeNvml, index: int, handle: Any) -> None:
    if index >= len(nvml._attached):
        raise NvmlAnswer(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    gpu = nvml._attached[index]
    if gpu.handle_error is not None:
        raise NvmlAnswer(gpu.handle_error)
    nvml._alive(gpu)
    _give(handle, nvml._handle(gpu))


def _text_getter(name: str, text: Callable[[FakeGpu], str | None]) -> None:
    @_c(name, c_void_p, _TEXT, c_uint)
    def answer(nvml: FakeNvml, handle: int, buffer: Any, length: int) -> None:
        _put(buffer, length, text(nvml.gpu_of(handle, name)))


_text_getter("nvmlDeviceGetSerial", lambda gpu: gpu.serial)
_text_getter("nvmlDeviceGetVbiosVersion", lambda gpu: gpu.vbios)


@_c("nvmlDeviceGetUUID", c_void_p, _TEXT, c_uint)
def _uuid(nvml: FakeNvml, handle: int, buffer: Any, length: int) -> None:
    what = nvml._what(handle, "nvmlDeviceGetUUID")
    own = what.uuid if isinstance(what, FakeGpu) else f"MIG-{what.instance.id}-{what.compute}-{what.gpu.uuid[4:]}"
    _put(buffer, length, own)


@_c("nvmlDeviceGetName", c_void_p, _TEXT, c_uint)
def _name(nvml: FakeNvml, handle: int, buffer: Any, length: int) -> None:
    what = nvml._what(handle, "nvmlDeviceGetName")
    if isinstance(what, FakeGpu):
        return _put(buffer, length, what.name)
    shared = f"{what.compute + 1}c." if what.instance.compute_instances > 1 else ""
    return _put(buffer, length, f"{what.gpu.name} MIG {shared}{what.instance.profile}" if what.instance.named else "")


@_c("nvmlDeviceGetBrand", c_void_p, _UINT_P)
def _brand(nvml: FakeNvml, handle: int, brand: Any) -> None:
    own = nvml.gpu_of(handle, "nvmlDeviceGetBrand").brand
    if own is None:
        raise NvmlAnswer(pynvml.NVML_ERROR_NOT_SUPPORTED)
    brand[0] = own


@_c("nvmlDeviceGetPciInfo_v3", c_void_p, POINTER(pynvml.nvmlPciInfo_t))
def _pci(nvml: FakeNvml, handle: int, info: Any) -> None:
    gpu = nvml.gpu_of(handle, "nvmlDeviceGetPciInfo_v3")
    info[0].busId = gpu.pci_bus_id.encode()
    info[0].busIdLegacy = gpu.pci_bus_id[4:].encode()


def _number_getter(name: str, column: str, pointer: Any) -> None:
    @_c(name, c_void_p, pointer)
    def answer(nvml: FakeNvml, handle: int, value: Any) -> None:
        value[0] = nvml.value(nvml.gpu_of(handle, name), column)


for _function, _column in _UINT_GETTERS.items():
    _number_getter(_function, _column, _UINT_P)
for _function, _column in _ULL_GETTERS.items():
    _number_getter(_function, _column, _ULL_P)


def _choice_getter(name: str, columns: dict[int, str]) -> None:
    """Getters with an enumerator between handle and value."""

    @_c(name, c_void_p, c_uint, _UINT_P)
    def answer(nvml: FakeNvml, handle: int, which: int, value: Any) -> None:
        gpu = nvml.gpu_of(handle, name)
        if which not in columns:
            raise NvmlAnswer(pynvml.NVML_ERROR_NOT_SUPPORTED)
        value[0] = nvml.value(gpu, columns[which])


_choice_getter("nvmlDeviceGetClockInfo", {pynvml.NVML_CLOCK_SM: "sm_clock", pynvml.NVML_CLOCK_MEM: "mem_clock"})
_choice_getter("nvmlDeviceGetTemperature", {pynvml.NVML_TEMPERATURE_GPU: "gpu_temp"})
_choice_getter(
    "nvmlDeviceGetTemperatureThreshold",
    {
        pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN: "slowdown_temp",
        pynvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN: "shutdown_temp",
    },
)


@_c("nvmlDeviceGetTemperatureV", c_void_p, POINTER(pynvml.c_nvmlTemperature_v1_t))
def _temperature_v(nvml: FakeNvml, handle: int, info: Any) -> None:
    gpu = nvml.gpu_of(handle, "nvmlDeviceGetTemperatureV")
    if info[0].version != pynvml.nvmlTemperature_v1:
        raise NvmlAnswer(pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH)
    info[0].temperature = nvml.value(gpu, "gpu_temp")


@_c("nvmlDeviceGetUtilizationRates", c_void_p, POINTER(pynvml.c_nvmlUtilization_t))
def _utilisation(nvml: FakeNvml, handle: int, rates: Any) -> None:
    gpu = nvml.gpu_of(handle, "nvmlDeviceGetUtilizationRates")
    rates[0].gpu = nvml.value(gpu, "gpu_util")
    rates[0].memory = nvml.value(gpu, "mem_copy_util")


def _codec_getter(name: str, column: str) -> None:
    @_c(name, c_void_p, _UINT_P, _UINT_P)
    def answer(nvml: FakeNvml, handle: int, value: Any, period: Any) -> None:
        value[0] = nvml.value(nvml.gpu_of(handle, name), column)
        period[0] = 167_000


_codec_getter("nvmlDeviceGetEncoderUtilization", "enc_util")
_codec_getter("nvmlDeviceGetDecoderUtilization", "dec_util")


@_c("nvmlDeviceGetViolationStatus", c_void_p, c_uint, POINTER(pynvml.c_nvmlViolationTime_t))
def _violation(nvml: FakeNvml, handle: int, policy: int, times: Any) -> None:
    gpu = nvml.gpu_of(handle, "nvmlDeviceGetViolationStatus")
    times[0].violationTime = nvml.value(gpu, _VIOLATIONS[policy])
    times[0].referenceTime = 1_763_790_000_000_000


def _memory_of(nvml: FakeNvml, handle: int, function: str, column: str) -> Any:
    what = nvml._what(handle, function)
    if isinstance(what, FakeGpu):
        return nvml.value(what, column)
    return nvml.value(what.gpu, column, what.instance.values)


@_c("nvmlDeviceGetMemoryInfo_v2", c_void_p, POINTER(pynvml.c_nvmlMemory_v2_t))
def _memory_v2(nvml: FakeNvml, handle: int, info: Any) -> None:
    if info[0].version != pynvml.nvmlMemory_v2:
        raise NvmlAnswer(pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH)
    for part in ("total", "free", "used", "reserved"):
        setattr(info[0], part, _memory_of(nvml, handle, "nvmlDeviceGetMemoryInfo_v2", f"fb_{part}"))


@_c("nvmlDeviceGetMemoryInfo", c_void_p, POINTER(pynvml.c_nvmlMemory_t))
def _memory(nvml: FakeNvml, handle: int, info: Any) -> None:
    """The first version counts what the driver reserves as used."""
    for part in ("total", "free", "used"):
        setattr(info[0], part, _memory_of(nvml, handle, "nvmlDeviceGetMemoryInfo", f"fb_{part}"))
    with suppress(NvmlAnswer):
        info[0].used += _memory_of(nvml, handle, "nvmlDeviceGetMemoryInfo", "fb_reserved")


@_c("nvmlDeviceGetTotalEccErrors", c_void_p, c_uint, c_uint, _ULL_P)
def _ecc(nvml: FakeNvml, handle: int, kind: int, counter: int, count: Any) -> None:
    gpu = nvml.gpu_of(handle, "nvmlDeviceGetTotalEccErrors")
    bits = "sbe" if kind == pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED else "dbe"
    count[0] = nvml.value(gpu, f"ecc_{bits}_{'vol' if counter == pynvml.NVML_VOLATILE_ECC else 'agg'}_total")


@_c("nvmlDeviceGetRetiredPages", c_void_p, c_uint, _UINT_P, _ULL_P)
def _retired(nvml: FakeNvml, handle: int, cause: int, count: Any, pages: Any) -> None:
    gpu = nvml.gpu_of(handle, "nvmlDeviceGetRetiredPages")
    single = cause == pynvml.NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS
    number = nvml.value(gpu, "retired_sbe" if single else "retired_dbe")
    room, count[0] = count[0], number
    if number > (room if pages else 0):
        raise NvmlAnswer(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
    for page in range(number):
        pages[page] = 0x1000 * page


@_c("nvmlDeviceGetRemappedRows", c_void_p, _UINT_P, _UINT_P, _UINT_P, _UINT_P)
def _remapped(nvml: FakeNvml, handle: int, *values: Any) -> None:
    gpu = nvml.gpu_of(handle, "nvmlDeviceGetRemappedRows")
    columns = ("correctable_remapped_rows", "uncorrectable_remapped_rows", "row_remap_pending", "row_remap_failure")
    for pointer, column in zip(values, columns, strict=True):
        pointer[0] = nvml.value(gpu, column)


@_c("nvmlDeviceGetNvLinkState", c_void_p, c_uint, _UINT_P)
def _nvlink_state(nvml: FakeNvml, handle: int, link: int, active: Any) -> None:
    gpu = nvml.gpu_of(handle, "nvmlDeviceGetNvLinkState")
    if not any(column in gpu.values for column in _NVLINK.values()):
        raise NvmlAnswer(pynvml.NVML_ERROR_NOT_SUPPORTED)
    if link >= 2 * _NVLINKS:
        raise NvmlAnswer(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    active[0] = link < _NVLINKS


@_c("nvmlDeviceGetNvLinkErrorCounter", c_void_p, c_uint, c_uint, _ULL_P)
def _nvlink_errors(nvml: FakeNvml, handle: int, link: int, counter: int, value: Any) -> None:
    gpu = nvml.gpu_of(handle, "nvmlDeviceGetNvLinkErrorCounter")
    total = nvml.value(gpu, _NVLINK[counter])
    if link >= _NVLINKS:
        raise NvmlAnswer(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    value[0] = total if link == 0 else 0


@_c("nvmlDeviceGetFieldValues", c_void_p, c_int32, c_void_p)
def _fields(nvml: FakeNvml, handle: int, count: int, address: int) -> None:
    fields = ctypes.cast(address, POINTER(pynvml.c_nvmlFieldValue_t))
    gpu = nvml.gpu_of(handle, "nvmlDeviceGetFieldValues")
    for number in range(count):
        one = fields[number]
        column = _FIELD_COLUMNS.get(one.fieldId) if gpu.fields else None
        try:
            if column is None:
                raise NvmlAnswer(pynvml.NVML_ERROR_INVALID_ARGUMENT)
            own = nvml.value(gpu, column)
        except NvmlAnswer as answer:
            one.nvmlReturn = answer.code
            continue
        one.nvmlReturn = OK
        if column in _UINT_FIELDS:
            one.valueType, one.value.uiVal = pynvml.NVML_VALUE_TYPE_UNSIGNED_INT, own
        else:
            one.valueType, one.value.ullVal = pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, own


# -- MIG ---------------------------------------------------------------------------------------------------------------


@_c("nvmlDeviceGetMigMode", c_void_p, _UINT_P, _UINT_P)
def _mig_mode(nvml: FakeNvml, handle: int, current: Any, pending: Any) -> None:
    gpu = nvml.gpu_of(handle, "nvmlDeviceGetMigMode")
    if gpu.instances is None:
        raise NvmlAnswer(pynvml.NVML_ERROR_NOT_SUPPORTED)
    current[0] = pending[0] = 1


@_c("nvmlDeviceGetMaxMigDeviceCount", c_void_p, _UINT_P)
def _mig_max(nvml: FakeNvml, handle: int, count: Any) -> None:
    count[0] = 0 if nvml.gpu_of(handle, "nvmlDeviceGetMaxMigDeviceCount").instances is None else 7


@_c("nvmlDeviceGetMigDeviceHandleByIndex", c_void_p, c_uint, _HANDLE_P)
def _mig_handle(nvml: FakeNvml, handle: int, index: int, mig: Any) -> None:
    gpu = nvml.gpu_of(handle, "nvmlDeviceGetMigDeviceHandleByIndex")
    devices = [(one, compute) for one in gpu.instances or () for compute in range(one.compute_instances)]
    if index >= len(devices):
        raise NvmlAnswer(pynvml.NVML_ERROR_NOT_FOUND)
    instance, compute = devices[index]
    for number, known in nvml._handles.items():
        if isinstance(known, _Mig) and known.instance is instance and known.compute == compute:
            _give(mig, number)
            return
    nvml._next += _HANDLE_STEP
    nvml._handles[nvml._next] = _Mig(gpu, instance, compute)
    _give(mig, nvml._next)


@_c("nvmlDeviceGetGpuInstanceId", c_void_p, _UINT_P)
def _instance_id(nvml: FakeNvml, handle: int, own: Any) -> None:
    own[0] = nvml.mig_of(handle, "nvmlDeviceGetGpuInstanceId").instance.id


@_c("nvmlDeviceGetAttributes_v2", c_void_p, POINTER(pynvml.c_nvmlDeviceAttributes))
def _attributes(nvml: FakeNvml, handle: int, attributes: Any) -> None:
    instance = nvml.mig_of(handle, "nvmlDeviceGetAttributes_v2").instance
    attributes[0].gpuInstanceSliceCount = int(instance.profile.partition("g")[0])
    attributes[0].memorySizeMB = int(instance.values["fb_total"])


# -- processes ---------------------------------------------------------------------------------------------------------


def _process_getter(name: str, kind: str) -> None:
    @_c(name, c_void_p, _UINT_P, POINTER(pynvml.c_nvmlProcessInfo_t))
    def answer(nvml: FakeNvml, handle: int, count: Any, infos: Any) -> None:
        what = nvml._what(handle, name)
        gpu, own = (what, None) if isinstance(what, FakeGpu) else (what.gpu, what.instance.id)
        if gpu.processes is None:
            raise NvmlAnswer(pynvml.NVML_ERROR_NOT_SUPPORTED)
        found = [p for p in gpu.processes if kind in p.kind.split("+") and (own is None or p.instance == own)]
        room, count[0] = count[0], len(found)
        if len(found) > (room if infos else 0):
            raise NvmlAnswer(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
        for number, process in enumerate(found):
            infos[number].pid = process.pid
            infos[number].usedGpuMemory = (1 << 64) - 1 if process.used_memory is None else process.used_memory * MIB
            infos[number].gpuInstanceId = _NO_INSTANCE if process.instance is None else process.instance
            infos[number].computeInstanceId = _NO_INSTANCE if process.instance is None else 0


for _version in ("_v2", "_v3"):
    _process_getter(f"nvmlDeviceGetComputeRunningProcesses{_version}", "C")
    _process_getter(f"nvmlDeviceGetGraphicsRunningProcesses{_version}", "G")


# -- GPM ---------------------------------------------------------------------------------------------------------------


@_c("nvmlGpmQueryDeviceSupport", c_void_p, POINTER(pynvml.c_nvmlGpmSupport_t))
def _gpm_support(nvml: FakeNvml, handle: int, support: Any) -> None:
    support[0].isSupportedDevice = nvml.gpu_of(handle, "nvmlGpmQueryDeviceSupport").gpm


@_c("nvmlGpmSampleAlloc", _HANDLE_P)
def _gpm_alloc(nvml: FakeNvml, sample: Any) -> None:
    nvml._next += _HANDLE_STEP
    nvml._samples[nvml._next] = {}
    _give(sample, nvml._next)


@_c("nvmlGpmSampleFree", c_void_p)
def _gpm_free(nvml: FakeNvml, sample: int) -> None:
    del nvml._samples[sample]


def _take(nvml: FakeNvml, gpu: FakeGpu, sample: int, values: dict[str, float]) -> None:
    if not gpu.gpm:
        raise NvmlAnswer(pynvml.NVML_ERROR_NOT_SUPPORTED)
    nvml._samples[sample] = {column: _native(column, values[column]) for column in _GPM.values() if column in values}
    nvml._samples[sample]["taken"] = 1


@_c("nvmlGpmSampleGet", c_void_p, c_void_p)
def _gpm_sample(nvml: FakeNvml, handle: int, sample: int) -> None:
    gpu = nvml.gpu_of(handle, "nvmlGpmSampleGet")
    _take(nvml, gpu, sample, gpu.values)


@_c("nvmlGpmMigSampleGet", c_void_p, c_uint, c_void_p)
def _gpm_mig_sample(nvml: FakeNvml, handle: int, instance: int, sample: int) -> None:
    gpu = nvml.gpu_of(handle, "nvmlGpmMigSampleGet")
    for own in gpu.instances or ():
        if own.id == instance:
            return _take(nvml, gpu, sample, own.values)
    raise NvmlAnswer(pynvml.NVML_ERROR_NOT_FOUND)


@_c("nvmlGpmMetricsGet", POINTER(pynvml.c_nvmlGpmMetricsGet_t))
def _gpm_metrics(nvml: FakeNvml, request: Any) -> None:
    """The averages between two samples; here: what held when the second was taken."""
    if request[0].version != pynvml.NVML_GPM_METRICS_GET_VERSION:
        raise NvmlAnswer(pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH)
    first, second = (ctypes.cast(sample, c_void_p).value or 0 for sample in (request[0].sample1, request[0].sample2))
    if not (nvml._samples[first] and nvml._samples[second]) or first == second:
        raise NvmlAnswer(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    for number in range(request[0].numMetrics):
        metric = request[0].metrics[number]
        own = nvml._samples[second].get(_GPM.get(metric.metricId, ""))
        metric.nvmlReturn = pynvml.NVML_ERROR_NOT_SUPPORTED if own is None else OK
        metric.value = 0.0 if own is None else own


# -- events ------------------------------------------------------------------------------------------------------------


@_c("nvmlEventSetCreate", _HANDLE_P)
def _event_set(nvml: FakeNvml, events: Any) -> None:
    nvml._next += _HANDLE_STEP
    _give(events, nvml._next)


@_c("nvmlEventSetFree", c_void_p)
def _event_set_free(nvml: FakeNvml, _events: int) -> None:
    nvml.calls["freed event sets"] += 1


@_c("nvmlDeviceGetSupportedEventTypes", c_void_p, _ULL_P)
def _event_types(nvml: FakeNvml, handle: int, types: Any) -> None:
    nvml.gpu_of(handle, "nvmlDeviceGetSupportedEventTypes")
    types[0] = pynvml.nvmlEventTypeXidCriticalError


@_c("nvmlDeviceRegisterEvents", c_void_p, c_ulonglong, c_void_p)
def _register(nvml: FakeNvml, handle: int, _types: int, _events: int) -> None:
    nvml.gpu_of(handle, "nvmlDeviceRegisterEvents")


@_c("nvmlEventSetWait_v2", c_void_p, POINTER(pynvml.c_nvmlEventData_t), c_uint)
def _event_wait(nvml: FakeNvml, _events: int, data: Any, timeout_ms: int) -> None:
    with nvml._events:
        if not nvml._events.wait_for(lambda: nvml._pending, timeout_ms / 1000):
            raise NvmlAnswer(pynvml.NVML_ERROR_TIMEOUT)
        handle, code = nvml._pending.pop(0)
    data[0].device = ctypes.cast(handle, type(data[0].device))
    data[0].eventType, data[0].eventData = pynvml.nvmlEventTypeXidCriticalError, code
    data[0].gpuInstanceId = data[0].computeInstanceId = _NO_INSTANCE
