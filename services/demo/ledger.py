"""The balance at the end: events in the broker against rows in the database, both of the demo's own GPUs.

Others may use broker and database beside it (a collector for a GPU of one's own, another demo): what they write is
neither ours nor an error. Whose an event is says its key, the GPU's UUID, so all of the topic is read as it comes.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Final, LiteralString

import psycopg
from confluent_kafka import Consumer, TopicPartition

from services.bus.message import Message, consume
from services.demo.pipeline import Pipeline
from services.demo.watch import Progress
from services.settings import Settings

POLL_SECONDS = 0.2
AT_ONCE = 10_000
"""Messages in one poll: one second of ten thousand GPUs."""
CAUGHT_UP_WITHIN_SECONDS = 30.0
"""At the end, to read what the sink has read already; usually there is nothing left."""
_OWN_GPUS: Final = "SELECT count(*) FROM gpus WHERE gpu_uuid = ANY(%s)"
_OWN_ROWS: Final = "SELECT count(*) FROM gpu_metrics JOIN gpus USING (gpu_id) WHERE gpu_uuid = ANY(%s)"
Place = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True, slots=True)
class Balance:
    """Of the demo's own GPUs, since `open`."""

    published: int
    """Events in the raw topic."""
    rows: int
    """Rows in gpu_metrics."""
    dead_letters: int
    gpus: int
    """In the inventory."""


class Tally:
    """Counts the messages of our own GPUs by topic, and how far each partition was read."""

    def __init__(self, own: frozenset[str], begin: Mapping[Place, int]) -> None:
        self._own = frozenset(uuid.encode() for uuid in own)
        self.of_own: Counter[str] = Counter()
        self.next: dict[Place, int] = dict(begin)

    def add(self, message: Message) -> None:
        if message.error() is not None:
            return  # of the connection: the client tries again
        self.next[message.topic(), message.partition()] = message.offset() + 1
        if message.key() in self._own:
            self.of_own[message.topic()] += 1

    def has_reached(self, ends: Mapping[Place, int]) -> bool:
        return all(self.next.get(place, 0) >= end for place, end in ends.items())


class Ledger:
    """Counts in the broker and in the database, independent of what the roles say of themselves."""

    def __init__(self, pipeline: Pipeline, settings: Settings) -> None:
        self._dsn = pipeline.dsn
        self._settings = settings
        self._own = pipeline.gpu_uuids()
        self._servers = pipeline.bootstrap
        self._consumer = self._client()
        self._rows = 0
        self._tally = Tally(self._own, {})
        self._enough = threading.Event()
        self._reader: threading.Thread | None = None

    def _client(self) -> Consumer:
        """Of no group's partitions, and commits nothing. What the broker dropped is skipped: missing in the balance."""
        return Consumer({
            "bootstrap.servers": self._servers, "group.id": "gpumon-demo-ledger",
            "enable.auto.commit": False, "auto.offset.reset": "earliest",
            "log_level": 2,  # no lines of its own between ours: that the broker is away says the pipeline
        })  # fmt: skip

    def open(self) -> int:
        """Remember where broker and database stand, and begin to read. Rows of our GPUs that are there already."""
        self._rows = self._count(_OWN_ROWS)
        begin = self._end_offsets(*self._topics)
        self._tally = Tally(self._own, begin)
        self._reader = threading.Thread(target=self._read, args=(begin,), name="ledger", daemon=True)
        self._reader.start()
        return self._rows

    def _read(self, begin: Mapping[Place, int]) -> None:
        consumer = self._client()  # of this thread alone: a client lets one thread in at a time
        with closing(consumer):
            consumer.assign([TopicPartition(*place, offset) for place, offset in begin.items()])
            while not self._enough.is_set():
                for message in consume(consumer, AT_ONCE, POLL_SECONDS):
                    self._tally.add(message)

    @property
    def _topics(self) -> tuple[str, str]:
        return (self._settings.kafka_topic, self._settings.kafka_topic_invalid)

    def drain(self, within: float, check: Callable[[], None]) -> bool:
        """Wait until the sink has written up to the end of the raw topic; False after `within` seconds. The end of now:
        our collector has stopped, and others may go on. `check` raises when it never will."""
        ends = {place: end for place, end in self._end_offsets(self._settings.kafka_topic).items() if end > 0}

        def written() -> bool:
            check()
            return self._written(ends)

        return _until(written, within)

    def _written(self, ends: Mapping[Place, int]) -> bool:
        query = "SELECT partition, max(next_offset) FROM kafka_offsets WHERE topic = %s AND cluster_id = %s GROUP BY 1"
        with psycopg.connect(self._dsn) as connection:
            done: dict[int, int] = dict(
                connection.execute(query, (self._settings.kafka_topic, self._cluster_id())).fetchall()
            )
        return all(done.get(partition, 0) >= end for (_, partition), end in ends.items())

    def balance(self) -> Balance:
        """What has come since `open`. What could not be read in time is missing, and the balance wrong."""
        ends = self._end_offsets(*self._topics)
        _until(lambda: self._tally.has_reached(ends), CAUGHT_UP_WITHIN_SECONDS)
        self._end_reader()
        published, dead = (self._tally.of_own[topic] for topic in self._topics)
        return Balance(published, self._count(_OWN_ROWS) - self._rows, dead, self._count(_OWN_GPUS))

    def close(self) -> None:
        """Let go of the broker, whatever has happened; before it stops. Call once."""
        self._end_reader()
        self._consumer.close()

    def _end_reader(self) -> None:
        self._enough.set()
        if self._reader is not None:
            self._reader.join()

    def _count(self, query: LiteralString) -> int:
        with psycopg.connect(self._dsn) as connection:
            row = connection.execute(query, (list(self._own),))
            return int((row.fetchone() or (0,))[0])

    def _cluster_id(self) -> str:
        return str(self._consumer.list_topics(timeout=10).cluster_id)

    def _end_offsets(self, *topics: str) -> dict[Place, int]:
        places = [(t, p) for t in topics for p in self._consumer.list_topics(t, timeout=10).topics[t].partitions]
        return {
            place: int(self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=10)[1]) for place in places
        }


def _until(condition: Callable[[], bool], within: float) -> bool:
    """Whether it came true; within so many seconds."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def verdict(balance: Balance, last: Progress, *, drained: bool) -> dict[str, object]:
    """The JSON object of `gpumon demo --json`. ok: no shortfall."""
    return {
        "scraped_samples": int(last.scraped),
        "published_events": balance.published,
        "rows_inserted": balance.rows,
        "duplicates": int(last.duplicates),
        "dead_letters": balance.dead_letters,
        "gpus": balance.gpus,
        "freshness_seconds_p50": _rounded(last.freshness_p50),
        "freshness_seconds_p99": _rounded(last.freshness_p99),
        "targets_down": int(last.targets_down),
        "ok": not shortfalls(balance, last, drained=drained),
    }


def shortfalls(balance: Balance, last: Progress, *, drained: bool) -> list[str]:
    """What is missing: something was published, every event of it is a row, and it went on to the end."""
    found = {
        "the sink had not written all in time": not drained,
        "nothing was published": balance.published == 0,
        f"{balance.published} events were published, {balance.rows} rows inserted": balance.published != balance.rows,
        f"{balance.dead_letters} dead letters": balance.dead_letters > 0,
        f"the broker dropped {last.evicted:.0f} messages before the sink read them": last.evicted > 0,
        f"at the end all {last.targets:.0f} targets were down": 0 < last.targets <= last.targets_down,
    }
    return [text for text, true in found.items() if true]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
