"""Absent, unsupported, refused, failed, lost and gone are told apart."""

from __future__ import annotations

from collections.abc import Callable

import pynvml
import pytest

from services.contract.sentinels import Missing
from services.exporter.nvml.source import NvmlSource
from services.exporter.reading import Lost, SourceError, Trouble
from tests.support.fake_nvml import FakeNvml
from tests.unit.exporter.nvml.boxes import FakeClock, hopper, only, opened, p40

REASONS = [
    (pynvml.NVML_ERROR_NOT_SUPPORTED, Missing.UNSUPPORTED),
    (pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, Missing.UNSUPPORTED),
    (pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH, Missing.UNSUPPORTED),
    (pynvml.NVML_ERROR_NO_PERMISSION, Missing.PERMISSION),
    (pynvml.NVML_ERROR_UNKNOWN, Missing.FAILED),
    (pynvml.NVML_ERROR_TIMEOUT, Missing.FAILED),
    (pynvml.NVML_ERROR_NO_DATA, Missing.FAILED),
]
COLUMNS = ["power_usage", "gpu_util", "retired_dbe", "fb_used", "slowdown_temp", "sm_clock", "pcie_replay_counter"]
"""By a call of their own, by a shared one, by field value, cached and not."""


@pytest.mark.parametrize(("code", "reason"), REASONS, ids=str)
@pytest.mark.parametrize("column", COLUMNS)
def test_why_a_metric_is_missing(column: str, code: int, reason: Missing) -> None:
    with opened(p40(errors={column: code})) as (_, source):
        for _ in range(2):
            reading = only(source.read())
            assert reading.missing[column] is reason
            assert column not in reading.values
            assert reading.values["gpu_temp"] == 69


@pytest.mark.parametrize("column", COLUMNS)
def test_what_failed_is_asked_again(column: str) -> None:
    gpu = p40(errors={column: pynvml.NVML_ERROR_UNKNOWN})
    with opened(gpu) as (_, source):
        source.read()
        gpu.errors.clear()
        assert only(source.read()).values[column] == gpu.values[column]


@pytest.mark.parametrize(
    ("column", "native"),
    [
        ("gpu_temp", 0xFFFFFFFF), ("pcie_replay_counter", 0xFFFFFFFF), ("pstate", 32), ("power_usage", 0xFFFFFFFF),
        ("fb_total", 0xFFFFFFFFFFFFFFFF), ("gpu_util", 101), ("pcie_max_link_gen", 0xFFFFFFFF),
        ("power_violation", 0xFFFFFFFFFFFFFFFF), ("clocks_event_reasons", 0xFFFFFFFFFFFFFFFF),
    ],
)  # fmt: skip
def test_blank_and_impossible_values_failed(column: str, native: int) -> None:
    with opened(p40(native={column: native})) as (_, source):
        reading = only(source.read())
    assert reading.missing[column] is Missing.FAILED
    assert column not in reading.values


def test_a_running_counter_may_pass_the_blank_of_32_bits() -> None:
    with opened(p40(values={"power_violation": 0xFFFFFFFF, "total_energy_consumption": 0xFFFFFFFF})) as (_, source):
        values = only(source.read()).values
    assert values == {"power_violation": 0xFFFFFFFF, "total_energy_consumption": 0xFFFFFFFF}


@pytest.mark.parametrize(
    ("code", "reason"),
    [(pynvml.NVML_ERROR_GPU_IS_LOST, "GPU is lost"), (pynvml.NVML_ERROR_RESET_REQUIRED, "GPU requires restart"),
     (pynvml.NVML_ERROR_UNKNOWN, "Unknown Error")],
)  # fmt: skip
@pytest.mark.parametrize("from_the_start", [True, False])
def test_one_lost_gpu_and_the_others_go_on(code: int, reason: str, from_the_start: bool) -> None:
    gpus = [hopper(number) for number in range(3)]
    with opened(*gpus) as (_, source):
        if not from_the_start:
            assert source.read().lost == ()
        gpus[1].lost, gpus[1].lost_error = True, code
        for _ in range(2):
            sweep = source.read()
            assert [reading.device.uuid for reading in sweep.readings] == ["GPU-0", "GPU-2"]
            known = () if from_the_start else ("GPU-1", 1, "00000000:02:00.0", "NVIDIA H100 80GB HBM3")
            assert sweep.lost == (Lost(reason, *known) if known else Lost(reason, index=1),)


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED])
@pytest.mark.parametrize("where", ["nvmlDeviceGetRemappedRows", "retired_dbe", "nvmlGpmSampleGet"])
def test_lost_in_the_middle_of_being_read(where: str, code: int) -> None:
    clock, gpu = FakeClock(), hopper(1)
    with opened(hopper(0), gpu, clock=clock) as (_, source):
        source.read()
        gpu.errors[where] = code
        clock.now += 1
        sweep = source.read()
    assert [reading.device.uuid for reading in sweep.readings] == ["GPU-0"]
    assert [(lost.uuid, lost.index) for lost in sweep.lost] == [("GPU-1", 1)]


