"""A sink on real parts: topics and group of the test's own, events in, rows out."""

from __future__ import annotations

import datetime as dt
import gc
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import psycopg
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from services.bus.topics import ensure, wait_for_cluster, wanted
from services.ops.clock import SystemClock
from services.settings import Settings
from services.sink.run import serve
from tests.support.messages import event

WITHIN = 60.0
"""Seconds for anything to happen: generous, the machine may be busy."""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {WITHIN:g} s"
        time.sleep(0.05)


class RunningSink:
    """A sink in a thread. `passed` are the points its batches went by."""

    def __init__(self, settings: Settings) -> None:
        self.registry = CollectorRegistry()
        self.passed: list[str] = []
        self.at: dict[str, Callable[[], None]] = {}
        """Point -> what to do there."""
        self.error: BaseException | None = None
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(settings,), daemon=True)
        self._thread.start()

    def _run(self, settings: Settings) -> None:
        try:
            serve(settings, self.stop, observe=self._observe, registry=self.registry)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            self.error = error

    def _observe(self, point: str) -> None:
        self.passed.append(point)
        self.at.get(point, lambda: None)()

    def value(self, name: str, **labels: str) -> float:
        """Of a metric; 0 when there is no such series."""
        return self.registry.get_sample_value(f"gpumon_sink_{name}", labels) or 0.0

    def paths(self) -> set[str]:
        return {rung for rung in ("direct", "staged", "bisected") if self.value("batches_total", path=rung)}

    def join(self) -> None:
        self._thread.join(WITHIN)
        assert not self._thread.is_alive(), "the sink did not end"
        gc.collect()  # its clients, which refer to each other, before the broker goes


class Bench:
    """Topics and group of one test on a broker and a database."""

    def __init__(self, bootstrap: str, dsn: str, **settings: Any) -> None:
        name = uuid.uuid4().hex[:8]
        self.settings = Settings(
            kafka_bootstrap=bootstrap,
            kafka_topic=f"raw-{name}",
            kafka_topic_invalid=f"invalid-{name}",
            kafka_topic_events=f"events-{name}",
            kafka_partitions=4,
            kafka_group=f"sink-{name}",
            kafka_group_protocol="consumer",
            timescale_dsn=SecretStr(dsn),
            batch_timeout=0.1,
            **settings,
        )
        self.connection = psycopg.connect(dsn, autocommit=True)
        self.producer = Producer({"bootstrap.servers": bootstrap})
        admin = AdminClient({"bootstrap.servers": bootstrap})
        ensure(admin, wait_for_cluster(admin, 30, SystemClock()), wanted(self.settings), 1)
        self.gpu = f"GPU-{uuid.uuid4()}"
        self.begin = dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(minutes=20)

    def time(self, number: int) -> str:
        return (self.begin + dt.timedelta(seconds=number)).isoformat().replace("+00:00", "Z")

    def sample(self, number: int, **changes: Any) -> dict[str, Any]:
        """The `number`th sample of this test's GPU."""
        gpu = {"uuid": self.gpu, "hostname": "node-1"}
        return event(time=self.time(number), gpu=gpu, metrics={"gpu_temp": number % 100}, **changes)

    def send(self, *values: dict[str, Any] | bytes, topic: str | None = None, key: str | None = None) -> None:
        """Publish, acknowledged when this returns."""
        for value in values:
            content = value if isinstance(value, bytes) else msgspec.json.encode(value)
            self.producer.produce(topic or self.settings.kafka_topic, content, key or self.gpu)
            self.producer.poll(0)
        assert self.producer.flush(30) == 0

    @contextmanager
    def sink(self, settings: Settings | None = None) -> Iterator[RunningSink]:
        """Stopped as by SIGTERM at the end; its error is raised then."""
        running = RunningSink(settings or self.settings)
        try:
            yield running
        finally:
            running.stop.set()
            running.join()
        if running.error is not None:
            raise running.error

    def count(self) -> int:
        """Rows of this test's GPU."""
        query = "SELECT count(*) FROM gpu_metrics JOIN gpus USING (gpu_id) WHERE gpu_uuid = %s"
        return int(self.one(query, [self.gpu]))

    def temperatures(self) -> list[int | None]:
        query = "SELECT gpu_temp FROM gpu_metrics JOIN gpus USING (gpu_id) WHERE gpu_uuid = %s ORDER BY time"
        return [row[0] for row in self.connection.execute(query, [self.gpu]).fetchall()]

    def one(self, query: str, given: Any = None) -> Any:
        row = self.connection.execute(query, given).fetchone()
        return None if row is None else row[0]

    def stored(self) -> int:
        """Sum of the offsets in the table, over all topics of this group."""
        query = "SELECT coalesce(sum(next_offset), 0) FROM kafka_offsets WHERE consumer_group = %s"
        return int(self.one(query, [self.settings.kafka_group]))

    def wait_for_rows(self, number: int) -> None:
        wait_for(lambda: self.count() >= number, f"{number} rows")

    def wait_for_offsets(self, total: int) -> None:
        """Everything that was published has been dealt with, one way or another."""
        wait_for(lambda: self.stored() >= total, f"offsets up to {total}")

    def close(self) -> None:
        self.connection.close()
