"""A database of the module's own, as the migrations leave it, for tests that ask it questions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import pytest

from services.store.connect import Connection
from tests.support.database import empty, migrated, value_of


@pytest.fixture(scope="module")
def shared(timescale: str) -> Iterator[Connection]:
    """The schema; rows of the tests before may be in it."""
    with migrated(timescale) as connection:
        yield connection


@pytest.fixture
def connection(shared: Connection) -> Connection:
    """The schema, and no rows."""
    empty(shared)
    return shared


@pytest.fixture
def now(connection: Connection) -> dt.datetime:
    """The server's time."""
    moment = value_of(connection, "SELECT now()")
    assert isinstance(moment, dt.datetime)
    return moment
