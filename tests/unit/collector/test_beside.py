"""What `gpumon sample` left below SPOOL_DIR goes with the running collector, and costs its own events nothing."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from services.collector.beside import LOOK, RETRY, Beside
from services.collector.deliver import Deliverer
from services.collector.spool import Spool
from tests.unit.collector.fakes import FakeBus, ManualClock, batch, drain, values

MIB = 1024 * 1024


class Bench:
    """A collector's thread by hand."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = ManualClock()
        self.bus = FakeBus()
        self.spool = Spool(directory, MIB, self.clock)
        self.own = Deliverer(self.bus, self.spool, self.clock)
        self.beside = Beside(self.bus, self.own, self.spool, directory, max_bytes=MIB, clock=self.clock)

    def turn(self, count: int = 10) -> None:
        for _ in range(count):
            self.own.step()
            self.beside.step()

    def after(self, seconds: float) -> None:
        self.clock.now += seconds
        self.turn()

    def kept(self, name: str, number: int) -> Path:
        """A spool as `gpumon sample` leaves it, with batch `number`."""
        spool = Spool(self.directory / name, MIB, self.clock)
        spool.write(batch(number), "_MSG_TIMED_OUT")
        spool.sync()
        spool.close()
        return self.directory / name

    def waits_in(self, path: Path) -> int:
        spool = Spool(path, MIB, self.clock)
        try:
            return spool.records
        finally:
            spool.close()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "spool")


def test_all_of_it_is_sent(bench: Bench) -> None:
    paths = [bench.kept("sample-1", 0), bench.kept("sample-3", 1)]
    bench.turn()
    assert bench.bus.arrived == [], "it looks now and then only"
    bench.after(LOOK)
    assert bench.bus.arrived == values(2)
    assert [bench.waits_in(path) for path in paths] == [0, 0], "and the locks are given back"
    assert bench.own.counts.published == 0, "what it did not accept it does not count"


def test_not_while_its_own_spool_waits(bench: Bench) -> None:
    path = bench.kept("sample-1", 0)
    bench.bus.mode = "down"
    bench.own.offer(batch(1))
    bench.own.step()
    bench.bus.time_out()
    bench.after(LOOK)
    assert not bench.spool.empty
    assert bench.waits_in(path) == 2, "and it is not locked"
    bench.bus.mode = "up"
    bench.after(1)
    bench.after(LOOK)
    assert bench.bus.arrived == [*values(1, first=1), *values(1)]


def test_a_failure_leaves_it_for_later(bench: Bench) -> None:
    path = bench.kept("sample-1", 0)
    bench.bus.mode = "down"
    bench.after(LOOK)
    bench.bus.time_out()
    bench.turn()
    assert bench.waits_in(path) == 2
    bench.bus.mode = "up"
    bench.after(RETRY / 2)
    assert bench.bus.arrived == []
    bench.after(RETRY)
    assert bench.bus.arrived == values(1)


def test_its_own_events_lose_nothing_by_that_failure(bench: Bench) -> None:
    bench.kept("sample-1", 0)
    bench.bus.mode = "down"
    bench.after(LOOK)
    assert bench.own.offer(batch(1))
    bench.own.step()
    bench.bus.time_out()
    bench.turn()
    assert [record.value for record in drain(bench.spool)] == values(1, first=1)
    assert bench.own.counts.accepted == 2


def test_its_own_events_on_their_way_are_left_to_arrive(bench: Bench) -> None:
    """Giving a spool back must not give up what the collector has sent meanwhile."""
    bench.kept("sample-1", 0)
    bench.bus.mode = "down"
    bench.after(LOOK)
    assert bench.own.offer(batch(1))
    bench.own.step()
    bench.bus.answer(2)
    bench.turn()
    assert bench.bus.arrived == values(1)
    bench.bus.mode = "up"
    bench.turn()
    assert bench.bus.arrived == values(2)
    assert bench.own.counts.spooled == 0


def test_one_that_is_being_written_is_left_alone(bench: Bench) -> None:
    bench.kept("sample-1", 0)
    sample = Spool(bench.directory / "sample-1", MIB, bench.clock)
    bench.after(LOOK)
    assert bench.bus.arrived == []
    sample.close()
    bench.after(LOOK)
    assert bench.bus.arrived == values(1)


def test_a_stop_in_between_loses_nothing(bench: Bench) -> None:
    path = bench.kept("sample-1", 0)
    bench.bus.mode = "down"
    bench.after(LOOK)
    assert bench.bus.outstanding == 2
    bench.own.finish(0)
    bench.beside.finish()
    assert bench.waits_in(path) == 2


def test_one_that_cannot_be_locked_is_told_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    path = bench.kept("sample-1", 0)
    caplog.set_level(logging.INFO, "collector")
    (path / "lock").unlink()
    (path / "lock").mkdir()
    bench.after(LOOK)
    bench.after(LOOK)
    assert len([message for message in caplog.messages if "cannot be sent" in message]) == 1
