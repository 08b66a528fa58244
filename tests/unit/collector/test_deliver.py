"""The policy: nothing accepted is lost, order is kept, what is refused is counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.collector.deliver import MAX_WAITING, PROBE_RECORDS, Deliverer
from services.collector.spool import Spool
from services.collector.spool_files import SpoolError
from tests.unit.collector.fakes import FakeBus, ManualClock, batch, drain, values

MIB = 1024 * 1024


class Bench:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = ManualClock()
        self.bus = FakeBus()
        self.sent = 0
        self.open()

    def open(self) -> None:
        self.spool = Spool(self.directory, MIB, self.clock)
        self.deliverer = Deliverer(self.bus, self.spool, self.clock)

    def offer(self, count: int = 1, size: int = 2) -> None:
        for _ in range(count):
            assert self.deliverer.offer(batch(self.sent, size))
            self.sent += 1
        self.deliverer.step()

    def steps(self, count: int = 20) -> None:
        for _ in range(count):
            self.deliverer.step()
            self.clock.now += 1


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "spool")


def test_healthy_everything_is_published(bench: Bench) -> None:
    bench.offer(3)
    bench.steps(1)
    assert bench.bus.arrived == values(3)
    counts = bench.deliverer.counts
    assert (counts.accepted, counts.published, counts.spooled) == (6, 6, 0)
    assert bench.spool.empty


def test_nothing_is_accepted_before_kafka_or_the_disk_has_it(bench: Bench) -> None:
    bench.bus.mode = "down"
    bench.offer(2)
    bench.steps(2)
    assert bench.deliverer.counts.accepted == 0
    bench.bus.time_out()
    bench.steps(1)
    assert (bench.deliverer.counts.accepted, bench.deliverer.counts.spooled) == (4, 4)
    assert [r.value for r in drain(bench.spool)] == values(2)


def test_an_outage_and_its_end_lose_nothing_and_keep_the_order(bench: Bench) -> None:
    bench.offer(2)
    bench.bus.mode = "down"
    bench.offer(3)
    bench.bus.time_out()
    bench.offer(4)
    assert bench.spool.records >= 8
    bench.bus.mode = "up"
    bench.offer(1)
    bench.steps()
    bench.offer(2)
    bench.steps(1)
    assert bench.bus.arrived == values(12)
    counts = bench.deliverer.counts
    assert counts.accepted == counts.published == 24
    assert counts.spooled == counts.flushed == 16
    assert bench.bus.errors == {"_MSG_TIMED_OUT": 1}


def test_while_the_spool_holds_anything_new_events_go_behind_it(bench: Bench) -> None:
    bench.bus.mode = "down"
    bench.offer(1)
    bench.bus.time_out()
    bench.steps(1)  # the first piece is on its way now
    bench.offer(2)
    assert bench.deliverer.counts.spooled == 6
    bench.bus.answer(2)
    assert bench.bus.arrived == values(1)


def test_the_reason_is_in_the_spool(bench: Bench) -> None:
    bench.bus.mode = "down"
    bench.offer(1)
    bench.bus.time_out()
    bench.steps(1)
    path = next(bench.directory.glob("*.spool"))
    assert json.loads(path.read_bytes().split(b"\n")[0])["_spool_reason"] == "_MSG_TIMED_OUT"


def test_a_full_queue_spools_the_rest_without_recalling_what_was_sent(bench: Bench) -> None:
    bench.bus.mode, bench.bus.room = "full", 3
    bench.offer(4)
    bench.steps()
    bench.bus.mode = "up"
    bench.steps()
    assert sorted(bench.bus.arrived) == sorted(values(4))
    assert bench.deliverer.counts.accepted == bench.deliverer.counts.published == 8


def test_a_failed_piece_is_sent_again_after_a_pause(bench: Bench) -> None:
    bench.bus.mode = "down"
    bench.offer(3)
    bench.bus.time_out()
    bench.steps(1)
    assert bench.bus.outstanding == 6
    bench.bus.time_out()
    bench.deliverer.step()
    assert bench.bus.outstanding == 0
    bench.deliverer.step()
    assert bench.bus.outstanding == 0, "it must pause"
    bench.clock.now += 2
    bench.deliverer.step()
    assert bench.bus.outstanding == 6
    bench.bus.mode = "up"
    bench.steps(2)
    assert bench.bus.arrived == values(3)


def test_only_a_small_piece_is_risked_after_a_failure(bench: Bench) -> None:
    bench.bus.mode = "down"
    bench.offer(1, size=3000)
    bench.bus.time_out()
    bench.steps(1)
    assert bench.bus.outstanding == PROBE_RECORDS


def test_an_interrupted_flush_goes_on_after_a_restart(bench: Bench) -> None:
    bench.bus.mode = "down"
    bench.offer(10, size=100)
    bench.bus.time_out()
    bench.steps(1)
    bench.bus.answer(PROBE_RECORDS)
    bench.steps(1)
    bench.deliverer.finish(0)
    assert bench.deliverer.counts.flushed == PROBE_RECORDS
    assert bench.bus.outstanding == 0
    bench.bus.mode = "up"
    bench.open()
    bench.steps(2)
    assert bench.bus.arrived == values(10, size=100)


def test_stopping_spools_what_kafka_did_not_take(bench: Bench) -> None:
    bench.bus.mode = "down"
    bench.offer(3)
    bench.deliverer.finish(0)
    assert bench.deliverer.counts.accepted == 6
    bench.open()
    assert [r.value for r in drain(bench.spool)] == values(3)


def test_stopping_waits_for_kafka_and_spools_nothing(bench: Bench) -> None:
    bench.bus.mode = "down"
    bench.offer(3)
    bench.bus.mode = "up"
    bench.deliverer.finish(5)
    assert bench.bus.arrived == values(3)
    assert bench.deliverer.counts.spooled == 0


def test_a_full_spool_refuses_new_scrapes_and_keeps_the_old(bench: Bench) -> None:
    bench.bus.mode = "down"
    bench.offer(1)
    bench.bus.time_out()
    while not bench.deliverer.counts.refused:
        bench.offer(1, size=500)
    counts = bench.deliverer.counts
    assert counts.scrapes_refused == {"spool_full": 1}
    assert counts.refused == {"spool_full": 500}
    assert "SPOOL_MAX_BYTES" in (bench.deliverer.problem() or "")
    kept = counts.accepted
    bench.bus.mode = "up"
    bench.steps(40)
    assert len(bench.bus.arrived) == kept
    bench.offer(1)
    bench.steps(1)
    assert bench.deliverer.problem() is None


def test_an_unwritable_spool_refuses_and_recovers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise SpoolError("No space left on device")

    bench.bus.mode = "down"
    with monkeypatch.context() as patch:
        patch.setattr(bench.spool, "write", broken)
        bench.offer(1)
        bench.bus.time_out()
        bench.steps(1)
    assert bench.deliverer.counts.refused == {"spool_unwritable": 2}
    assert bench.deliverer.counts.accepted == 0
    assert "No space left" in (bench.deliverer.problem() or "")
    bench.bus.mode = "up"
    bench.offer(1)
    bench.steps(1)
    assert bench.bus.arrived == values(1, first=1)
    assert bench.deliverer.problem() is None


def test_what_kafka_will_never_take_is_set_aside_and_stops_nothing(bench: Bench) -> None:
    bench.bus.reject = {b"0/1"}
    bench.offer(2)
    bench.steps(1)
    assert bench.bus.arrived == [b"0/0", b"1/0", b"1/1"]
    assert bench.deliverer.counts.refused == {"MSG_SIZE_TOO_LARGE": 1}
    line = json.loads((bench.directory / "rejected.jsonl").read_text())
    assert (line["reason"], line["value"]) == ("MSG_SIZE_TOO_LARGE", "0/1")


def test_the_same_out_of_the_spool(bench: Bench) -> None:
    bench.bus.mode = "down"
    bench.offer(2)
    bench.bus.time_out()
    bench.steps(1)
    bench.bus.reject = {b"0/1"}
    bench.bus.mode = "up"
    bench.steps()
    assert bench.bus.arrived == [b"0/0", b"1/0", b"1/1"]
    assert bench.spool.empty


def test_a_giant_event_does_not_cost_its_scrape(bench: Bench) -> None:
    giant = batch(0)
    giant.messages.append(("metrics", "GPU-9", b"x" * 1_000_000))
    assert bench.deliverer.offer(giant)
    bench.steps(1)
    assert bench.bus.arrived == values(1)
    assert bench.deliverer.counts.refused == {"event_too_large": 1}


def test_back_pressure(bench: Bench) -> None:
    assert bench.deliverer.offer(batch(0, size=MAX_WAITING + 1))
    assert not bench.deliverer.offer(batch(1))
    bench.deliverer.step()
    assert bench.deliverer.offer(batch(2))


ACTIONS = ["offer", "offer", "down", "up", "full", "time_out", "answer", "step", "later", "stop"]


@given(st.lists(st.sampled_from(ACTIONS), max_size=40))
@settings(max_examples=150, deadline=None)
def test_any_history_delivers_all_that_was_offered(
    tmp_path_factory: pytest.TempPathFactory, actions: list[str]
) -> None:
    bench = Bench(tmp_path_factory.mktemp("any"))
    accepted = 0
    for action in actions:
        match action:
            case "offer":
                bench.offer()
            case "down" | "up" | "full":
                bench.bus.mode, bench.bus.room = action, 3
            case "time_out":
                bench.bus.mode = "down"
                bench.bus.time_out()
                bench.deliverer.step()  # before Kafka is back: what comes back within that moment may overtake
            case "answer":
                bench.bus.answer(1)
            case "step":
                bench.deliverer.step()
            case "later":
                bench.clock.now += 5
            case "stop":
                bench.deliverer.finish(0)
                accepted += bench.deliverer.counts.accepted
                bench.open()
    bench.bus.mode = "up"
    bench.steps()
    accepted += bench.deliverer.counts.accepted
    bench.spool.close()
    assert accepted == 2 * bench.sent
    first_arrivals = list(dict.fromkeys(bench.bus.arrived))
    assert sorted(first_arrivals) == sorted(values(bench.sent))
    if "full" not in actions and "answer" not in actions:
        for gpu in (b"/0", b"/1"):
            assert [v for v in first_arrivals if v.endswith(gpu)] == [v for v in values(bench.sent) if v.endswith(gpu)]
