"""The ledger counts an XID once, however many sources tell of it, and every one that happened."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from services.exporter.pci_address import canonical_pci
from services.exporter.xid.ledger import SAME, WINDOW, GpuXids, Origin, Xid, XidLedger
from tests.unit.exporter.xid.clocks import HandClock

GPU = "00000000:9B:00.0"
OTHER = "00000000:1B:00.0"
KERNEL = Xid(1000.0, GPU, 119, Origin.KMSG, pid=42, process="nvidia-smi", message="Timeout")
NVML = Xid(1000.3, GPU, 119, Origin.NVML, uuid="GPU-1", instance_id=3)


def ledger_with(*xids: Xid) -> XidLedger:
    ledger = XidLedger(HandClock())
    for xid in xids:
        ledger.record(xid)
    return ledger


def test_a_gpu_without_xids_has_none() -> None:
    assert ledger_with(KERNEL).of(OTHER) == GpuXids()
    assert ledger_with().of(GPU, "GPU-1").last_code == 0


@pytest.mark.parametrize("told", [(KERNEL, NVML), (NVML, KERNEL)])
def test_two_origins_within_two_seconds_are_one_xid_with_the_facts_of_both(told: tuple[Xid, Xid]) -> None:
    xids = ledger_with(*told).of(GPU)
    assert xids.counts == {119: 1}
    last = xids.last[119]
    assert (last.uuid, last.pid, last.process, last.message, last.instance_id) == (
        "GPU-1",
        42,
        "nvidia-smi",
        "Timeout",
        3,
    )
    assert (last.time, last.origin) == (told[0].time, told[0].origin)


def test_two_origins_further_apart_are_two_xids() -> None:
    assert ledger_with(KERNEL, replace(NVML, time=KERNEL.time + SAME + 0.1)).of(GPU).counts == {119: 2}


def test_one_origin_telling_twice_at_once_is_two_xids() -> None:
    assert ledger_with(KERNEL, KERNEL).of(GPU).counts == {119: 2}


def test_two_xids_in_one_second_each_told_twice_are_two() -> None:
    told = (KERNEL, replace(KERNEL, time=1000.5), NVML, replace(NVML, time=1000.8))
    assert ledger_with(*told).of(GPU).counts == {119: 2}


def test_record_says_whether_it_was_new() -> None:
    ledger = ledger_with()
    assert [ledger.record(xid) for xid in (KERNEL, NVML, KERNEL)] == [True, False, True]


def test_codes_and_gpus_are_counted_apart() -> None:
    ledger = ledger_with(KERNEL, replace(KERNEL, code=79, time=1000.1), replace(KERNEL, pci_bus_id=OTHER))
    assert ledger.of(GPU).counts == {119: 1, 79: 1}
    assert ledger.of(OTHER).counts == {119: 1}
    assert ledger.gpus() == (GPU, OTHER)


def test_last_code_is_the_newest_told_and_last_the_latest_of_each() -> None:
    ledger = ledger_with(replace(KERNEL, code=31), KERNEL, replace(KERNEL, time=990.0, pid=7))
    xids = ledger.of(GPU)
    assert xids.last_code == 119
    assert xids.last[119].pid == 42
    assert set(xids.last) == {31, 119}


def test_spelling_of_the_address_does_not_matter() -> None:
    ledger = ledger_with(replace(KERNEL, pci_bus_id="0000:9b:00"))
    assert ledger.of("00000000:9B:00.0") == ledger.of("9b:00.0") == ledger.of("0000:9b:00")
    assert ledger.of(GPU).counts == {119: 1}


def test_found_by_uuid_once_a_source_has_named_it() -> None:
    ledger = ledger_with(KERNEL)
    assert ledger.of("GPU-1").counts == {}
    ledger.record(NVML)
    assert ledger.of("GPU-1").counts == {119: 1}


def test_another_gpu_in_the_same_slot_begins_at_zero() -> None:
    ledger = ledger_with(KERNEL)
    assert ledger.of(GPU, "GPU-1").counts == {119: 1}
    assert ledger.of(GPU, "GPU-2").counts == {}
    ledger.record(replace(KERNEL, time=2000.0))
    assert ledger.of(GPU, "GPU-2").counts == {119: 1}


def test_window_forgets_and_the_counter_does_not() -> None:
    clock = HandClock()
    ledger = XidLedger(clock)
    ledger.record(KERNEL)
    clock.advance(WINDOW - 1)
    ledger.record(replace(KERNEL, time=2000.0))
    assert ledger.of(GPU).window == {119: 2}
    clock.advance(1)
    assert ledger.of(GPU).window == {119: 1}
    clock.advance(WINDOW)
    assert ledger.of(GPU).window == {}
    assert ledger.of(GPU).counts == {119: 2}


def test_threads_lose_nothing() -> None:
    ledger = ledger_with()

    def tell(origin: Origin) -> None:
        for number in range(500):
            ledger.record(replace(KERNEL, origin=origin, time=10.0 * number))

    threads = [threading.Thread(target=tell, args=(origin,)) for origin in (Origin.KMSG, Origin.NVML)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Each of the 500 was told by both; one that came after the other had moved on counts by itself.
    assert 500 <= ledger.of(GPU).counts[119] <= 1000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0000:9b:00", "00000000:9B:00.0"),
        ("0000:9b:00.1", "00000000:9B:00.1"),
        ("00000000:9B:00.0", "00000000:9B:00.0"),
        ("1:00", "00000000:01:00.0"),
        ("10000:01:00.0", "00010000:01:00.0"),
    ],
)
def test_canonical_address(text: str, expected: str) -> None:
    assert canonical_pci(text) == expected


@pytest.mark.parametrize("text", ["", "GPU-1", "0000:9b", "0000:9b:00.9", "xyz:00:00"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a PCI address"):
        canonical_pci(text)
