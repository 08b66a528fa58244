"""The row of `gpu_metrics`: its columns, in table and COPY order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.contract.catalogue import SAMPLED


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    sql: str
    """PostgreSQL type name."""


KEY_COLUMNS: Final = (Column("time", "timestamptz"), Column("gpu_id", "integer"))
"""Primary key `(time, gpu_id)`: the order of arrival, so that the index grows at its right edge (ADR 0002)."""

METRIC_COLUMNS: Final = tuple(Column(m.column, str(m.sql)) for m in SAMPLED)

CONTEXT_COLUMNS: Final = (
    Column("pod", "text"),
    Column("namespace", "text"),
    Column("container", "text"),
    Column("status_tag", "text"),
    Column("status_memo", "text"),
    Column("counter_resets", "jsonb"),
    Column("extra", "jsonb"),
)
"""What changes with the workload, and two documents that are nearly always NULL."""

COLUMNS: Final = KEY_COLUMNS + METRIC_COLUMNS + CONTEXT_COLUMNS
