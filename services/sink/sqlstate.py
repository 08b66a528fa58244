"""What a database error means for the sink: one table of SQLSTATEs (PostgreSQL's appendix A)."""

from __future__ import annotations

from enum import Enum
from typing import Final

import psycopg


class Kind(Enum):
    TRANSIENT = "transient"
    """The database cannot just now: the same batch is tried again, without end. Never a reason to give up a row."""
    DUPLICATE = "duplicate"
    """A row is already there: the batch goes through the staging table."""
    DATA = "data"
    """The database will never take one of these rows: find it."""
    FATAL = "fatal"
    """The schema or our SQL is wrong: stop loudly, a person must look. Offsets stay, nothing is lost."""


CONNECTION_LOST: Final = "none"
"""Label for an OperationalError without SQLSTATE: the server went away or was not reached."""

_STATES: Final[dict[str, Kind]] = {
    "40001": Kind.TRANSIENT,  # serialization_failure
    "40P01": Kind.TRANSIENT,  # deadlock_detected
    "55P03": Kind.TRANSIENT,  # lock_not_available
    "55006": Kind.TRANSIENT,  # object_in_use: a chunk that is being compressed or dropped
    "57P01": Kind.TRANSIENT,  # admin_shutdown
    "57P02": Kind.TRANSIENT,  # crash_shutdown
    "57P03": Kind.TRANSIENT,  # cannot_connect_now: starting up, or in recovery
    "57P05": Kind.TRANSIENT,  # idle_session_timeout
    "25P03": Kind.TRANSIENT,  # idle_in_transaction_session_timeout
    "57014": Kind.TRANSIENT,  # query_canceled: statement_timeout or a person
    "25006": Kind.TRANSIENT,  # read_only_sql_transaction: a standby before its promotion
    "58030": Kind.TRANSIENT,  # io_error
    "23505": Kind.DUPLICATE,  # unique_violation
    "23502": Kind.DATA,  # not_null_violation
    "23514": Kind.DATA,  # check_violation
    "42804": Kind.DATA,  # datatype_mismatch
    "54000": Kind.DATA,  # program_limit_exceeded: one value too large
}
_CLASSES: Final[dict[str, Kind]] = {
    "08": Kind.TRANSIENT,  # connection exceptions
    "53": Kind.TRANSIENT,  # insufficient resources: disk, memory, connections
    "22": Kind.DATA,  # data exceptions
}


def classify(error: psycopg.Error) -> Kind:
    """The kind of an error. Without SQLSTATE it is the connection (OperationalError), a value that the driver itself
    refuses to send (DataError: a NUL in a text), or a bug (the others)."""
    state = error.sqlstate
    if state is None:
        if isinstance(error, psycopg.DataError):
            return Kind.DATA
        return Kind.TRANSIENT if isinstance(error, psycopg.OperationalError) else Kind.FATAL
    return _STATES.get(state) or _CLASSES.get(state[:2]) or Kind.FATAL


def label(error: psycopg.Error) -> str:
    """SQLSTATE for metrics and headers."""
    return error.sqlstate or CONNECTION_LOST
