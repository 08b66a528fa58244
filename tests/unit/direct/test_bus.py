"""The bus on a writer that does as told: what is reported to whom, and that nobody waits for a database that hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
import pytest

from services.collector.batch import Message
from services.collector.deliver import Deliverer
from services.collector.publish import MAX_OUTSTANDING, QUEUE_FULL, Flight
from services.collector.segment import Record
from services.collector.spool import Spool
from services.direct import trouble
from services.direct.bus import DirectBus
from services.direct.writer import Verdict
from services.sink.validate import Invalid, Reason
from tests.support.processes import wait_until
from tests.unit.collector.fakes import ManualClock, batch, drain, values

TIMEOUT = 10.0


class ToldWriter:
    """Fails with `error`, refuses values in `refuse`, and waits while `gate` is not set."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.error: Exception | None = None
        self.refuse: set[bytes] = set()
        self.transactions: list[list[bytes]] = []
        self.interrupted = self.closed = False

    def write(self, messages: Sequence[Message]) -> list[Verdict]:
        self.entered.set()
        self.gate.wait(30)
        if self.interrupted:
            self.interrupted = False
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        if self.error is not None:
            raise self.error
        self.transactions.append([value for _, _, value in messages])
        return [
            (position, Invalid(Reason.RANGE, f"{value.decode()} is too much"))
            for position, (_, _, value) in enumerate(messages)
            if value in self.refuse
        ]

    def look_after(self) -> None:
        pass

    def interrupt(self) -> None:
        self.interrupted = True
        self.gate.set()

    def close(self) -> None:
        self.closed = True

    @property
    def written(self) -> list[bytes]:
        return [value for transaction in self.transactions for value in transaction]


@pytest.fixture
def writer() -> ToldWriter:
    return ToldWriter()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def bus(writer: ToldWriter, clock: ManualClock) -> Iterator[DirectBus]:
    made = DirectBus(writer, timeout=TIMEOUT, batch_size=6, clock=clock)
    yield made
    made.close()
    assert writer.closed, "the thread has ended"


def until(bus: DirectBus, condition: Callable[[], bool]) -> None:
    def turn() -> bool:
        bus.poll(0.01)
        return condition()

    wait_until(turn, within=30, what="a report")


def landed(flight: Flight) -> bool:
    return flight.pending == 0


def test_all_is_acknowledged_in_order(bus: DirectBus, writer: ToldWriter) -> None:
    flights = [bus.send(batch(number)) for number in range(5)]
    until(bus, lambda: all(map(landed, flights)))
    assert [flight.acked for flight in flights] == [2] * 5
    assert writer.written == values(5)
    assert bus.outstanding == 0
    assert not bus.errors


def test_what_comes_while_it_writes_shares_a_transaction(bus: DirectBus, writer: ToldWriter) -> None:
    writer.gate.clear()
    first = bus.send(batch(0))
    assert writer.entered.wait(30)
    flights = [bus.send(batch(number)) for number in range(1, 5)]
    writer.gate.set()
    until(bus, lambda: all(map(landed, [first, *flights])))
    assert list(map(len, writer.transactions)) == [2, 6, 2], "full at six messages, and no scrape is divided"


def test_a_batch_above_the_size_is_one_transaction(bus: DirectBus, writer: ToldWriter) -> None:
    flight = bus.send(batch(0, size=20))
    until(bus, lambda: landed(flight))
    assert list(map(len, writer.transactions)) == [20]


def test_the_spool_is_sent_the_same_way(bus: DirectBus, writer: ToldWriter) -> None:
    flight = bus.send_records(Record(1, "metrics", "GPU-1", [], value) for value in values(2))
    until(bus, lambda: landed(flight))
    assert (flight.acked, writer.written) == (4, values(2))


def test_nothing_to_send_is_done_at_once(bus: DirectBus) -> None:
    assert landed(bus.send(batch(0, size=0)))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (psycopg.OperationalError("connection refused"), trouble.UNREACHABLE),
        (psycopg.errors.AdminShutdown("going down"), trouble.UNREACHABLE),
        (psycopg.errors.DeadlockDetected("deadlock"), "sqlstate_40P01"),
        (psycopg.errors.UndefinedTable('relation "gpu_metrics" does not exist'), trouble.SCHEMA),
        (psycopg.errors.InsufficientPrivilege("permission denied"), trouble.PERMISSION),
        (psycopg.errors.QueryCanceled("statement timeout"), trouble.HANGS),
    ],
)
def test_what_the_database_cannot_take_now_is_to_be_sent_again(
    bus: DirectBus, writer: ToldWriter, error: psycopg.Error, reason: str
) -> None:
    writer.error = error
    flight = bus.send(batch(0))
    until(bus, lambda: landed(flight))
    assert flight.failed == batch(0).messages
    assert (flight.acked, flight.rejected, flight.reason) == (0, [], reason)
    assert bus.errors == {reason: 2}
    assert bus.problem is not None
    writer.error = None
    again = bus.send(batch(1))
    until(bus, lambda: landed(again))
    assert bus.problem is None


