"""The schema on a PostgreSQL without TimescaleDB: tables, functions, views and roles; no hypertables, no aggregates, no
jobs."""

from __future__ import annotations

import re

import psycopg

from services.store.connect import Connection
from services.store.migrations import read

_HYPERTABLE = re.compile(r"^SELECT create_hypertable\([^;]*;", re.MULTILINE)
_AGGREGATE = re.compile(r"\bgpu_metrics_1(min|hour|day)\b")
_JOB = re.compile(r"^SELECT add_job\([^;]*;", re.MULTILINE)
_COLUMNSTORE = re.compile(r"^ALTER TABLE \w+ SET \(\s*timescaledb[^;]*;", re.MULTILINE)


def build(connection: Connection) -> None:
    """Run every migration that needs nothing of TimescaleDB but hypertables, which become plain tables."""
    for migration in read():
        if "timescaledb.continuous" in migration.sql or _AGGREGATE.search(migration.sql):
            continue
        plain = _JOB.sub("", _COLUMNSTORE.sub("", _HYPERTABLE.sub("", migration.sql)))
        with connection.transaction():
            connection.execute(plain.encode())


def fresh(dsn: str) -> Connection:
    """A connection in autocommit to the database, emptied, with the plain schema."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for schema in ("public", "telemetry"):
            connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE".encode())
        connection.execute("CREATE SCHEMA public")
        connection.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
        build(connection)
    return psycopg.connect(dsn, autocommit=True)
