"""Metrics -> alerts. Remembers only since when each GPU has been idle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Self

from services.andon.alerts import Alert, GpuIdle, MemoryPressure, PowerLimit, ThermalThrottling
from services.andon.metrics import GpuMetrics
from services.ops.clock import Clock, SystemClock
from services.settings import Settings

IDLE_BELOW: Final = 5.0
"""Percent. A desktop or a monitoring tool alone makes a GPU report a few percent; work reports far more."""


@dataclass(frozen=True, slots=True)
class AlertConfig:
    """Thresholds; a value that reaches one alerts. Defaults and names: the Andon document."""

    thermal_threshold: float = 80.0
    """C."""
    memory_threshold: float = 90.0
    """Percent of the framebuffer."""
    power_threshold: float = 95.0
    """Percent of the power limit."""
    idle_timeout_secs: float = 300.0

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """ANDON_THERMAL, ANDON_MEMORY, ANDON_POWER, ANDON_IDLE."""
        return cls(settings.andon_thermal, settings.andon_memory, settings.andon_power, settings.andon_idle)


class AndonSystem:
    """`check` each reading once; alerts hold as long as their condition does."""

    def __init__(self, config: AlertConfig | None = None, clock: Clock | None = None) -> None:
        self.config = config or AlertConfig()
        self._clock = clock or SystemClock()
        self._idle_since: dict[str, float] = {}

    @classmethod
    def with_config(cls, config: AlertConfig) -> Self:
        return cls(config)

    def check(self, metrics: Iterable[GpuMetrics]) -> list[Alert]:
        """Alerts of all GPUs, in their order. What is unknown raises no alert."""
        return [alert for gpu in metrics for alert in self.check_one(gpu)]

    def check_one(self, gpu: GpuMetrics) -> list[Alert]:
        return [*_limits(gpu, self.config), *self._idle(gpu)]

    def idle_seconds(self, gpu: GpuMetrics) -> float:
        """How long it has been idle as far as this system has seen; 0: it works, or nobody knows."""
        since = self._idle_since.get(gpu.key)
        return 0.0 if since is None else self._clock.monotonic() - since

    def _idle(self, gpu: GpuMetrics) -> Iterator[Alert]:
        used = gpu.utilization_percent
        if used is None or used >= IDLE_BELOW:
            self._idle_since.pop(gpu.key, None)
            return
        self._idle_since.setdefault(gpu.key, self._clock.monotonic())
        seconds = self.idle_seconds(gpu)
        if seconds >= self.config.idle_timeout_secs:
            yield GpuIdle(gpu.device_id, seconds)


def _limits(gpu: GpuMetrics, config: AlertConfig) -> Iterator[Alert]:
    temp, memory, power = gpu.temperature_celsius, gpu.memory_percent(), gpu.power_percent()
    if temp is not None and temp >= config.thermal_threshold:
        yield ThermalThrottling(gpu.device_id, temp, config.thermal_threshold)
    if memory is not None and memory >= config.memory_threshold:
        yield MemoryPressure(gpu.device_id, memory, config.memory_threshold)
    if power is not None and power >= config.power_threshold:
        yield PowerLimit(gpu.device_id, power, config.power_threshold)
