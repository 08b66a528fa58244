"""`gpumon demo` where it is not alone: others write into its servers, the owner's own Prometheus looks on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer

from tests.e2e.test_demo import AT_WORK, Demo, _node, demo  # noqa: F401  # the same fixtures
from tests.support.grafana_dashboards import Source, committed
from tests.support.processes import wait_until
from tests.support.prometheus_server import PrometheusServer

pytestmark = pytest.mark.timescale

SERVERS = re.compile(r"export KAFKA_BOOTSTRAP=(\S+) TIMESCALE_DSN='([^']+)'")
CONFIGURATION = re.compile(r"Prometheus: .*: (\S+/prometheus\.yml)$", re.MULTILINE)
ARGUMENTS = ("--seconds", "10", "--gpus", "4", "--interval", "0.5", "--json")
STRANGER = b"GPU-00000000-0000-0000-0000-00000000cafe"


@pytest.fixture
def at_work(demo: Any) -> tuple[Demo, str, str]:  # noqa: F811
    """A demo that writes rows, its broker and its database."""
    started: Demo = demo(*ARGUMENTS)
    started.wait_for(AT_WORK)
    servers = SERVERS.search(started.progress)
    assert servers is not None, started.progress
    return started, servers[1], servers[2]


def test_what_others_write_is_neither_counted_nor_an_error(at_work: tuple[Demo, str, str]) -> None:
    """Rows by another collector straight into the database; messages in the demo's topic, bad ones even."""
    started, broker, dsn = at_work
    identity = f'{{"uuid": "{STRANGER.decode()}", "hostname": "elsewhere"}}'
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO gpu_metrics (time, gpu_id) SELECT now() - n * interval '1 ms', register_gpu(%s, now()) "
            "FROM generate_series(1, 50) n",
            (identity,),
        )
    producer = Producer({"bootstrap.servers": broker, "log_level": 0})
    for _ in range(20):
        producer.produce("gpu-metrics-raw", b"this is no event", STRANGER)
    assert producer.flush(20) == 0
    result = started.result()
    assert result["ok"] is True
    assert (result["gpus"], result["dead_letters"]) == (4, 0)
    assert result["published_events"] == result["rows_inserted"] > 0


def test_a_row_that_is_lost_is_an_error(at_work: tuple[Demo, str, str]) -> None:
    """Also where a stranger's row makes the sum right."""
    started, _, dsn = at_work
    with psycopg.connect(dsn, autocommit=True) as connection:
        (lost,) = connection.execute(
            "DELETE FROM gpu_metrics WHERE (time, gpu_id) IN (SELECT time, gpu_id FROM gpu_metrics LIMIT 1) RETURNING 1"
        ).fetchall()
        assert lost == (1,)
        identity = f'{{"uuid": "{STRANGER.decode()}", "hostname": "elsewhere"}}'
        connection.execute("INSERT INTO gpu_metrics (time, gpu_id) SELECT now(), register_gpu(%s, now())", (identity,))
    assert started.process.wait(120) == 1, started.progress
    result = started.document
    assert result["ok"] is False
    assert result["published_events"] - result["rows_inserted"] == 1


def test_a_prometheus_of_the_owners_sees_the_demo(demo: Any, tmp_path: Path) -> None:  # noqa: F811
    """With the file it wrote: all is up, hosts apart, and the Pipeline dashboard's queries by job find their series."""
    started: Demo = demo("--gpus", "4", "--interval", "1")
    started.wait_for(AT_WORK)
    path = CONFIGURATION.search(started.progress)
    assert path is not None, started.progress
    with PrometheusServer(tmp_path, Path(path[1]).read_text()) as server:
        server.until_up("dcgm", "collector", "timescale-sink", "mock-dcgm", within=60)
        wait_until(lambda: len(server.query("up == 1")) == 5, within=60, what="a scrape of two hosts and three roles")
        up = {(r["metric"]["job"], r["metric"]["instance"]) for r in server.query("up == 1")}
        assert {instance for job, instance in up if job == "dcgm"} == {"gpu-node-000", "gpu-node-001"}
        for address in (instance for job, instance in up if job != "dcgm"):
            assert f"http://{address}/metrics" in started.progress, "each is printed at the start"
        wait_until(lambda: len(server.query("DCGM_FI_DEV_GPU_TEMP")) == 4, within=60, what="four GPUs")
        queries = [q.sql for board in committed() for q in board.queries() if q.source is Source.PROMETHEUS]
        # Values of a moment: not what grew, which may be nothing. There is no `gpumon exporter`: the mock is in its
        # place.
        queries = [sql.replace("$__rate_interval", "1m") for sql in queries if "rate(" not in sql and "incr" not in sql]
        plain = [sql for sql in queries if "$" not in sql and "gpumon_exporter_" not in sql]
        assert len(plain) > 5
        wait_until(lambda: all(server.query(sql) for sql in plain), within=60, what=f"data of all of {plain}")
