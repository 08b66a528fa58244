"""The data set in a database, one a module."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import psycopg
import pytest

from services.store.connect import Connection
from tests.integration.dashboards.dataset import HOUR, Dataset, fill
from tests.integration.dashboards.story import QUERIES, Nothing, Story
from tests.support.database import migrated, value_of
from tests.support.grafana_sql import GrafanaError


@pytest.fixture(scope="module")
def connection(timescale: str) -> Iterator[Connection]:
    """No policy runs: retention would drop the old rows before the aggregates have them."""
    with migrated(timescale) as connection:
        connection.execute("SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs")
        yield connection


@pytest.fixture(scope="module")
def nothing(connection: Connection) -> Nothing:
    """Of each query its result in a database without rows: asked before the rows are written."""
    story = Story(connection, Dataset(value_of(connection, "SELECT now()")))
    results: Nothing = {}
    for query in QUERIES:
        try:
            results[query.name] = story.result(query, 6 * HOUR, "all")
        except (psycopg.Error, GrafanaError) as error:
            results[query.name] = error
    return results


@pytest.fixture(scope="module")
def story(connection: Connection, nothing: Nothing) -> Story:
    now: dt.datetime = value_of(connection, "SELECT now()")
    end = now.replace(second=now.second // 10 * 10, microsecond=0)
    return Story(connection, fill(connection, end))
