"""The profiling (PROF) columns from NVML's GPM, on Hopper and newer: averages between one reading and the next.

DCGM takes them from the same counters on these GPUs. Older GPUs have none in NVML: there they are unsupported. The PCIe
rates nvmlDeviceGetPcieThroughput gives on those are not used in their place: they are of a 20 ms window, for which the
call blocks, and would stand under a name that means the average over the whole interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Final

import pynvml

from services.contract.catalogue import BY_COLUMN, METRICS, Unit
from services.contract.sentinels import Missing
from services.exporter.nvml.calls import Handle
from services.exporter.nvml.errors import raise_if_fatal, why_missing
from services.exporter.reading import Number
from services.ops.clock import Clock

GPM: Final = MappingProxyType(
    {
        "gr_engine_active": pynvml.NVML_GPM_METRIC_GRAPHICS_UTIL,
        "sm_active": pynvml.NVML_GPM_METRIC_SM_UTIL,
        "sm_occupancy": pynvml.NVML_GPM_METRIC_SM_OCCUPANCY,
        "tensor_active": pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL,
        "dram_active": pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL,
        "fp64_active": pynvml.NVML_GPM_METRIC_FP64_UTIL,
        "fp32_active": pynvml.NVML_GPM_METRIC_FP32_UTIL,
        "fp16_active": pynvml.NVML_GPM_METRIC_FP16_UTIL,
        "pcie_tx_bytes": pynvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC,
        "pcie_rx_bytes": pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC,
        "nvlink_tx_bytes": pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC,
        "nvlink_rx_bytes": pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC,
    }
)
"""Catalogue column -> nvmlGpmMetricId_t. Percent and MiB/s in NVML."""
UNSUPPORTED: Final[dict[str, Missing]] = {m.column: Missing.UNSUPPORTED for m in METRICS if m.prof}

SHORTEST: Final = 0.1
"""Seconds. Over less, NVML's counters have hardly moved and the averages are noise; the last ones stand."""
_OVERSHOOT: Final = 1.001
"""Ratios up to this are 1: a quotient of two counters that were not read at the same instant."""

Cell = Number | Missing
Take = Callable[[Any], object]
"""Takes a sample into the buffer given; raises NVMLError."""


def supported(handle: Handle) -> bool:
    try:
        return bool(pynvml.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice)
    except pynvml.NVMLError as error:
        raise_if_fatal(error.value)
        return False


def of_gpu(handle: Handle) -> Take:
    return lambda sample: pynvml.nvmlGpmSampleGet(handle, sample)


def of_instance(handle: Handle, instance_id: int) -> Take:
    """`handle` is the GPU's."""
    return lambda sample: pynvml.nvmlGpmMigSampleGet(handle, instance_id, sample)


class Gpm:
    """Two samples of one GPU or GPU instance, taken in turn."""

    def __init__(self, take: Take, clock: Clock) -> None:
        self._take = take
        self._clock = clock
        self._samples: list[Any] = []
        self._taken_at: float | None = None
        self._last: dict[str, Cell] = {}

    def read(self) -> dict[str, Cell]:
        """Averages since the last call. Empty at the first: two moments make an average. Raises GpuLostError."""
        now = self._clock.monotonic()
        if self._taken_at is not None and now - self._taken_at < SHORTEST:
            return self._last
        try:
            self._last = self._advance()
            self._taken_at = now
        except pynvml.NVMLError as error:
            raise_if_fatal(error.value)
            self._taken_at = None
            self._last = dict.fromkeys(GPM, why_missing(error.value))
        return self._last

    def close(self) -> None:
        """While NVML is initialised."""
        for sample in self._samples:
            with suppress(pynvml.NVMLError):
                pynvml.nvmlGpmSampleFree(sample)
        self._samples = []

    def _advance(self) -> dict[str, Cell]:
        while len(self._samples) < 2:
            self._samples.append(pynvml.nvmlGpmSampleAlloc())
        older, newer = self._samples
        self._take(older)  # in place of the one before the last
        self._samples = [newer, older]
        return {} if self._taken_at is None else dict(_averages(newer, older))


def _averages(first: Any, second: Any) -> Iterator[tuple[str, Cell]]:
    request = pynvml.c_nvmlGpmMetricsGet_t()
    request.version = pynvml.NVML_GPM_METRICS_GET_VERSION
    request.numMetrics = len(GPM)
    request.sample1, request.sample2 = first, second
    for number, metric_id in enumerate(GPM.values()):
        request.metrics[number].metricId = metric_id
    pynvml.nvmlGpmMetricsGet(request)
    for number, column in enumerate(GPM):
        metric = request.metrics[number]
        ok = metric.nvmlReturn == pynvml.NVML_SUCCESS
        yield column, _convert(column, metric.value) if ok else why_missing(metric.nvmlReturn)


def _convert(column: str, native: float) -> Cell:
    """Percent -> ratio, MiB/s -> B/s."""
    metric = BY_COLUMN[column]
    if metric.unit is Unit.RATIO:
        ratio = native / 100
        value: Number = 1.0 if 1.0 < ratio <= _OVERSHOOT else ratio
    else:
        value = native * 2**20
    if not metric.low <= value <= metric.high:  # NaN is neither
        return Missing.FAILED
    return round(value) if metric.sql.is_integer else value
