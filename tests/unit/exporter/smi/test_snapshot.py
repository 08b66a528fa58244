"""Whole documents: kept on a change of what is stable and on the slow clock, and not otherwise."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from services.exporter.smi.snapshot import SECONDS_BETWEEN, SnapshotKeeper
from services.exporter.smi.source import SmiSource
from services.exporter.smi.xml import parse
from tests.support.clock import HandClock
from tests.support.fake_smi import FakeSmi, fixture

HOUR = 3600.0


@pytest.fixture
def clock() -> HandClock:
    return HandClock(1_763_780_000.0)


def keeper(smi: FakeSmi, clock: HandClock, interval: float = 6 * HOUR) -> SnapshotKeeper:
    return SnapshotKeeper(smi.program, 20.0, interval, clock)


def look(of: SnapshotKeeper, clock: HandClock) -> bool:
    clock.sleep(SECONDS_BETWEEN)
    return of.poll()


def test_one_document_per_gpu_that_is_a_log_of_its_own(tmp_path: Path, clock: HandClock) -> None:
    kept = keeper(FakeSmi(tmp_path, fixture("h100-pair")), clock)
    assert kept.documents() == []
    assert kept.poll()
    whole = parse(fixture("h100-pair"))
    first, second = kept.documents()
    assert [found.gpu_uuid for found in (first, second)] == [row.device.uuid for row in whole.readings]
    assert first.time == clock.now == kept.timestamp
    for at, found in enumerate((first, second)):
        assert found.xml.startswith('<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log')
        assert found.content() == {"format": "nvidia-smi-xml", "xml": found.xml}
        (row,) = parse(found.xml.encode()).readings
        assert row.values == whole.readings[at].values
        assert row.device.labels == whole.readings[at].device.labels


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("vbios_version", "86.02.23.00.02"),
        ("gpu_power_readings/requested_power_limit", "180.00 W"),
        ("temperature/gpu_temp_slow_threshold", "90 C"),
        ("ecc_mode/current_ecc", "Enabled"),
        ("retired_pages/double_bit_retirement/retired_count", "1"),
        ("retired_pages/pending_retirement", "Yes"),
        ("pci/pci_gpu_link_info/link_widths/current_link_width", "1x"),
        ("pci/pci_gpu_link_info/pcie_gen/max_link_gen", "2"),
        ("persistence_mode", "Enabled"),
        ("max_clocks/sm_clock", "1303 MHz"),
        ("fb_memory_usage/total", "23040 MiB"),
        ("remapped_rows", "Unknown Error"),
    ],
)
def test_a_change_of_what_is_stable_is_kept(tmp_path: Path, clock: HandClock, path: str, text: str) -> None:
    smi = FakeSmi(tmp_path)
    kept = keeper(smi, clock)
    kept.poll()
    (before,) = kept.documents()
    smi.set(path, text)
    assert look(kept, clock)
    (after,) = kept.documents()
    assert after.hash != before.hash
    assert after.time == clock.now
    assert not look(kept, clock)


def test_the_driver_is_stable_too(tmp_path: Path, clock: HandClock) -> None:
    smi = FakeSmi(tmp_path)
    kept = keeper(smi, clock)
    kept.poll()
    smi.set("driver_version", "550.54.14", gpu=None)
    assert look(kept, clock)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("temperature/gpu_temp", "85 C"),
        ("utilization/gpu_util", "100 %"),
        ("clocks/sm_clock", "1303 MHz"),
        ("gpu_power_readings/power_draw", "180.20 W"),
        ("gpu_power_readings/current_power_limit", "180.00 W"),
        ("performance_state", "P2"),
        ("fb_memory_usage/used", "9000 MiB"),
        ("fb_memory_usage/free", "15000 MiB"),
        ("pci/replay_counter", "7"),
        ("pci/tx_util", "4000 KB/s"),
        ("pci/pci_gpu_link_info/pcie_gen/current_link_gen", "1"),  # idle: see below
        ("fan_speed", "30 %"),
        ("clocks_event_reasons/clocks_event_reason_sw_power_cap", "Active"),
        ("ecc_errors/volatile/single_bit/total", "3"),
        ("processes/process_info/pid", "4711"),
        ("element_of_the_future", "42"),
    ],
)
def test_what_always_changes_is_not(tmp_path: Path, clock: HandClock, path: str, text: str) -> None:
    smi = FakeSmi(tmp_path)
    kept = keeper(smi, clock)
    kept.poll()
    before = kept.documents()
    smi.set(path, text)
    smi.set("timestamp", "Sun Nov 23 03:14:15 2025", gpu=None)
    assert not look(kept, clock)
    assert kept.documents() == before


def test_the_link_of_an_idle_gpu_may_slow_down_and_that_of_a_busy_one_not(tmp_path: Path, clock: HandClock) -> None:
    gen = "pci/pci_gpu_link_info/pcie_gen/current_link_gen"
    smi = FakeSmi(tmp_path)
    kept = keeper(smi, clock)
    smi.set("performance_state", "P0")
    kept.poll()
    smi.set("performance_state", "P8")
    smi.set(gen, "1")
    assert not look(kept, clock)
    smi.set("performance_state", "P0")
    assert look(kept, clock)
    smi.set("performance_state", "P8")
    assert not look(kept, clock)


def test_the_slow_clock(tmp_path: Path, clock: HandClock) -> None:
    kept = keeper(FakeSmi(tmp_path), clock, interval=HOUR)
    kept.poll()
    (first,) = kept.documents()
    clock.sleep(HOUR - 2 * SECONDS_BETWEEN)
    assert not look(kept, clock)
    assert look(kept, clock)
    (second,) = kept.documents()
    assert second.hash == first.hash
    assert second.time == first.time + HOUR


def test_at_most_one_look_a_minute(tmp_path: Path, clock: HandClock) -> None:
    smi = FakeSmi(tmp_path)
    kept = keeper(smi, clock)
    for _ in range(5):
        kept.poll()
        clock.sleep(1)
    assert len(smi.calls()) == 1


def test_trouble_is_logged_once_and_tried_again(
    tmp_path: Path, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="exporter.snapshot")
    smi = FakeSmi(tmp_path)
    kept = keeper(smi, clock)
    smi.no_driver()
    for _ in range(3):
        assert not look(kept, clock)
    assert len(caplog.records) == 1
    assert "modprobe" in caplog.records[0].getMessage()
    smi.garbage(b"<?xml version='1.0'?><nvidia_smi_log></nope></nvidia_smi_log>")
    assert not look(kept, clock)
    assert len(caplog.records) == 2
    smi.heal()
    assert look(kept, clock)
    assert "again" in caplog.records[-1].getMessage()


def test_a_lost_gpu_keeps_its_last_document(tmp_path: Path, clock: HandClock) -> None:
    smi = FakeSmi(tmp_path, fixture("h100-pair"))
    kept = keeper(smi, clock)
    kept.poll()
    before = kept.documents()
    smi.lose(1)
    assert not look(kept, clock)
    assert kept.documents() == before


def test_the_sources_own_answer_saves_the_keeper_a_call(tmp_path: Path, clock: HandClock) -> None:
    smi = FakeSmi(tmp_path)
    kept = keeper(smi, clock)
    SmiSource(smi.program, 20.0, on_document=kept.offer).read()
    assert len(kept.documents()) == 1
    assert not kept.poll()
    assert len(smi.calls()) == 1
