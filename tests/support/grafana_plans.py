"""Which rows of gpu_metrics a query's plan touches, by the names of the table's chunks."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from services.store.connect import Connection

_CHUNK: Final = re.compile(r"\b(_hyper_\d+_\d+_chunk|compress_hyper_\d+_\d+_chunk)\b")
FRESH: Final = dt.timedelta(hours=2)
"""Rows that may be read whatever the range: newest samples (an hour, v_latest_gpu_metrics), and those that no aggregate
has yet. Chunks are half an hour long; older ones are in the columnstore (docs/schema.md: after 1 h 40 min at most)."""


def chunks_in_plan(connection: Connection, sql: str) -> set[str]:
    """Names of the chunks that EXPLAIN names: those that PostgreSQL has not left out."""
    lines = connection.execute(b"EXPLAIN " + sql.encode(), prepare=False).fetchall()
    return {name for (line,) in lines for name in _CHUNK.findall(line)}


def old_chunks(connection: Connection, before: dt.datetime) -> set[str]:
    """Chunks of gpu_metrics that end before; in the columnstore under their second name as well."""
    found = connection.execute(
        """SELECT i.chunk_name, compressed.table_name
        FROM timescaledb_information.chunks i
        JOIN _timescaledb_catalog.chunk c ON c.table_name = i.chunk_name AND c.schema_name = i.chunk_schema
        LEFT JOIN _timescaledb_catalog.chunk compressed ON compressed.id = c.compressed_chunk_id
        WHERE i.hypertable_name = 'gpu_metrics' AND i.range_end < %s""",
        (before,),
    ).fetchall()
    return {name for row in found for name in row if name}
