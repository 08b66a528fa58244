"""A back end without GPUs, for tests of whatever watches them.

mock = (MockGpuBackend()
    .with_device(0, "Mock GPU 0").with_temperature(75).with_utilization(85)
    .with_memory(8 * 1024**3, 16 * 1024**3))
metrics = mock.collect_metrics()
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

from services.andon.metrics import GpuMetrics


class MockGpuBackend:
    """Each `with_` speaks of the device added last. What was not said is unknown."""

    def __init__(self) -> None:
        self._gpus: list[GpuMetrics] = []

    def with_device(self, device_id: int, name: str) -> Self:
        self._gpus.append(GpuMetrics(device_id, name))
        return self

    def with_temperature(self, celsius: float) -> Self:
        return self._set(temperature_celsius=celsius)

    def with_utilization(self, percent: float) -> Self:
        return self._set(utilization_percent=percent)

    def with_memory(self, used_bytes: int, total_bytes: int) -> Self:
        return self._set(memory_used_bytes=used_bytes, memory_total_bytes=total_bytes)

    def with_power(self, watts: float, limit_watts: float) -> Self:
        return self._set(power_watts=watts, power_limit_watts=limit_watts)

    def collect_metrics(self) -> list[GpuMetrics]:
        return list(self._gpus)

    def _set(self, **values: Any) -> Self:
        if not self._gpus:
            raise ValueError("with_device(id, name) comes first: there is no GPU to set a value of")
        self._gpus[-1] = replace(self._gpus[-1], **values)
        return self