def test_a_gpu_that_answers_nothing_but_errors_is_lost_although_its_handle_works() -> None:
    gpu = p40()
    with opened(gpu) as (_, source):
        source.read()
        gpu.errors = dict.fromkeys(gpu.values, pynvml.NVML_ERROR_UNKNOWN)
        sweep = source.read()
    assert sweep.readings == ()
    assert [lost.reason for lost in sweep.lost] == ["Unknown Error"]


def test_what_nvml_remembers_of_a_dead_gpu_is_no_reading_of_it() -> None:
    gpu = p40()
    static = ("slowdown_temp", "shutdown_temp", "pcie_max_link_gen", "pcie_max_link_width")
    gpu.errors = dict.fromkeys(gpu.values.keys() - static, pynvml.NVML_ERROR_UNKNOWN)
    with opened(gpu) as (_, source):
        assert [lost.reason for lost in source.read().lost] == ["Unknown Error"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [(pynvml.NVML_ERROR_INSUFFICIENT_POWER, "Insufficient External Power"),
     (pynvml.NVML_ERROR_NO_PERMISSION, "Insufficient Permissions")],
)  # fmt: skip
def test_a_gpu_without_handle(code: int, reason: str) -> None:
    with opened(hopper(0), hopper(1, handle_error=code)) as (_, source):
        sweep = source.read()
    assert len(sweep.readings) == 1
    assert sweep.lost == (Lost(reason, index=1),)


def test_a_gpu_that_comes_back_is_read_again() -> None:
    clock, gpu = FakeClock(), hopper(1)
    with opened(hopper(0), gpu, clock=clock) as (_, source):
        source.read()
        gpu.lost = True
        source.read()
        gpu.lost = False
        sweep = source.read()
    assert sweep.lost == ()
    assert len(sweep.readings) == 2


def test_no_permission_for_any_gpu_is_an_error_of_the_source() -> None:
    gpus = [hopper(number, handle_error=pynvml.NVML_ERROR_NO_PERMISSION) for number in range(2)]
    with opened(*gpus) as (_, source), pytest.raises(SourceError, match="/dev/nvidiactl") as caught:
        source.read()
    assert caught.value.trouble is Trouble.PERMISSION


def test_no_gpu_is_an_empty_sweep() -> None:
    with opened() as (_, source):
        sweep = source.read()
    assert (sweep.readings, sweep.lost) == ((), ())


@pytest.mark.parametrize(
    ("code", "trouble", "what_to_do"),
    [
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, Trouble.NO_DRIVER, "modprobe nvidia"),
        (pynvml.NVML_ERROR_NO_PERMISSION, Trouble.PERMISSION, "ls -l /dev/nvidia"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, Trouble.MISMATCH, "reboot, or stop"),
        (pynvml.NVML_ERROR_GPU_NOT_FOUND, Trouble.NO_DRIVER, "lspci -d 10de:"),
        (pynvml.NVML_ERROR_TIMEOUT, Trouble.HUNG, "dmesg"),
        (pynvml.NVML_ERROR_UNKNOWN, Trouble.FAILED, "nvidia-smi"),
    ],
)
def test_nvml_that_cannot_be_opened(code: int, trouble: Trouble, what_to_do: str) -> None:
    fake = FakeNvml()
    fake.init_error = code
    with fake.installed(), pytest.raises(SourceError, match=what_to_do) as caught:
        NvmlSource()
    assert caught.value.trouble is trouble
    assert "\n" not in str(caught.value)


def test_no_library() -> None:
    fake = FakeNvml()
    fake.load_error = True
    with fake.installed(), pytest.raises(SourceError, match=r"install the NVIDIA driver") as caught:
        NvmlSource()
    assert caught.value.trouble is Trouble.NO_DRIVER


def uninitialised(fake: FakeNvml) -> None:
    fake.initialised = 0


def driver_gone(fake: FakeNvml) -> None:
    fake.errors["nvmlDeviceGetHandleByIndex_v2"] = pynvml.NVML_ERROR_DRIVER_NOT_LOADED


def unloaded_in_the_middle(fake: FakeNvml) -> None:
    fake.errors["nvmlDeviceGetPowerUsage"] = pynvml.NVML_ERROR_UNINITIALIZED


def count_fails(fake: FakeNvml) -> None:
    fake.errors["nvmlDeviceGetCount_v2"] = pynvml.NVML_ERROR_UNKNOWN


@pytest.mark.parametrize("break_it", [uninitialised, driver_gone, unloaded_in_the_middle, count_fails])
def test_a_driver_that_goes_away_is_an_error_and_the_next_read_begins_anew(
    break_it: Callable[[FakeNvml], None],
) -> None:
    with opened(p40()) as (fake, source):
        source.read()
        break_it(fake)
        with pytest.raises(SourceError):
            source.read()
        fake.errors.clear()
        fake.initialised = 0
        assert only(source.read()).values["gpu_temp"] == 69
