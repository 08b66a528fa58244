"""Pipelines for the fault matrix: real Kafka, a TimescaleDB, and our roles as separate processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.embedded.timescale import EmbeddedTimescale, EmbeddedTimescaleError, require_node
from tests.conftest import _kafka_server
from tests.faults.harness import Pipeline
from tests.support.kafka_server import KafkaServer
from tests.support.prerequisites import missing
from tests.support.processes import free_port

SHORT_SESSIONS = """
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=3000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=500
"""
MakePipeline = Callable[..., Pipeline]


@pytest.fixture
def make_pipeline(tmp_path: Path) -> Iterator[MakePipeline]:
    """`make_pipeline(bootstrap, dsn, ...)`: prepared, its exporter answering; gone at the end of the test."""
    made: list[Pipeline] = []

    def make(bootstrap: str, dsn: str, **options: Any) -> Pipeline:
        directory = tmp_path / f"pipeline-{len(made)}"
        directory.mkdir()
        pipeline = Pipeline(directory, bootstrap, dsn, **options)
        made.append(pipeline)
        pipeline.exporter.__enter__()
        pipeline.prepare()
        return pipeline

    yield make
    for pipeline in made:
        pipeline.close()


@pytest.fixture
def own_timescale(tmp_path: Path) -> Iterator[EmbeddedTimescale]:
    """An embedded TimescaleDB of the test's own on a directory and a port that stay: it may be killed and started."""
    try:
        require_node()
    except EmbeddedTimescaleError as error:
        missing("timescale", str(error))
    server = EmbeddedTimescale(tmp_path / "pgdata", port=free_port())
    with server:
        yield server


@pytest.fixture(scope="package")
def mortal_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A real Kafka that the fault matrix may kill and freeze; each test leaves it running.

    It ends with these tests: with nothing to do it takes 2 % of a core, and each worker has its own.

    It misses a dead member of a group of the `consumer` protocol after three seconds instead of 45.
    """
    server = _kafka_server(tmp_path_factory.mktemp("mortal-kafka"))
    with server._properties.open("a", encoding="utf-8") as properties:
        properties.write(SHORT_SESSIONS)
    with server:
        yield server
