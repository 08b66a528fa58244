"""A database of the benchmark's own, with the project's schema and no background job in the way."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from services.embedded.timescale import EmbeddedTimescale
from services.settings import Settings
from services.store.migrate import migrate


@contextmanager
def own_database(server: str | None) -> Iterator[str]:
    """DSN of a new database on `server` (a native TimescaleDB), or of an embedded one when that is None."""
    if server is None:
        with EmbeddedTimescale() as embedded:
            prepare(embedded.dsn)
            yield embedded.dsn
        return
    name = f"gpumon_bench_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        try:
            own = make_conninfo(server, dbname=name)
            prepare(own)
            yield own
        finally:
            admin.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


def prepare(dsn: str) -> None:
    """The schema in an empty database."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        migrate(connection, Settings())
        with suppress(psycopg.errors.UndefinedFunction):  # the embedded server has no background workers
            connection.execute("SELECT _timescaledb_functions.stop_background_workers()")
