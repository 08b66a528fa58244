"""A migrated database, and rows in it, for tests of the schema and of what reads it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from typing import Any

import psycopg

from services.contract.row import COLUMNS
from services.settings import Settings, load
from services.store.connect import Connection
from services.store.migrate import migrate
from services.store.policies import LEVELS, USAGE
from services.store.reset import reset

Row = Mapping[str, Any]
"""Column of gpu_metrics -> value; what is not named is NULL."""


def settings_for(dsn: str, **settings: Any) -> Settings:
    return load(timescale_dsn=dsn, **settings)


def migrated(dsn: str, **settings: Any) -> Connection:
    """A connection in autocommit to the database, which has the schema and holds no rows and no GPUs."""
    connection = psycopg.connect(dsn, autocommit=True)
    migrate(connection, settings_for(dsn, **settings))
    empty(connection)
    return connection


def empty(connection: Connection) -> None:
    reset(connection)
    tables = "gpus, gpu_history, gpu_events, gpu_snapshots, kafka_offsets"
    connection.execute(f"TRUNCATE {tables} RESTART IDENTITY".encode(), prepare=False)


def register(connection: Connection, seen: dt.datetime, **identity: Any) -> int:
    """Field of contract.event.Gpu -> value; `uuid` and `hostname` have defaults. Returns gpu_id."""
    document = json.dumps({"uuid": "GPU-1", "hostname": "host-1", **identity})
    row = connection.execute("SELECT register_gpu(%s::jsonb, %s)", (document, seen)).fetchone()
    assert row is not None
    return int(row[0])


def insert(connection: Connection, rows: Iterable[Row]) -> None:
    """COPY into gpu_metrics, as the sink writes."""
    names = [column.name for column in COLUMNS]
    with connection.cursor() as cursor, cursor.copy(f"COPY gpu_metrics ({', '.join(names)}) FROM STDIN") as copy:
        for row in rows:
            assert row.keys() <= set(names), row.keys() - set(names)
            values = [row.get(name) for name in names]
            copy.write_row([json.dumps(value) if isinstance(value, dict) else value for value in values])


def refresh(connection: Connection) -> None:
    """Every aggregate holds what is in the table, as after all policies."""
    for name, _, _ in (*LEVELS, USAGE):
        connection.execute(f"CALL refresh_continuous_aggregate('{name}', NULL, NULL)".encode(), prepare=False)


def rows_of(connection: Connection, query: str, parameters: Any = None) -> list[dict[str, Any]]:
    """The result, a dict per row."""
    cursor = connection.execute(query.encode(), parameters)
    assert cursor.description is not None
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def value_of(connection: Connection, query: str, parameters: Any = None) -> Any:
    """The one value of the one row."""
    (row,) = connection.execute(query.encode(), parameters).fetchall()
    (value,) = row
    return value


def run_job(connection: Connection, kind: str, relation: str) -> None:
    """Run a policy now, as the background worker does."""
    number = value_of(
        connection,
        "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = %s AND hypertable_name = %s",
        (kind, relation),
    )
    connection.execute(f"CALL run_job({number})".encode())
