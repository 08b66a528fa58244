"""The database away, and connections to it broken at the worst moments, while samples keep coming.

A proxy between sink and database breaks connections at instants the test chooses; a server of the test's own is killed
and started for what a proxy cannot show. A connectivity error must never send a good row to the dead letters.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from services.embedded.timescale import EmbeddedTimescale
from tests.faults import proxy as rules
from tests.faults.conftest import MakePipeline
from tests.faults.harness import Pipeline
from tests.faults.proxy import TcpProxy
from tests.support.processes import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timescale]


class Running:
    """One pipeline under load, its sink behind a proxy; the faults of this module hit it one after the other."""

    def __init__(self, pipeline: Pipeline, proxy: TcpProxy) -> None:
        self.pipeline, self.proxy = pipeline, proxy
        self.collector = pipeline.collector()
        self.sink = pipeline.sink(TIMESCALE_DSN=make_conninfo(pipeline.dsn, host="127.0.0.1", port=proxy.port))
        self.wait_for_rows()

    def wait_for_rows(self, more: int = 200) -> None:
        """Until the sink has written so many rows from now."""
        target = self.sink.metric("gpumon_sink_rows_inserted_total") + more

        def written() -> bool:
            self.sink.check()
            self.collector.check()
            return self.sink.metric("gpumon_sink_rows_inserted_total") >= target

        wait_until(written, within=60, what=f"{more} more rows ({self.sink.tail()})")

    def judge(self, what: str) -> None:
        accepted = self.pipeline.quiet(self.collector)
        self.pipeline.wait_drained()
        topic = self.pipeline.in_topic()
        balance = self.pipeline.balance(set(topic))
        inserted = int(self.sink.metric("gpumon_sink_rows_inserted_total"))
        print(f"{what}: {balance}; the sink counted {inserted} inserted")
        self.pipeline.exporter.resume()
        assert accepted == topic.total() == len(topic), "the collector's count is not what is in the topic"
        assert balance.clean, balance
        assert self.sink.running, self.sink.tail(20)


@pytest.fixture(scope="module")
def running(kafka: str, timescale: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    pipeline = Pipeline(tmp_path_factory.mktemp("pipeline"), kafka, timescale)
    host, port = (str(conninfo_to_dict(timescale)[name]) for name in ("host", "port"))
    try:
        with pipeline.exporter, TcpProxy(host, int(port)) as proxy:
            pipeline.prepare()
            yield Running(pipeline, proxy)
            pipeline.close()
    finally:
        pipeline.close()


def test_refuses_connections(running: Running) -> None:
    running.proxy.refuse()
    down_since = time.monotonic()
    wait_until(lambda: running.sink.metric("gpumon_sink_retries_total") > 2, within=30, what="the sink trying again")
    assert running.sink.get("/livez") is not None, "a database that is away is no reason to restart the sink"
    assert running.sink.get("/readyz") is None, "it must say that it cannot do its work"
    running.proxy.accept()
    running.wait_for_rows()
    running.judge(f"database refused connections for {time.monotonic() - down_since:.1f} s")


def test_hangs(running: Running) -> None:
    """Connections stay open and nothing answers."""
    running.proxy.stall()
    since = len(running.pipeline.messages())
    wait_until(lambda: len(running.pipeline.messages()) > since + 500, within=60, what="500 samples behind the stall")
    running.proxy.flow()
    running.wait_for_rows(500)
    running.judge("database hung while 500 samples came")


def test_connection_reset(running: Running) -> None:
    assert running.proxy.cut() > 0
    running.wait_for_rows()
    running.judge("one connection reset")


FAULTS = {
    "terminated (57P01) instead of COPY": (b"COPY gpu_metrics", rules.answer_with("57P01", "terminating connection")),
    "terminated (57P01) instead of COMMIT": (b"COMMIT", rules.answer_with("57P01", "terminating connection")),
    "crash of another backend (57P02)": (b"COPY gpu_metrics", rules.answer_with("57P02", "terminating connection")),
    "starting up (57P03)": (b"user\0", rules.answer_with("57P03", "the database system is starting up")),
    "too many connections (53300)": (b"user\0", rules.answer_with("53300", "sorry, too many clients already")),
    "broken in the middle of COPY's rows": (b"PGCOPY", rules.lose_half_of_it),
    "broken before COMMIT arrived": (b"COMMIT", rules.lose_the_request),
    "broken after COMMIT, its answer lost": (b"COMMIT", rules.lose_the_answer),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_connection_broken(fault: str, running: Running) -> None:
    pattern, act = FAULTS[fault]
    rule = running.proxy.on(pattern, act)
    if pattern == b"user\0":
        running.proxy.cut()
    wait_until(lambda: rule.hit, within=30, what=fault)
    running.wait_for_rows()
    running.judge(fault)


def test_commit_answers_lost_again_and_again(running: Running) -> None:
    """Every second commit's answer is lost: what was written must be recognised as written, each time."""
    rule = running.proxy.on(b"COMMIT", rules.lose_the_answer, times=5)
    wait_until(lambda: rule.hit, within=60, what="five lost answers")
    running.wait_for_rows()
    running.judge("five answers to COMMIT lost one after the other")


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.long)])
def test_server_killed_and_back(
    seconds: int, kafka: str, own_timescale: EmbeddedTimescale, make_pipeline: MakePipeline
) -> None:
    pipeline = make_pipeline(kafka, own_timescale.dsn)
    collector, sink = pipeline.collector(), pipeline.sink()
    pipeline.wait_for_rows()
    own_timescale.kill()
    time.sleep(seconds)  # the length of the outage is the fault itself
    assert sink.running
    assert sink.metric("gpumon_sink_retries_total") > 0, "the fault was not hit"
    behind = len(pipeline.messages())
    own_timescale.start()
    accepted = pipeline.quiet(collector)
    pipeline.wait_drained()
    topic = pipeline.in_topic()
    balance = pipeline.balance(set(topic))
    print(f"database killed, {seconds} s away, {behind} samples in Kafka when it came back: {balance}")
    assert accepted == topic.total()
    assert balance.clean, balance
    for role in (collector, sink):
        role.stop()


def test_backend_terminated(kafka: str, timescale: str, make_pipeline: MakePipeline) -> None:
    """pg_terminate_backend on a native server, under load."""
    if _embedded(timescale):
        pytest.skip("the embedded TimescaleDB has no backends to terminate: set TIMESCALE_DSN to a native one")
    pipeline = make_pipeline(kafka, timescale)
    collector, sink = pipeline.collector(), pipeline.sink()
    pipeline.wait_for_rows()
    with psycopg.connect(timescale, autocommit=True) as connection:
        for _ in range(5):
            before = pipeline.in_table().total()
            terminated = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            ).rowcount
            assert terminated > 0
            wait_until(lambda b=before: pipeline.in_table().total() > b, within=60, what="rows after a termination")  # type: ignore[misc]  # bound
    accepted = pipeline.quiet(collector)
    pipeline.wait_drained()
    balance = pipeline.balance(set(pipeline.in_topic()))
    print(f"backend terminated 5 times: {balance}")
    assert accepted == balance.accepted
    assert balance.clean, balance
    sink.stop()


def _embedded(dsn: str) -> bool:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT version()").fetchone()
    return row is not None and "emcc" in str(row[0]).lower()
