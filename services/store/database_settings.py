"""Settings of the database itself (`ALTER DATABASE .. SET`), for new sessions and for TimescaleDB's background jobs."""

from __future__ import annotations

from typing import Final

import psycopg
from psycopg import sql

from services.store.connect import Connection

SETTINGS: Final = (
    # Plans over many chunks look expensive to the planner, so it compiles them: measured 300 ms of compiling for the
    # 70 ms that v_latest_gpu_metrics takes at 10,000 GPUs.
    ("jit", "off"),
    # Rows per compressed batch, default 1,000 (TimescaleDB 2.23 takes no more). A column of a batch of 4,000 fills its
    # TOAST pages: 32.5 -> 26.7 bytes a row on a mock day. 10,000 gain 0.7 more, and reading one GPU decompresses ten
    # times as much. Measured with 4,000: one GPU's rows as fast as before; late rows into a compressed chunk 43k a
    # second instead of 49k.
    ("timescaledb.compression_batch_size_limit", "4000"),
    # Bloom filters over the primary key: 0.7 bytes a row. They serve upserts into compressed chunks, which is what late
    # duplicates are; those ran as fast without (54k and 55k rows a second).
    ("timescaledb.enable_sparse_index_bloom", "off"),
)
"""(name, value) with what it is for."""


def apply(connection: Connection) -> list[str]:
    """Set what the server knows. Returns notices for the operator: who does not own the database cannot do this."""
    notices = (_set(connection, name, value) for name, value in allowed(connection).items())
    return [notice for notice in notices if notice]


def allowed(connection: Connection) -> dict[str, str]:
    """SETTINGS as this server takes them: what it does not know left out, numbers no larger than it allows."""
    query = "SELECT name, max_val FROM pg_settings WHERE name = ANY(%s)"
    largest: dict[str, str | None] = dict(connection.execute(query, ([name for name, _ in SETTINGS],)).fetchall())
    return {name: _at_most(value, largest[name]) for name, value in SETTINGS if name in largest}


def _at_most(value: str, largest: str | None) -> str:
    return value if largest is None else str(min(int(value), int(largest)))


def _set(connection: Connection, name: str, value: str) -> str | None:
    database = connection.info.dbname
    # Not sql.Identifier for the name: a setting with a dot is two identifiers.
    setting = sql.SQL(".").join(sql.Identifier(part) for part in name.split("."))
    assignment = sql.SQL("SET {} = {}").format(setting, sql.Literal(value))
    try:
        connection.execute(assignment)  # the embedded database has one session for all clients: it takes effect now
        connection.execute(sql.SQL("ALTER DATABASE {} {}").format(sql.Identifier(database), assignment))
    except psycopg.errors.InsufficientPrivilege:
        return (
            f"{connection.info.user} does not own the database: {name} stays as it is (slower dashboards or larger "
            f"tables, nothing worse); its owner can run ALTER DATABASE {database} SET {name} = '{value}'"
        )
    return None
