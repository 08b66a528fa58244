"""What a sweep costs in calls, and that what is remembered is asked again when it should be."""

from __future__ import annotations

import pynvml

from services.contract.sentinels import Missing
from services.exporter.nvml.source import REFRESH
from tests.support.fake_nvml import FakeInstance
from tests.unit.exporter.nvml.boxes import FakeClock, hopper, only, opened, p40


def test_calls_of_a_sweep() -> None:
    clock = FakeClock()
    with opened(*(hopper(number) for number in range(8)), clock=clock) as (fake, source):
        for _ in range(3):
            clock.now += 1
            fake.calls.clear()
            source.read()
        assert sum(fake.calls.values()) == 1 + 8 * 26  # 24 for everything, 2 for profiling
        assert fake.calls["nvmlDeviceGetFieldValues"] == 8


def test_a_p40_costs_less() -> None:
    with opened(p40()) as (fake, source):
        source.read()
        fake.calls.clear()
        source.read()
        assert sum(fake.calls.values()) <= 20
        assert "nvmlDeviceGetFanSpeed" not in fake.calls
        assert "nvmlGpmQueryDeviceSupport" not in fake.calls


def test_static_values_are_asked_once_and_again_after_a_while() -> None:
    clock, gpu = FakeClock(), p40()
    with opened(gpu, clock=clock) as (_, source):
        source.read()
        gpu.values |= {"slowdown_temp": 90, "fan_speed": 30}
        gpu.vbios = "other"
        reading = only(source.read())
        assert (reading.values["slowdown_temp"], reading.missing["fan_speed"]) == (92, Missing.UNSUPPORTED)
        clock.now += REFRESH + 1
        reading = only(source.read())
        assert (reading.values["slowdown_temp"], reading.values["fan_speed"]) == (90, 30)
        assert reading.device.labels["DCGM_FI_DEV_VBIOS_VERSION"] == "other"
        assert "fan_speed" not in reading.missing


def test_profiling_goes_on_over_a_refresh() -> None:
    clock = FakeClock()
    with opened(hopper(), clock=clock) as (_, source):
        source.read()
        clock.now += REFRESH + 1
        assert "sm_active" in only(source.read()).values


def test_switching_mig_asks_everything_again() -> None:
    gpu = hopper(gpm=False)
    with opened(gpu) as (_, source):
        source.read()
        gpu.instances = []
        gpu.errors = {"nvmlDeviceGetUtilizationRates": pynvml.NVML_ERROR_NOT_SUPPORTED}
        assert only(source.read()).missing["gpu_util"] is Missing.UNSUPPORTED
        gpu.instances, gpu.errors = None, {}
        assert "gpu_util" in only(source.read()).values


def test_after_a_reset_everything_is_asked_again() -> None:
    gpu = p40()
    with opened(gpu) as (_, source):
        source.read()
        gpu.lost = True
        assert source.read().readings == ()
        gpu.lost = False
        gpu.values["fan_speed"] = 30
        assert only(source.read()).values["fan_speed"] == 30


def test_an_instance_costs_four_calls() -> None:
    gpu = hopper(gpm=False, instances=[FakeInstance(1, "1g.10gb", {"fb_total": 9728, "fb_free": 1, "fb_used": 2})])
    with opened(gpu) as (fake, source):
        source.read()
        fake.calls.clear()
        source.read()
        on_mig = ("MigDeviceHandleByIndex", "GpuInstanceId", "GetName", "MaxMigDeviceCount")
        assert sum(n for name, n in fake.calls.items() if name.endswith(on_mig)) == 1 + 7 + 2
