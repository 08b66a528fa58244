"""A clock that is moved by hand, a Kafka that does as told, batches to send."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from confluent_kafka import KafkaError

from services.collector.batch import Batch
from services.collector.publish import Flight
from services.collector.segment import Record
from services.collector.spool import Spool


class ManualClock:
    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def batch(number: int, size: int = 2, source: str = "host:9400") -> Batch:
    """Batch `number`: values `number/0`, `number/1`, ..."""
    return Batch(source, [("metrics", f"GPU-{i}", f"{number}/{i}".encode()) for i in range(size)])


def values(count: int, size: int = 2, first: int = 0) -> list[bytes]:
    """The values of batches first, first + 1, ... in order."""
    return [f"{n}/{i}".encode() for n in range(first, first + count) for i in range(size)]


def drain(spool: Spool) -> list[Record]:
    """Everything in the spool, taken out of it."""
    records: list[Record] = []
    while not spool.empty:
        chunk = spool.read(1000)
        records += chunk.records
        spool.advance(chunk)
    return records


class _Message:
    def __init__(self, topic: str, key: str, value: bytes) -> None:
        self._parts = (topic, key.encode(), value)

    def topic(self) -> str:
        return self._parts[0]

    def key(self) -> bytes:
        return self._parts[1]

    def value(self) -> bytes:
        return self._parts[2]


class FakeBus:
    """Kafka as the policy sees it: `mode` up, down (nothing is answered until abandoned), full; `reject` by value."""

    name = "Kafka"

    def __init__(self) -> None:
        self.mode = "up"
        self.arrived: list[bytes] = []
        self.errors: Counter[str] = Counter()
        self.room = 0
        """Messages taken before the queue is full, in mode `full`."""
        self.reject: set[bytes] = set()
        self._queue: list[tuple[Flight, _Message]] = []

    @property
    def outstanding(self) -> int:
        return len(self._queue)

    def send(self, batch: Batch) -> Flight:
        flight = Flight(batch, self.errors)
        for at, (topic, key, value) in enumerate(batch.messages):
            if self.mode == "full" and self.outstanding >= self.room:
                flight.refuse(batch.messages[at:], "queue_full")
                break
            self._put(flight, _Message(topic, key, value))
        return flight

    def send_records(self, records: Iterable[Record]) -> Flight:
        flight = Flight(Batch("spool", [], []), self.errors)
        for record in records:
            self._put(flight, _Message(record.topic, record.key, record.value))
        return flight

    def _put(self, flight: Flight, message: _Message) -> None:
        flight.pending += 1
        self._queue.append((flight, message))

    def poll(self, timeout: float = 0.0) -> None:
        if self.mode in ("up", "full"):
            self.answer(len(self._queue))

    def answer(self, count: int) -> None:
        """Acknowledge the first `count` messages."""
        for flight, message in self._take(count):
            if message.value() in self.reject:
                flight.delivered(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), message)
                continue
            self.arrived.append(message.value())
            flight.delivered(None, message)

    def time_out(self, count: int = 1) -> None:
        """The first `count` messages were not answered in time."""
        for flight, message in self._take(count):
            flight.delivered(KafkaError(KafkaError._MSG_TIMED_OUT), message)

    def flush(self, timeout: float) -> None:
        self.poll()

    def abandon(self, *, in_flight: bool) -> None:
        if in_flight or self.mode == "full":
            for flight, message in self._take(len(self._queue)):
                flight.delivered(KafkaError(KafkaError._PURGE_QUEUE), message)

    def _take(self, count: int) -> list[tuple[Flight, Any]]:
        taken, self._queue = self._queue[:count], self._queue[count:]
        return taken
