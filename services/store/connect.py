"""Connections to the database, with errors a user can act on."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from services.ops.clock import Clock, SystemClock
from services.settings import Settings

log = logging.getLogger("store")

CONNECT_TIMEOUT_SECONDS = 5
"""Of one attempt. A reachable server answers within milliseconds; libpq's own default is to wait for ever."""
RETRY_SECONDS = 0.5
"""Between two attempts while a server is starting."""

Connection = psycopg.Connection[tuple[Any, ...]]


class StoreError(Exception):
    """The database cannot be used as asked; the message is one line that says what is wrong and what to do."""


def connect(
    settings: Settings, role: str, *, autocommit: bool = False, wait: float = 0.0, clock: Clock | None = None
) -> Connection:
    """A connection named `gpumon-<role>` in pg_stat_activity.

    Tries for `wait` seconds while the server cannot be reached. Raises StoreError.
    """
    clock = clock or SystemClock()
    conninfo = connection_string(settings.dsn, role)
    deadline = clock.monotonic() + wait
    waiting = False
    while True:
        try:
            return psycopg.connect(conninfo, autocommit=autocommit)
        except psycopg.OperationalError as error:
            if clock.monotonic() >= deadline:
                raise StoreError(unreachable(conninfo, error)) from error
            if not waiting:
                log.info("waiting for the database", extra={"seconds": wait, "reason": one_line(error)})
                waiting = True
        clock.sleep(RETRY_SECONDS)


def connection_string(dsn: str, role: str) -> str:
    """`dsn` with the role's application name and a bounded time to connect, unless it sets one. Raises StoreError."""
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise StoreError(f"TIMESCALE_DSN is not a PostgreSQL connection string: {one_line(error)}") from error
    given.setdefault("connect_timeout", CONNECT_TIMEOUT_SECONDS)
    return make_conninfo("", **{**given, "application_name": f"gpumon-{role}"})


def unreachable(conninfo: str, error: psycopg.Error) -> str:
    """One line: where, why, and which settings say so. Never the password."""
    parts = conninfo_to_dict(conninfo)
    where = (
        f"{parts.get('user', '')}@{parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"
    )
    return f"cannot connect to the database {where}: {one_line(error)} (set by PGHOST, PGPORT, ... or TIMESCALE_DSN)"


def one_line(error: BaseException) -> str:
    """libpq's messages run over several lines; joined, without its advice on Unix sockets."""
    return " ".join(str(error).split()).removesuffix(
        " Is the server running on that host and accepting TCP/IP connections?"
    )
