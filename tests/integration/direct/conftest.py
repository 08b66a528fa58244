from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from services.settings import Settings
from services.store.migrate import migrate
from tests.integration.direct.harness import Box
from tests.support import plain_schema
from tests.support.native_postgres import NativePostgres


@pytest.fixture(scope="module")
def database(timescale: str) -> str:
    """DSN of a TimescaleDB with the project's schema."""
    with psycopg.connect(timescale, autocommit=True) as connection:
        migrate(connection, Settings())
    return timescale


@pytest.fixture
def native(native_postgres: NativePostgres) -> NativePostgres:
    """A PostgreSQL with the plain schema, which a test may stop, kill and freeze, and leaves running."""
    plain_schema.fresh(native_postgres.dsn).close()
    return native_postgres


@pytest.fixture
def box(database: str, tmp_path: Path) -> Iterator[Box]:
    with Box(database, tmp_path) as made:
        yield made


@pytest.fixture
def native_box(native: NativePostgres, tmp_path: Path) -> Iterator[Box]:
    with Box(native.dsn, tmp_path, timeout=1.0) as made:
        yield made
