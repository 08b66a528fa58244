"""The sink from a real broker, decode included, against the table's own speed. Same events, table, indexes,
batches. It wants two cores for itself: on a busy machine the sink, with its threads, loses more than the plain COPY.

- sink: `gpumon sink` as a process, from its first commit to its last.
- raw: the same rows in the same batches as prebuilt binary COPY buffers, one connection, one commit a batch.
- pages: INSERT .. VALUES of 100 rows, auto-commit: what `execute_values` does, and with it most such sinks.

example: python -m tests.bench.bench_sink --events 500000 --bootstrap 127.0.0.1:9092 --dsn postgresql://...
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import json
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from services.bus.message import consume
from services.contract.row import COLUMNS
from services.sink.copy_format import to_copy
from services.sink.inventory import Inventory
from services.sink.rows import Row, RowMapper
from services.sink.validate import TimeLimits
from tests.bench.database import own_database
from tests.bench.report import Figure, Options
from tests.bench.sink_events import produce
from tests.support.kafka_server import KafkaServer
from tests.support.native_postgres import NativePostgres
from tests.support.plain_schema import fresh
from tests.support.sink_process import SinkProcess

BATCH = 5000
PARTITIONS = 12
PAGE = 100
PAGED_ROWS = 20_000
ROUNDS = 3
GOAL = 0.8
"""Of the raw COPY: the database is the limit, never our code."""
_NAMES = ", ".join(column.name for column in COLUMNS)
_COPY = f"COPY gpu_metrics ({_NAMES}) FROM STDIN (FORMAT BINARY)"


def run(options: Options) -> list[Figure]:
    events = 50_000 if options.quick else 500_000
    with _broker(options.bootstrap) as bootstrap, _database(options.dsn) as dsn:
        return measure(bootstrap, dsn, events)


@contextmanager
def _broker(given: str | None) -> Iterator[str]:
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="gpumon-bench-") as scratch, KafkaServer(Path(scratch)) as server:
        yield server.bootstrap


@contextmanager
def _database(given: str | None) -> Iterator[str]:
    """A database of its own with the project's schema: in the TimescaleDB given, else in a native PostgreSQL of the
    tests, where gpu_metrics is a plain table. (The embedded one serves one client at a time: nothing could overlap.)"""
    if given is None:
        with NativePostgres() as server:
            fresh(server.dsn).close()
            yield server.dsn
        return
    with own_database(given) as dsn:
        yield dsn


def measure(bootstrap: str, dsn: str, events: int) -> list[Figure]:
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(topic, PARTITIONS, 1)]).values():
        future.result()
    produce(bootstrap, topic, events, dt.datetime.now(dt.UTC))
    _sink_rate(bootstrap, dsn, topic, min(events, 50_000))  # registers the GPUs, warms caches and page cache
    batches = _batches(bootstrap, dsn, topic, events)
    sink, raw = [], []
    for _ in range(ROUNDS):
        raw.append(_raw_rate(dsn, batches))
        sink.append(_sink_rate(bootstrap, dsn, topic, events))
        sys.stderr.write(f"  raw {raw[-1]:,.0f}  sink {sink[-1]:,.0f} rows/s\n")
    pages = _paged_rate(dsn, batches[: PAGED_ROWS // BATCH])
    return _figures(statistics.median(sink), statistics.median(raw), pages, events)


def _figures(sink: float, raw: float, pages: float, events: int) -> list[Figure]:
    note = f"{events:,} events, batch {BATCH}, median of {ROUNDS}"
    ratio = sink / raw
    return [
        Figure("sink", "raw binary COPY of prebuilt buffers", raw, "rows/s", note=note),
        Figure("sink", "sink from Kafka, decode included", sink, "rows/s", note=note),
        Figure("sink", "sink / raw COPY", ratio, "", f">= {GOAL}", ratio >= GOAL),
        Figure("sink", "INSERT in pages of 100, auto-commit", pages, "rows/s", note="what execute_values does"),
        Figure("sink", "sink / pages of 100", sink / pages, ""),
    ]


def _batches(bootstrap: str, dsn: str, topic: str, events: int) -> list[list[Row]]:
    """All events as rows, in the order and size a sink hands them over."""
    inventory = Inventory()
    mapper = RowMapper(inventory, TimeLimits(1e9, 1e9))
    mapper.set_now(time.time())
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    batches: list[list[Row]] = [[]]
    with psycopg.connect(dsn, autocommit=True) as connection:
        taken = 0
        while taken < events:
            for message in consume(consumer, BATCH, 1.0):
                row = mapper.row(message.key(), message.value())
                if row is None:
                    inventory.register(connection)
                    row = mapper.row(message.key(), message.value())
                assert row is not None
                if len(batches[-1]) == BATCH:
                    batches.append([])
                batches[-1].append(row)
                taken += 1
    consumer.close()
    return batches


def _empty(connection: psycopg.Connection) -> None:
    connection.execute("TRUNCATE gpu_metrics, gpu_latest")
    connection.execute("CHECKPOINT")


def _raw_rate(dsn: str, batches: list[list[Row]]) -> float:
    buffers = [bytes(to_copy(batch)) for batch in batches]
    with psycopg.connect(dsn, autocommit=True) as connection:
        _empty(connection)
        started = time.perf_counter()
        for buffer in buffers:
            with connection.transaction(), connection.cursor() as cursor, cursor.copy(_COPY) as copy:
                copy.write(buffer)
        return sum(map(len, batches)) / (time.perf_counter() - started)


def _paged_rate(dsn: str, batches: list[list[Row]]) -> float:
    rows = [row for batch in batches for row in batch]
    time_value = "timestamptz '2000-01-01 00:00+00' + %s * interval '1 microsecond'"
    values = f"({time_value}{', %s' * (len(COLUMNS) - 1)})"
    statement = f"INSERT INTO gpu_metrics ({_NAMES}) VALUES {', '.join([values] * PAGE)}"
    with psycopg.ClientCursor(psycopg.connect(dsn, autocommit=True)) as cursor:
        _empty(cursor.connection)
        started = time.perf_counter()
        for first in range(0, len(rows), PAGE):
            cursor.execute(statement, [value for row in rows[first : first + PAGE] for value in row])
        took = time.perf_counter() - started
        cursor.connection.close()
    return len(rows) / took


def _sink_rate(bootstrap: str, dsn: str, topic: str, events: int) -> float:
    """Rows per second between the first commit and the last, of a new group."""
    group = f"bench-{uuid.uuid4().hex[:8]}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        _empty(connection)
        environment = {
            "KAFKA_BOOTSTRAP": bootstrap,
            "KAFKA_TOPIC": topic,
            "KAFKA_GROUP": group,
            "TIMESCALE_DSN": dsn,
            "BATCH_SIZE": str(BATCH),
            "LOG_LEVEL": "WARNING",
        }
        with SinkProcess(environment):
            first_at, first = _wait(lambda: _written(connection, group), 1)
            last_at, last = _wait(lambda: _written(connection, group), events)
        return (last - first) / (last_at - first_at)


def _written(connection: psycopg.Connection, group: str) -> int:
    found = connection.execute(
        "SELECT coalesce(sum(next_offset), 0)::bigint FROM kafka_offsets WHERE consumer_group = %s", [group]
    ).fetchone()
    return int(found[0]) if found else 0


def _wait(read: Callable[[], int], target: int) -> tuple[float, int]:
    deadline = time.monotonic() + 300
    while (now := read()) < target:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the sink wrote {now} of {target} events in 300 s")
        time.sleep(0.02)
    return time.monotonic(), now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--bootstrap")
    parser.add_argument("--dsn")
    args = parser.parse_args()
    with _broker(args.bootstrap) as bootstrap, _database(args.dsn) as dsn:
        print(json.dumps([dataclasses.asdict(f) for f in measure(bootstrap, dsn, args.events)], indent=2))


if __name__ == "__main__":
    main()
