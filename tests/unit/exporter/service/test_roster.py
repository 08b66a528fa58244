"""Lost and returned GPUs."""

from __future__ import annotations

from dataclasses import replace

from services.exporter.reading import Lost
from services.exporter.roster import NOT_LISTED, Roster
from tests.unit.exporter.service.doubles import UUIDS, device, reading, sweep

BOTH = sweep(reading(0), reading(1))


def test_a_gpu_the_source_calls_lost_keeps_what_was_known_of_it() -> None:
    roster = Roster()
    roster.update(BOTH)
    assert not roster.lost
    roster.update(sweep(reading(0), lost=(Lost("GPU is lost", index=1),)))
    assert roster.lost == (Lost("GPU is lost", UUIDS[1], 1, "00000000:04:00.0", "Tesla P40"),)


def test_a_gpu_that_is_no_longer_mentioned_is_lost() -> None:
    roster = Roster()
    roster.update(BOTH)
    roster.update(sweep(reading(1)))
    assert roster.lost == (Lost(NOT_LISTED, UUIDS[0], 0, "00000000:03:00.0", "Tesla P40"),)


def test_the_drivers_word_is_kept_when_it_stops_to_mention_the_gpu() -> None:
    roster = Roster()
    for seen in (BOTH, sweep(reading(0), lost=(Lost("GPU is lost", UUIDS[1]),)), sweep(reading(0))):
        roster.update(seen)
    assert [(lost.uuid, lost.reason) for lost in roster.lost] == [(UUIDS[1], "GPU is lost")]


def test_a_gpu_that_returns_is_no_longer_lost() -> None:
    roster = Roster()
    for seen in (BOTH, sweep(reading(0)), BOTH):
        roster.update(seen)
    assert roster.lost == ()


def test_an_index_that_moved_up_is_not_the_lost_gpu() -> None:
    """GPU 0 goes, GPU 1 is now index 0: the one that is read is not the one that is lost."""
    moved = replace(device(1), index=0)
    roster = Roster()
    roster.update(BOTH)
    roster.update(sweep(reading(moved)))
    assert [lost.uuid for lost in roster.lost] == [UUIDS[0]]
    roster.update(BOTH)
    assert roster.lost == ()


def test_a_gpu_that_was_lost_before_the_start_returns() -> None:
    roster = Roster()
    roster.update(sweep(reading(0), lost=(Lost("GPU is lost", index=1, pci_bus_id="00000000:04:00.0"),)))
    assert [lost.index for lost in roster.lost] == [1]
    roster.update(BOTH)
    assert roster.lost == ()


def test_instances_are_no_gpus_of_their_own() -> None:
    instance = replace(device(), instance_id=1, instance_profile="1g.5gb")
    roster = Roster()
    roster.update(sweep(reading(), reading(instance)))
    roster.update(sweep(reading()))
    assert roster.lost == ()
    assert roster.devices == (device(),)


def test_devices_include_the_lost() -> None:
    roster = Roster()
    roster.update(BOTH)
    roster.update(sweep(reading(1)))
    assert roster.devices == (device(0), device(1))
