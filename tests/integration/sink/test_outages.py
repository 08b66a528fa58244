"""Connections cut, the database away, the process killed at every point: each accepted event is a row, once.

On a native PostgreSQL, which can be stopped and whose sessions are real; the sink uses nothing of TimescaleDB itself.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import psycopg
import pytest

from services.settings import Settings
from tests.integration.sink.harness import Bench, RunningSink, wait_for
from tests.support.native_postgres import NativePostgres
from tests.support.plain_schema import fresh
from tests.support.processes import free_port
from tests.support.sink_process import SinkProcess

pytestmark = pytest.mark.native


@pytest.fixture(scope="module")
def plain(native_postgres: NativePostgres) -> NativePostgres:
    fresh(native_postgres.dsn).close()
    return native_postgres


@pytest.fixture
def bench(embedded_broker: str, plain: NativePostgres) -> Iterator[Bench]:
    made = Bench(embedded_broker, plain.dsn)
    # So that the partitions of a killed sink are free soon: the mock cluster takes 30 s with the new protocol, and with
    # the old one 3 s to form a group, which the session must outlive.
    quick = {"kafka_group_protocol": "classic", "kafka_session_timeout": 4.0}
    made.settings = made.settings.model_copy(update=quick)
    yield made
    made.close()


def environment(settings: Settings) -> dict[str, str]:
    assert settings.timescale_dsn is not None
    return {
        "KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "KAFKA_TOPIC": settings.kafka_topic,
        "KAFKA_TOPIC_INVALID": settings.kafka_topic_invalid,
        "KAFKA_TOPIC_EVENTS": settings.kafka_topic_events,
        "KAFKA_GROUP": settings.kafka_group,
        "KAFKA_GROUP_PROTOCOL": settings.kafka_group_protocol,
        "KAFKA_SESSION_TIMEOUT": str(settings.kafka_session_timeout),
        "TIMESCALE_DSN": settings.timescale_dsn.get_secret_value(),
        "BATCH_SIZE": str(settings.batch_size),
        "BATCH_TIMEOUT": str(settings.batch_timeout),
    }


def test_a_terminated_connection_costs_nothing_but_a_retry(bench: Bench) -> None:
    killed: list[int] = []

    def terminate() -> None:
        if not killed:
            query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gpumon-sink'"
            killed.extend(row[0] for row in bench.connection.execute(query).fetchall())

    bench.send(*(bench.sample(number) for number in range(100)))
    sink = RunningSink(bench.settings)
    sink.at["before_commit"] = terminate
    bench.wait_for_offsets(100)
    sink.stop.set()
    sink.join()
    assert killed
    assert sink.error is None
    assert bench.temperatures() == list(range(100))
    assert sink.value("retries_total", sqlstate="57P01") + sink.value("retries_total", sqlstate="none") >= 1
    assert sink.value("dead_letters_total", reason="database") == 0


def test_a_database_that_is_away_pauses_reading_and_loses_nothing(bench: Bench, plain: NativePostgres) -> None:
    with bench.sink() as sink:
        bench.send(*(bench.sample(number) for number in range(50)))
        bench.wait_for_rows(50)
        plain.stop()
        sent = 50

        def send_until_paused() -> bool:
            nonlocal sent
            bench.send(bench.sample(sent))
            sent += 1
            return sink.value("paused") == 1.0

        wait_for(send_until_paused, "reading is paused")
        bench.send(*(bench.sample(number) for number in range(sent, sent + 50)))
        assert sink.value("database_up") == 0.0
        plain.start()
        bench.connection.close()
        bench.connection = psycopg.connect(plain.dsn, autocommit=True)
        bench.wait_for_offsets(sent + 50)
        wait_for(lambda: sink.value("paused") == 0.0, "reading goes on")
    assert bench.count() == sent + 50
    assert sink.value("dead_letters_total", reason="database") == 0


LONG = ("before_copy", "copied_direct", "after_offset_commit")
"""Ten seconds each; tests/faults kills at every point as well, on a real Kafka."""
POINTS = [*(pytest.param(point, marks=pytest.mark.long) for point in LONG), "before_commit", "after_db_commit"]


@pytest.mark.parametrize("point", POINTS)
def test_killed_on_the_direct_way(bench: Bench, point: str) -> None:
    _killed_and_started_again(bench, point, [bench.sample(number) for number in range(100)], "direct")


def test_killed_in_the_staging_table(bench: Bench) -> None:
    samples = [bench.sample(number) for number in range(100)]
    _killed_and_started_again(bench, "staged", [*samples, *samples[:50]], "staged")


@pytest.mark.long
def test_killed_while_bisecting(bench: Bench) -> None:
    samples = [bench.sample(number) for number in range(100)]
    poison = bench.sample(50, tenant={"pod": "a\0b"})
    _killed_and_started_again(bench, "bisecting", [*samples[:50], poison, *samples[50:]], "bisected", nth=5)


def crashing_sink(bench: Bench, point: str, nth: int) -> SinkProcess:
    return SinkProcess(environment(bench.settings), module="tests.support.crashing_sink", arguments=(point, str(nth)))


def _killed_and_started_again(
    bench: Bench, point: str, events: list[dict[str, object]], path: str, nth: int = 1
) -> None:
    bench.send(*events)
    with crashing_sink(bench, point, nth) as process:
        assert process.wait(60) == -9, process.log
        assert f"killed at {point}" in process.log, "the state must have been hit"
    with bench.sink() as sink:
        bench.wait_for_offsets(len(events))
    assert bench.temperatures() == list(range(100))
    written_before = point in ("after_db_commit", "after_offset_commit")
    assert sink.paths() == (set() if written_before else {path})


def test_a_frozen_sink_that_wakes_up_cannot_write_over_its_successor(bench: Bench) -> None:
    """Frozen long enough to lose its partitions would take 45 s; here a second group member's place in the table is
    simulated by the table itself moving on while the first is frozen in mid-batch."""
    with SinkProcess(environment(bench.settings)) as first:
        bench.send(*(bench.sample(number) for number in range(50)))
        bench.wait_for_rows(50)
        first.pause()
        bench.send(*(bench.sample(number) for number in range(50, 100)))
        other = bench.settings.model_copy(update={"kafka_group_instance_id": None})
        with bench.sink(other) as second:
            bench.connection.execute(
                "UPDATE kafka_offsets SET next_offset = 40 WHERE consumer_group = %s AND next_offset = 50",
                [bench.settings.kafka_group],
            )
            first.resume()
            bench.wait_for_offsets(100)
        assert second.error is None
    assert bench.temperatures() == list(range(100))


def test_sigterm_writes_what_was_read_and_ends_with_zero(bench: Bench) -> None:
    with SinkProcess(
        environment(bench.settings) | {"BATCH_TIMEOUT": "600", "OPS_PORT": str(port := free_port())}
    ) as process:
        wait_for(lambda: process.log.count("partition starts") >= 4, "the sink reads")
        bench.send(*(bench.sample(number) for number in range(20)))
        wait_for(lambda: "gpumon_sink_messages_total 20.0" in metrics(port), "the sink has read them")
        assert bench.count() == 0, "they wait for their batch"
        assert process.stop() == 0, process.log
    assert bench.temperatures() == list(range(20))


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def test_a_schema_that_is_missing_is_said_in_one_line(bench: Bench) -> None:
    bench.connection.execute("ALTER TABLE gpu_latest RENAME TO gpu_latest_away")
    try:
        with SinkProcess(environment(bench.settings)) as process:
            assert process.wait(60) == 1
            assert "run `gpumon migrate`" in process.log
    finally:
        bench.connection.execute("ALTER TABLE gpu_latest_away RENAME TO gpu_latest")


@pytest.mark.long
def test_three_sinks_share_the_work_and_one_is_killed(bench: Bench) -> None:
    settings = environment(bench.settings) | {"BATCH_SIZE": "50"}
    gpus = [f"{bench.gpu}-{number}" for number in range(16)]

    def send(first: int, last: int) -> None:
        for gpu in gpus:
            samples = [{**bench.sample(n), "gpu": {"uuid": gpu, "hostname": "h"}} for n in range(first, last)]
            bench.send(*samples, key=gpu)

    with SinkProcess(settings) as one, SinkProcess(settings), SinkProcess(settings):
        send(0, 40)
        bench.wait_for_offsets(16 * 20)
        one.kill()
        send(40, 80)
        bench.wait_for_offsets(16 * 80)
    query = "SELECT count(*) FROM gpu_metrics JOIN gpus USING (gpu_id) WHERE gpu_uuid LIKE %s"
    assert bench.one(query, [f"{bench.gpu}-%"]) == 16 * 80


@pytest.mark.parametrize("crashes", [3])
def test_a_database_that_crashes_and_forgets_its_last_commits_loses_nothing(
    bench: Bench, plain: NativePostgres, crashes: int
) -> None:
    """Commits are asynchronous (ADR 5): the server forgets some, the sink finds out and reads them again."""
    sent = 0
    with bench.sink(bench.settings.model_copy(update={"batch_timeout": 0.01})) as sink:
        for _ in range(crashes):
            for _ in range(20):
                bench.send(*(bench.sample(number) for number in range(sent, sent + 25)))
                sent += 25
            # At once after the last batch is visible, before it is on disk: it may be gone in a moment.
            bench.wait_for_offsets(sent)
            plain.kill()
            bench.connection.close()
            plain.start()
            bench.connection = psycopg.connect(plain.dsn, autocommit=True)
        wait_for(lambda: bench.count() == sent, "every row, with no further event to wake the sink")
    assert bench.count() == sent
    assert sink.value("dead_letters_total", reason="database") == 0
