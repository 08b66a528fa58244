from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from services.settings import Settings
from services.store.migrate import migrate
from tests.integration.sink.harness import Bench


@pytest.fixture(scope="module")
def database(timescale: str) -> str:
    """DSN of a TimescaleDB with the project's schema."""
    with psycopg.connect(timescale, autocommit=True) as connection:
        migrate(connection, Settings())
    return timescale


@pytest.fixture
def bench(embedded_broker: str, database: str) -> Iterator[Bench]:
    """On the embedded broker."""
    made = Bench(embedded_broker, database)
    yield made
    made.close()


@pytest.fixture
def bench_on_both(broker: str, database: str) -> Iterator[Bench]:
    """On the embedded broker and on the real Kafka in turn."""
    made = Bench(broker, database)
    yield made
    made.close()
