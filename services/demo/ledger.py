"""The balance at the end: events in the broker against rows in the database."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psycopg
from confluent_kafka import Consumer, TopicPartition

from services.demo.pipeline import Pipeline
from services.demo.watch import Progress
from services.settings import Settings

POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Balance:
    published: int
    """Events in the raw topic since `open`."""
    rows: int
    """Rows in gpu_metrics since `open`."""
    dead_letters: int
    gpus: int


class Ledger:
    """Counts in the broker and in the database, independent of what the roles say of themselves."""

    def __init__(self, pipeline: Pipeline, settings: Settings) -> None:
        self._dsn = pipeline.dsn
        self._settings = settings
        self._consumer = Consumer({"bootstrap.servers": pipeline.bootstrap, "group.id": "gpumon-demo-ledger"})
        self._rows = 0
        self._ends: dict[str, dict[int, int]] = {}

    def open(self) -> int:
        """Remember where broker and database stand. Rows that are there already."""
        self._rows = self._count("gpu_metrics")
        self._ends = {topic: self._end_offsets(topic) for topic in self._topics}
        return self._rows

    @property
    def _topics(self) -> tuple[str, str]:
        return (self._settings.kafka_topic, self._settings.kafka_topic_invalid)

    def drain(self, within: float) -> bool:
        """Wait until the sink has written up to the end of the raw topic; False after `within` seconds."""
        deadline = time.monotonic() + within
        ends = {p: end for p, end in self._end_offsets(self._settings.kafka_topic).items() if end > 0}
        while not self._written(ends):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _written(self, ends: dict[int, int]) -> bool:
        query = "SELECT partition, max(next_offset) FROM kafka_offsets WHERE topic = %s AND cluster_id = %s GROUP BY 1"
        with psycopg.connect(self._dsn) as connection:
            done: dict[int, int] = dict(
                connection.execute(query, (self._settings.kafka_topic, self._cluster_id())).fetchall()
            )
        return all(done.get(partition, 0) >= end for partition, end in ends.items())

    def close(self) -> Balance:
        """What has come since `open`."""
        published, dead = (self._since_open(topic) for topic in self._topics)
        balance = Balance(published, self._count("gpu_metrics") - self._rows, dead, self._count("gpus"))
        self._consumer.close()
        return balance

    def _since_open(self, topic: str) -> int:
        return sum(end - self._ends[topic].get(partition, 0) for partition, end in self._end_offsets(topic).items())

    def _count(self, table: str) -> int:
        with psycopg.connect(self._dsn) as connection:
            row = connection.execute(psycopg.sql.SQL("SELECT count(*) FROM {}").format(psycopg.sql.Identifier(table)))
            return int((row.fetchone() or (0,))[0])

    def _cluster_id(self) -> str:
        return str(self._consumer.list_topics(timeout=10).cluster_id)

    def _end_offsets(self, topic: str) -> dict[int, int]:
        partitions = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        return {
            p: int(self._consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1]) for p in partitions
        }


def verdict(balance: Balance, last: Progress, *, drained: bool) -> dict[str, object]:
    """The JSON object of `gpumon demo --json`. ok: something was published, and every event of it is a row."""
    return {
        "scraped_samples": int(last.scraped),
        "published_events": balance.published,
        "rows_inserted": balance.rows,
        "duplicates": int(last.duplicates),
        "dead_letters": balance.dead_letters,
        "gpus": balance.gpus,
        "freshness_seconds_p50": _rounded(last.freshness_p50),
        "freshness_seconds_p99": _rounded(last.freshness_p99),
        "ok": drained and 0 < balance.published == balance.rows and balance.dead_letters == 0 and last.evicted == 0,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
