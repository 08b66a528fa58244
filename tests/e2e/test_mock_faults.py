"""Faults of the mock, seen at the other end: what happened stands in `gpu_events`, and nobody else is disturbed."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.faults.harness import Pipeline
from tests.faults.roles import Role
from tests.support.processes import free_port

pytestmark = [pytest.mark.kafka, pytest.mark.timescale]

GPUS_PER_HOST = 2


class Running:
    """A mock of two hosts with two GPUs each, scraped twice a second as two targets."""

    def __init__(self, pipeline: Pipeline, mock_port: int, hosts: list[dict[str, Any]]) -> None:
        self.pipeline = pipeline
        self._mock = f"http://127.0.0.1:{mock_port}"
        self.first, self.second = (str(host["host"]) for host in hosts)
        self.gpus = {str(host["host"]): [str(gpu["uuid"]) for gpu in host["gpus"]] for host in hosts}

    def fault(self, kind: str, host: str, gpu: int | None = None, value: float | None = None) -> int:
        """Start a fault; its id."""
        given = {"kind": kind, "host": host, "gpu": gpu, "value": value}
        body = json.dumps({name: v for name, v in given.items() if v is not None}).encode()
        with urllib.request.urlopen(f"{self._mock}/control/faults", body) as answer:
            return int(json.loads(answer.read())["id"])

    def clear(self, fault: int) -> None:
        request = urllib.request.Request(f"{self._mock}/control/faults/{fault}", method="DELETE")
        urllib.request.urlopen(request).close()

    def query(self, text: str, *parameters: object) -> list[dict[str, Any]]:
        with psycopg.connect(self.pipeline.dsn, row_factory=dict_row) as connection:
            return connection.execute(text, parameters).fetchall()

    def wait_event(self, kind: str, *, after: int, host: str) -> dict[str, Any]:
        """The first event of the kind behind the first `after` ones that concerns the host."""

        def found() -> list[dict[str, Any]]:
            return self.query(
                "SELECT * FROM gpu_events WHERE kind = %s AND (hostname = %s OR source LIKE %s) ORDER BY time",
                kind,
                host,
                f"%{host}%",
            )[after:]

        self.pipeline.wait_for(lambda: bool(found()), f"event {kind} of {host}")
        return found()[0]

    def events(self, kind: str) -> int:
        return int(self.query("SELECT count(*) AS n FROM gpu_events WHERE kind = %s", kind)[0]["n"])

    def rows(self, uuid: str) -> int:
        query = "SELECT count(*) AS n FROM gpu_metrics JOIN gpus USING (gpu_id) WHERE gpu_uuid = %s"
        return int(self.query(query, uuid)[0]["n"])

    def wait_rows(self, uuids: list[str], more: int = 3) -> None:
        """Until each of these GPUs has so many more rows."""
        before = {uuid: self.rows(uuid) for uuid in uuids}
        self.pipeline.wait_for(
            lambda: all(self.rows(uuid) >= before[uuid] + more for uuid in uuids), f"{more} rows more of {uuids}"
        )


@pytest.fixture(scope="module")
def running(kafka: str, timescale: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("mock-faults")
    targets, port = directory / "targets.json", free_port()
    environment = {"TARGETS": "", "TARGETS_FILES": str(targets), "COLLECTION_INTERVAL": "0.5", "SCRAPE_TIMEOUT": "0.5"}
    pipeline = Pipeline(directory, kafka, timescale, environment=environment)
    try:
        pipeline.prepare()
        arguments = ["--port", str(port), "--hosts", "2", "--gpus-per-host", str(GPUS_PER_HOST), "--model", "H100"]
        arguments += ["--interval", "0.2", "--write-targets", str(targets)]
        mock = pipeline.role("mock", "mock", *arguments)
        mock.wait_ready()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/hosts") as answer:
            hosts = json.loads(answer.read())
        pipeline.collector()
        pipeline.sink()
        running = Running(pipeline, port, hosts)
        running.wait_rows([uuid for uuids in running.gpus.values() for uuid in uuids])
        yield running
    finally:
        pipeline.close()


def test_gpu_lost_and_returned(running: Running) -> None:
    lost, neighbour = running.gpus[running.first]
    fault = running.fault("gpu_lost", running.first, gpu=0)
    event = running.wait_event("gpu_lost", after=0, host=running.first)
    assert event["gpu_uuid"] == lost
    assert event["gpu_id"] is not None
    assert event["hostname"] == running.first
    at_loss = running.rows(lost)
    running.wait_rows([neighbour, *running.gpus[running.second]])
    assert running.rows(lost) == at_loss, "rows of a GPU that was not there"
    running.clear(fault)
    event = running.wait_event("gpu_returned", after=0, host=running.first)
    assert event["gpu_uuid"] == lost
    running.wait_rows([lost])


def test_exporter_hangs(running: Running) -> None:
    """Its own target is down with the reason; the other target goes on; both are there afterwards."""
    downs, ups = running.events("target_down"), running.events("target_up")
    fault = running.fault("exporter_hang", running.second)
    event = running.wait_event("target_down", after=downs, host=running.second)
    assert event["detail"]["reason"] == "timeout"
    running.wait_rows(running.gpus[running.first])
    running.clear(fault)
    running.wait_event("target_up", after=ups, host=running.second)
    running.wait_rows(running.gpus[running.second])
    assert running.events("target_down") == downs + 1, "once for each change, not for each scrape"


def test_truncated_body(running: Running) -> None:
    """Refused whole: a scrape has the rows of all its GPUs, or none."""
    downs, ups = running.events("target_down"), running.events("target_up")
    fault = running.fault("truncated_body", running.second, value=0.7)
    event = running.wait_event("target_down", after=downs, host=running.second)
    print(f"truncated body: {event['detail']}")
    running.wait_rows(running.gpus[running.first])
    running.clear(fault)
    running.wait_event("target_up", after=ups, host=running.second)
    running.wait_rows(running.gpus[running.second])
    scrapes = running.query(
        "SELECT time, count(*) AS gpus FROM gpu_metrics JOIN gpus USING (gpu_id) WHERE hostname = %s GROUP BY time",
        running.second,
    )
    assert {scrape["gpus"] for scrape in scrapes} == {GPUS_PER_HOST}


def test_counter_reset(running: Running) -> None:
    """The row behind the reset holds what the counters had reached, so that an increase over it can be told."""
    gpu = running.gpus[running.second][1]
    running.fault("counter_reset", running.second, gpu=1)
    event = running.wait_event("counter_reset", after=0, host=running.second)
    assert event["gpu_uuid"] == gpu
    query = (
        "SELECT time, total_energy_consumption AS energy, counter_resets FROM gpu_metrics JOIN gpus USING (gpu_id)"
        " WHERE gpu_uuid = %s ORDER BY time"
    )
    rows = running.query(query, gpu)
    (at,) = [number for number, row in enumerate(rows) if row["counter_resets"]]
    reached = rows[at]["counter_resets"]["total_energy_consumption"]
    assert reached == rows[at - 1]["energy"]
    assert rows[at]["energy"] < reached
    assert event["time"] == rows[at]["time"]
    print(f"counter reset: energy had reached {reached} mJ, {rows[at]['energy']} mJ after it")


def test_xid(running: Running) -> None:
    running.fault("xid", running.second, gpu=0, value=79)
    event = running.wait_event("xid", after=0, host=running.second)
    assert (event["gpu_uuid"], event["code"]) == (running.gpus[running.second][0], 79)
    assert event["gpu_id"] is not None


def test_nothing_lost_or_refused_meanwhile(running: Running) -> None:
    """All events of the topic are rows; none was refused."""
    pipeline = running.pipeline
    collector: Role = next(role for role in pipeline.roles if role.name.startswith("collector"))
    collector.stop()
    pipeline.wait_drained()
    messages = len(pipeline.messages())
    mine = [uuid for uuids in running.gpus.values() for uuid in uuids]
    assert sum(running.rows(uuid) for uuid in mine) == messages
    assert pipeline.dead_letters() == []
    events = len(pipeline.messages(pipeline.topic_events))
    assert running.query("SELECT count(*) AS n FROM gpu_events")[0]["n"] == events
    print(f"mock faults: {messages} samples are {messages} rows, {events} events are {events} rows")
