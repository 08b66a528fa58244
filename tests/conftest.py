"""Servers for the tests. Each is started when the first test asks for it, and always stopped.

Existing ones are used where KAFKA_BOOTSTRAP or TIMESCALE_DSN is set. What a machine lacks is a skip with the reason;
GPUMON_REQUIRE_KAFKA=1, GPUMON_REQUIRE_TIMESCALE=1 and GPUMON_REQUIRE_POSTGRES=1 turn that skip into a failure.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from services.embedded.broker import EmbeddedBroker
from services.embedded.timescale import EmbeddedTimescaleError, require_node
from services.settings import load
from tests.support.kafka_server import KafkaServer
from tests.support.native_postgres import NativePostgres
from tests.support.prerequisites import MissingPrerequisiteError, missing
from tests.support.processes import PORTS, ports_of
from tests.support.quick_timescale import QuickTimescale


def pytest_configure(config: pytest.Config) -> None:
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)  # pytest-xdist's, in its workers alone
    if worker is not None:
        PORTS.share = ports_of(worker["workerid"], worker["workercount"])


@pytest.fixture(autouse=True)
def _log_levels() -> Iterator[None]:
    """Some commands silence these loggers, which the tests after them, in whatever order, would feel."""
    levels = {logger: logger.level for logger in map(logging.getLogger, ("collector", "services.embedded"))}
    yield
    for logger, level in levels.items():
        logger.setLevel(level)


def _kafka_server(directory: Path) -> KafkaServer:
    try:
        return KafkaServer(directory)
    except MissingPrerequisiteError as error:
        missing("kafka", str(error))


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`host:port` of a real Kafka that all tests share: use topics and groups of your own, and leave it running."""
    settings = load()
    if "kafka_bootstrap" in settings.model_fields_set:
        yield settings.kafka_bootstrap
        return
    with _kafka_server(tmp_path_factory.mktemp("kafka")) as server:
        yield server.bootstrap


@pytest.fixture
def kafka_server(tmp_path: Path) -> Iterator[KafkaServer]:
    """A real Kafka of the test's own, started, which it may stop, kill and freeze."""
    with _kafka_server(tmp_path / "kafka") as server:
        yield server


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[str]:
    """`host:port` of the embedded broker, shared by all tests."""
    with EmbeddedBroker() as broker:
        yield broker.bootstrap


@pytest.fixture(scope="session", params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest) -> str:
    """`host:port` of the embedded broker and of the real Kafka in turn, for what must hold on both."""
    name = "kafka" if request.param == "kafka" else "embedded_broker"
    bootstrap: str = request.getfixturevalue(name)
    return bootstrap


@pytest.fixture(scope="module")
def timescale() -> Iterator[str]:
    """DSN of a TimescaleDB whose database is empty at the start of each test module.

    Embedded: a server per module. That takes a second or two, and leaves no schema, role, job or setting of another
    module behind.
    """
    settings = load()
    if settings.timescale_dsn is not None:
        yield from _database_of_its_own(settings.timescale_dsn.get_secret_value())
        return
    try:
        require_node()
    except EmbeddedTimescaleError as error:
        missing("timescale", str(error))
    with QuickTimescale() as server:
        yield server.dsn


def _database_of_its_own(dsn: str) -> Iterator[str]:
    name = f"gpumon_test_{uuid.uuid4().hex[:12]}"
    own = make_conninfo(dsn, dbname=name)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        with psycopg.connect(own, autocommit=True) as fresh:
            fresh.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        try:
            yield own
        finally:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


@pytest.fixture(scope="session")
def native_postgres() -> Iterator[NativePostgres]:
    """A native PostgreSQL (no TimescaleDB), started; a test that stops or kills it starts it again."""
    try:
        server = NativePostgres()
    except MissingPrerequisiteError as error:
        missing("postgres", str(error))
    with server:
        yield server
