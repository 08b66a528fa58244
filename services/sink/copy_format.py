"""Rows -> PostgreSQL's binary COPY format, as one buffer, away from the connection.

Made by the main loop while the writer's thread waits for the server, so that the two overlap.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import psycopg

# psycopg's own row formatter (C where the binary package is installed), without a connection around it. Going through
# the public `Copy(cursor, writer=...)` would tie the main loop to the writer's connection. The lock file pins psycopg.
from psycopg._copy_base import format_row_binary
from psycopg.adapt import Transformer

from services.contract.row import COLUMNS, Column
from services.sink.rows import Row

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
"""Signature, no flags, no extension."""
TRAILER: Final = b"\xff\xff"

_WIRE_TYPES: Final = {
    "timestamptz": "int8",  # a row carries microseconds since 2000, which is what a timestamptz is on the wire
    "jsonb": "bytea",  # a row carries version byte and text, which is what a jsonb is on the wire
}


def _oid(column: Column) -> int:
    found = psycopg.adapters.types.get_oid(_WIRE_TYPES.get(column.sql, column.sql))
    return int(found)


_OIDS: Final = [_oid(column) for column in COLUMNS]


def _transformer() -> psycopg.abc.Transformer:
    transformer = Transformer()
    transformer.set_dumper_types(_OIDS, psycopg.pq.Format.BINARY)
    return transformer


_TRANSFORMER: Final = _transformer()


def to_copy(rows: Iterable[Row]) -> bytearray:
    """A complete binary COPY stream of `rows`. Not for two threads at once."""
    out = bytearray(HEADER)
    transformer = _TRANSFORMER
    for row in rows:
        format_row_binary(row, transformer, out)
    out += TRAILER
    return out