def test_what_it_will_never_take_is_rejected_each_with_its_reason(bus: DirectBus, writer: ToldWriter) -> None:
    writer.refuse = {b"0/1", b"2/0"}
    writer.gate.clear()
    flights = [bus.send(batch(number)) for number in range(3)]
    writer.gate.set()
    until(bus, lambda: all(map(landed, flights)))
    assert [flight.acked for flight in flights] == [1, 2, 1]
    assert flights[2].rejected == [batch(2).messages[0]]
    assert flights[2].verdicts == [("range", "2/0 is too much")]


def test_one_that_hangs_fails_in_time_and_its_connection_is_taken_away(
    bus: DirectBus, writer: ToldWriter, clock: ManualClock
) -> None:
    writer.gate.clear()
    flight = bus.send(batch(0))
    assert writer.entered.wait(30)
    clock.now += TIMEOUT - 0.1
    bus.poll()
    assert not landed(flight)
    clock.now += 0.2
    bus.poll()
    assert landed(flight)
    assert (flight.failed, flight.reason) == (batch(0).messages, trouble.HANGS)
    following = bus.send(batch(1))
    until(bus, lambda: landed(following))
    assert following.acked == 2
    assert (len(flight.failed), flight.pending, bus.outstanding) == (2, 0, 0), "the late report changes nothing"


def test_abandon_gives_up_what_waits(bus: DirectBus, writer: ToldWriter) -> None:
    writer.gate.clear()
    written = bus.send(batch(0))
    assert writer.entered.wait(30)
    waiting = bus.send(batch(1))
    bus.abandon(in_flight=False)
    assert waiting.failed == batch(1).messages
    assert not landed(written)
    bus.abandon(in_flight=True)
    assert written.failed == batch(0).messages
    writer.gate.set()
    wait_until(lambda: bool(writer.transactions), within=30, what="the write")
    bus.poll()
    assert (written.acked, bus.outstanding) == (0, 0)
    assert writer.written == values(1), "what waited was never begun"


def test_too_much_waiting_is_refused_at_once(bus: DirectBus, writer: ToldWriter) -> None:
    writer.gate.clear()
    bus.send(batch(0, size=MAX_OUTSTANDING))
    flight = bus.send(batch(1))
    assert (len(flight.failed), flight.reason) == (2, QUEUE_FULL)
    bus.abandon(in_flight=True)


def test_a_bug_in_the_thread_is_not_hidden(clock: ManualClock) -> None:
    writer = ToldWriter()
    writer.error = RuntimeError("a bug")
    bus = DirectBus(writer, timeout=TIMEOUT, batch_size=6, clock=clock)
    bus.send(batch(0))
    with pytest.raises(RuntimeError, match="a bug"):
        until(bus, lambda: False)
    bus.close()


def test_the_policy_spools_with_the_reason_and_flushes_in_order(
    bus: DirectBus, writer: ToldWriter, clock: ManualClock, tmp_path: Path
) -> None:
    writer.error = psycopg.OperationalError("connection refused")
    spool = Spool(tmp_path, 2**20, clock)
    deliverer = Deliverer(bus, spool, clock)
    for number in range(3):
        deliverer.offer(batch(number))
    wait_until(lambda: _turn(deliverer, clock) and spool.records == 6, within=30, what="the spool")
    assert deliverer.failing == trouble.UNREACHABLE
    assert b"database_unreachable" in next(tmp_path.glob("*.spool")).read_bytes()
    writer.error, writer.refuse = None, {b"1/0"}
    wait_until(lambda: _turn(deliverer, clock) and spool.empty, within=30, what="the flush")
    assert writer.written == values(3)
    assert deliverer.counts.flushed == 5
    assert deliverer.counts.refused == {"range": 1}
    assert "range: 1/0 is too much" in (tmp_path / "rejected.jsonl").read_text()
    deliverer.finish(1)
    assert drain(Spool(tmp_path, 2**20, clock)) == []


def _turn(deliverer: Deliverer, clock: ManualClock) -> bool:
    deliverer.step()
    clock.now += 0.05
    return True
