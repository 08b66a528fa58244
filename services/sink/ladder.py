"""The write ladder: how the rows of a batch get into `gpu_metrics`, the quick way first.

1. direct    one binary COPY straight into the hypertable. Live data takes this way.
2. staged    after a unique violation (something is being read again): COPY into a temporary table, then
             INSERT .. SELECT .. ON CONFLICT DO NOTHING, which counts what was new.
3. bisected  after a data error: halves, under savepoints, until each bad row stands alone. It goes to the dead letters
             with the database's reason; all others are written.

Each attempt is a transaction from its start: offsets advance together with the rows, whichever way they take.
The climbing itself (`insert`, `isolate`) knows only the port `Target`, so it is tested without a database.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol, TypeVar

import psycopg

from services.contract.row import COLUMNS
from services.sink.copy_format import to_copy
from services.sink.rows import Row
from services.sink.sqlstate import Kind, classify


class Rung(StrEnum):
    DIRECT = "direct"
    STAGED = "staged"
    BISECTED = "bisected"


Observe = Callable[[str], None]
"""Told the named points that a batch passes: before_copy, copied_direct, staged, bisecting, before_commit,
after_db_commit, after_offset_commit. Tests stop the process there."""


@dataclass(slots=True)
class Outcome:
    """What became of the rows. `bad` holds positions in the batch, with the error of each."""

    rung: Rung
    inserted: int = 0
    duplicates: int = 0
    bad: list[tuple[int, psycopg.Error]] = field(default_factory=list)


class Target(Protocol):
    """A table that rows can be copied into, inside a transaction. Every method raises psycopg.Error."""

    def copy(self, data: bytes | bytearray) -> int:
        """Straight in; rows written."""

    def stage(self, data: bytes | bytearray) -> int:
        """By way of the staging table; rows that were new."""

    def savepoint(self) -> AbstractContextManager[object]:
        """A part that can be rolled back alone."""


def insert(target: Target, rung: Rung, rows: Sequence[Row], copy: bytes | bytearray, observe: Observe) -> Outcome:
    """Write all rows on one rung. Raises what the database raised, unless this is the rung that deals with it."""
    if not rows:
        return Outcome(rung)
    observe("before_copy")
    if rung is Rung.DIRECT:
        inserted = target.copy(copy)
        observe("copied_direct")
        return Outcome(rung, inserted)
    if rung is Rung.STAGED:
        inserted = target.stage(copy)
        observe("staged")
        return Outcome(rung, inserted, len(rows) - inserted)
    return _bisect(target, rows, observe)


def _bisect(target: Target, rows: Sequence[Row], observe: Observe) -> Outcome:
    outcome = Outcome(Rung.BISECTED)
    for position, result in isolate(target, rows, lambda part: target.stage(to_copy(part)), observe):
        if isinstance(result, int):
            outcome.inserted += result
        else:
            outcome.bad.append((position, result))
    outcome.duplicates = len(rows) - outcome.inserted - len(outcome.bad)
    return outcome


_Item = TypeVar("_Item")


def isolate(
    target: Target, items: Sequence[_Item], write: Callable[[Sequence[_Item]], int], observe: Observe
) -> list[tuple[int, int | psycopg.Error]]:
    """Write `items` in parts: (position, rows that were new) for each good part, (position, error) for each bad item.

    At most 2 * bad * log2(items) writes. A stack instead of recursion, so that the parts are written in order.
    """
    results: list[tuple[int, int | psycopg.Error]] = []
    waiting = [(0, len(items))]
    while waiting:
        first, end = waiting.pop()
        observe("bisecting")
        try:
            with target.savepoint():
                results.append((first, write(items[first:end])))
        except psycopg.Error as error:
            if classify(error) is not Kind.DATA:
                raise
            if end - first == 1:
                results.append((first, error))
            else:
                middle = (first + end) // 2
                waiting += [(middle, end), (first, middle)]
    return results


_NAMES: Final = ", ".join(column.name for column in COLUMNS)
_COPY: Final = f"COPY gpu_metrics ({_NAMES}) FROM STDIN (FORMAT BINARY)"
_MAKE_STAGE: Final = "CREATE TEMP TABLE IF NOT EXISTS gpu_metrics_stage (LIKE gpu_metrics) ON COMMIT DROP"
_EMPTY_STAGE: Final = "DELETE FROM gpu_metrics_stage"
_COPY_STAGE: Final = f"COPY gpu_metrics_stage ({_NAMES}) FROM STDIN (FORMAT BINARY)"
# In the order of the key: consecutive inserts meet the same index page. Columns by name: a migration may add some.
_MERGE: Final = f"""
INSERT INTO gpu_metrics ({_NAMES}) SELECT {_NAMES} FROM gpu_metrics_stage ORDER BY time, gpu_id ON CONFLICT DO NOTHING
"""  # noqa: S608 - names of the catalogue


class GpuMetricsTable:
    """`Target` on a connection with an open transaction."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._stage_used = False

    def copy(self, data: bytes | bytearray) -> int:
        return self._copy(_COPY, data)

    def stage(self, data: bytes | bytearray) -> int:
        self._connection.execute(_MAKE_STAGE)
        if self._stage_used:
            self._connection.execute(_EMPTY_STAGE)
        self._stage_used = True
        self._copy(_COPY_STAGE, data)
        return self._connection.execute(_MERGE).rowcount

    def savepoint(self) -> AbstractContextManager[object]:
        return self._connection.transaction()

    def _copy(self, statement: str, data: bytes | bytearray) -> int:
        with self._connection.cursor() as cursor:
            with cursor.copy(statement) as copy:
                copy.write(data)
            return cursor.rowcount
