"""What a database error means for who writes without a broker: a word for metrics and the spool, a line for people."""

from __future__ import annotations

from typing import Final

import psycopg

from services.sink.sqlstate import classify
from services.store.connect import one_line

UNREACHABLE: Final = "database_unreachable"
HANGS: Final = "database_hangs"
SCHEMA: Final = "schema_not_migrated"
PERMISSION: Final = "permission_denied"

_SCHEMA_ERRORS: Final = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedObject,
)
_AWAY: Final = ("08", "57P0")
"""Of SQLSTATEs: connection exceptions; shutting down, crashed, starting up."""


def reason(error: psycopg.Error) -> str:
    """`_spool_reason`, and the label of a metric: one of few words."""
    if isinstance(error, _SCHEMA_ERRORS):
        return SCHEMA
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return PERMISSION
    if isinstance(error, psycopg.errors.QueryCanceled):
        return HANGS
    if error.sqlstate is None or error.sqlstate.startswith(_AWAY):
        return UNREACHABLE
    return f"sqlstate_{error.sqlstate}"


def explain(error: psycopg.Error) -> str:
    """One line that says what to do, where it is known. Never the password: libpq does not repeat it."""
    text = error.diag.message_primary or one_line(error)
    match reason(error):
        case "schema_not_migrated":
            return f"the database schema does not fit ({text}): run `gpumon migrate`"
        case "permission_denied":
            return f"{text}: PGUSER needs the role gpu_writer"
        case "database_unreachable":
            return f"{text} (set by PGHOST, PGPORT, ... or TIMESCALE_DSN)"
        case _:
            return f"{text} ({classify(error).value})"
