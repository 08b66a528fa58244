"""Profiling ratios and rates on Hopper and newer: averages between two readings."""

from __future__ import annotations

import math

import pynvml
import pytest

from services.contract.catalogue import METRICS
from services.contract.sentinels import Missing
from tests.unit.exporter.nvml.boxes import FULL_VALUES, FakeClock, hopper, only, opened, p40

PROF = {m.column: m for m in METRICS if m.prof}


def test_all_of_them_from_the_second_reading_on() -> None:
    clock = FakeClock()
    with opened(hopper(), clock=clock) as (_, source):
        first = only(source.read())
        assert not PROF.keys() & (first.values.keys() | first.missing.keys())  # no average of one moment
        clock.now += 1
        second = only(source.read())
    for column, metric in PROF.items():
        assert second.values[column] == pytest.approx(FULL_VALUES[column])
        assert isinstance(second.values[column], int if metric.sql.is_integer else float)


def test_each_reading_averages_over_its_own_interval() -> None:
    clock, gpu = FakeClock(), hopper()
    with opened(gpu, clock=clock) as (fake, source):
        for load in (0.25, 0.5, 0.75):
            gpu.values["sm_active"] = load
            clock.now += 1
            values = only(source.read()).values
            assert values.get("sm_active", 0.25) == load
        assert fake.samples == 2
        assert fake.calls["nvmlGpmMetricsGet"] == 2


def test_readings_that_follow_too_closely_share_their_averages() -> None:
    clock, gpu = FakeClock(), hopper()
    with opened(gpu, clock=clock) as (fake, source):
        source.read()
        clock.now += 1
        before = only(source.read()).values["sm_active"]
        gpu.values["sm_active"] = 0.9
        clock.now += 0.05
        assert only(source.read()).values["sm_active"] == before
        assert fake.calls["nvmlGpmSampleGet"] == 2


def test_older_gpus_have_none() -> None:
    with opened(p40()) as (fake, source):
        for _ in range(2):
            assert {only(source.read()).missing[column] for column in PROF} == {Missing.UNSUPPORTED}
        assert fake.calls["nvmlGpmQueryDeviceSupport"] == 1
        assert fake.calls["nvmlGpmSampleGet"] == 0


def test_an_old_library_has_none() -> None:
    with opened(hopper()) as (fake, source):
        fake.absent.add("nvmlGpmQueryDeviceSupport")
        assert only(source.read()).missing["sm_active"] is Missing.UNSUPPORTED


@pytest.mark.parametrize(
    ("code", "reason"),
    [(pynvml.NVML_ERROR_NO_PERMISSION, Missing.PERMISSION), (pynvml.NVML_ERROR_UNKNOWN, Missing.FAILED)],
)
def test_a_sample_that_is_refused(code: int, reason: Missing) -> None:
    clock, gpu = FakeClock(), hopper(errors={"nvmlGpmSampleGet": code})
    with opened(gpu, clock=clock) as (_, source):
        assert {only(source.read()).missing[column] for column in PROF} == {reason}
        gpu.errors.clear()
        for _ in range(2):
            clock.now += 1
            reading = only(source.read())
        assert "sm_active" in reading.values


def test_after_a_sample_that_failed_the_averages_begin_anew() -> None:
    clock, gpu = FakeClock(), hopper()
    with opened(gpu, clock=clock) as (_, source):
        for failing in (False, False, True):
            gpu.errors = {"nvmlGpmSampleGet": pynvml.NVML_ERROR_UNKNOWN} if failing else {}
            source.read()
            clock.now += 1
        gpu.errors.clear()
        reading = only(source.read())
        assert "sm_active" not in reading.values.keys() | reading.missing.keys()
        clock.now += 1
        assert "sm_active" in only(source.read()).values


@pytest.mark.parametrize(("percent", "outcome"), [(100.02, 1.0), (101.0, None), (math.nan, None), (-1.0, None)])
def test_ratios_stay_ratios(percent: float, outcome: float | None) -> None:
    clock = FakeClock()
    gpu = hopper()
    gpu.values["sm_active"] = percent / 100
    with opened(gpu, clock=clock) as (_, source):
        source.read()
        clock.now += 1
        reading = only(source.read())
    assert reading.values.get("sm_active") == outcome
    assert (reading.missing.get("sm_active") is Missing.FAILED) == (outcome is None)
