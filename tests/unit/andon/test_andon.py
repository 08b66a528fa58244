"""Alerts: thresholds, severities, messages, idleness over time; unknown is never an alert."""

from __future__ import annotations

import pytest

from services.andon import (
    AlertConfig,
    AndonSystem,
    GpuIdle,
    GpuMetrics,
    MemoryPressure,
    MockGpuBackend,
    PowerLimit,
    Severity,
    ThermalThrottling,
)
from services.andon.metrics import of_values
from services.settings import load
from tests.support.clock import HandClock

GIB = 1024**3


def gpu(**values: float) -> GpuMetrics:
    return GpuMetrics(0, "Mock", **values)  # type: ignore[arg-type]  # memory is whole bytes in these tests


def test_the_mock_back_end_of_the_document() -> None:
    mock = (
        MockGpuBackend()
        .with_device(0, "Mock GPU 0")
        .with_temperature(75)
        .with_utilization(85)
        .with_memory(8 * GIB, 16 * GIB)
    )
    (metrics,) = mock.collect_metrics()
    assert (metrics.name, metrics.temperature_celsius, metrics.utilization_percent) == ("Mock GPU 0", 75, 85)
    assert metrics.memory_percent() == 50.0
    assert metrics.power_percent() is None
    assert AndonSystem().check([metrics]) == []


def test_a_value_without_a_device_is_refused() -> None:
    with pytest.raises(ValueError, match="with_device"):
        MockGpuBackend().with_temperature(75)


def test_defaults_are_the_documents() -> None:
    assert AlertConfig() == AlertConfig(80, 90, 95, 300) == AlertConfig.of(load())


@pytest.mark.parametrize(
    ("metrics", "alert"),
    [
        (gpu(temperature_celsius=80), ThermalThrottling(0, 80, 80)),
        (gpu(memory_used_bytes=90, memory_total_bytes=100), MemoryPressure(0, 90, 90)),
        (gpu(power_watts=95, power_limit_watts=100), PowerLimit(0, 95, 95)),
    ],
)
def test_reaching_a_threshold_alerts(metrics: GpuMetrics, alert: object) -> None:
    assert AndonSystem().check([metrics]) == [alert]


@pytest.mark.parametrize(
    "metrics",
    [
        gpu(temperature_celsius=79.9),
        gpu(memory_used_bytes=8999, memory_total_bytes=10000),
        gpu(power_watts=94.9, power_limit_watts=100),
        gpu(memory_used_bytes=100),
        gpu(power_watts=500),
        gpu(power_watts=0, power_limit_watts=0),
        gpu(),
    ],
)
def test_below_a_threshold_or_unknown_is_no_alert(metrics: GpuMetrics) -> None:
    assert AndonSystem().check([metrics]) == []


def test_severities_and_messages() -> None:
    assert ThermalThrottling(1, 85, 80).severity == Severity.WARNING
    assert ThermalThrottling(1, 90, 80).severity == Severity.CRITICAL
    assert MemoryPressure(1, 95, 90).severity == Severity.WARNING
    assert MemoryPressure(1, 98, 90).severity == Severity.CRITICAL
    assert PowerLimit(1, 100, 95).severity == Severity.NOTICE
    assert GpuIdle(1, 600).severity == Severity.WARNING
    assert ThermalThrottling(1, 85, 80).message == "GPU 1: 85 C, thermal threshold 80 C"
    assert MemoryPressure(1, 95.4, 90).message == "GPU 1: 95 % of memory used, threshold 90 %"
    assert PowerLimit(1, 98, 95).message == "GPU 1: 98 % of the power limit, threshold 95 %"
    assert GpuIdle(1, 600).message == "GPU 1: idle for 600 s, possibly hanging"


def test_idleness_is_counted_from_the_first_idle_reading_and_ends_with_work() -> None:
    clock = HandClock(1000.0)
    andon = AndonSystem(clock=clock)
    idle, busy = gpu(utilization_percent=0), gpu(utilization_percent=5)
    assert andon.check([idle]) == []
    clock.now += 299
    assert andon.check([idle]) == []
    clock.now += 1
    assert andon.check([idle]) == [GpuIdle(0, 300)]
    assert andon.check([busy]) == []
    clock.now += 300
    assert andon.check([idle]) == []


def test_a_gpu_that_does_not_tell_its_utilisation_is_not_idle() -> None:
    clock = HandClock(1000.0)
    andon = AndonSystem(clock=clock)
    andon.check([gpu(utilization_percent=0)])
    clock.now += 400
    assert andon.check([gpu()]) == []
    assert andon.check([gpu(utilization_percent=0)]) == []


def test_gpus_of_several_hosts_with_one_number_are_told_apart() -> None:
    clock = HandClock(1000.0)
    andon = AndonSystem(clock=clock)
    one = GpuMetrics(0, "a", utilization_percent=0, identity="GPU-a")
    other = GpuMetrics(0, "b", utilization_percent=90, identity="GPU-b")
    andon.check([one, other])
    clock.now += 300
    assert andon.check([one, other]) == [GpuIdle(0, 300)]


def test_catalogue_columns_become_metrics() -> None:
    found = of_values(2, "P40", {"fb_used": 1024, "fb_free": 2048, "fb_reserved": 1024, "gpu_temp": 0})
    assert (found.memory_used_bytes, found.memory_total_bytes, found.memory_percent()) == (GIB, 4 * GIB, 25.0)
    assert found.temperature_celsius == 0
    assert found.power_watts is None
    assert of_values(0, "x", {"fb_used": 5}).memory_total_bytes is None
