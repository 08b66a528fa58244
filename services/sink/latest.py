"""`gpu_latest`: the newest time of each GPU, so that "the latest sample of 10,000 GPUs" needs no scan.

Written at most once a second, in the transaction of a batch, and when the sink stops or falls idle. It only moves
forward (GREATEST), so a repeat or a late row does no harm, and `refresh_gpu_latest()` repairs what a crash left behind.
"""

from __future__ import annotations

from typing import Final

import psycopg

from services.sink.pgtime import EPOCH, Micros

WRITE_INTERVAL: Final = 1.0
"""Seconds between two writes: dashboards look every few seconds, and an update of each GPU per batch would cost."""

_WRITE: Final = """
INSERT INTO gpu_latest AS l (gpu_id, time)
SELECT given.gpu_id, %(epoch)s::timestamptz + given.time * interval '1 microsecond'
FROM unnest(%(ids)s::int[], %(times)s::bigint[]) AS given(gpu_id, time)
ON CONFLICT (gpu_id) DO UPDATE SET time = excluded.time WHERE l.time < excluded.time
"""


class Latest:
    """What has been committed since the last write. Used in the writer's thread only."""

    def __init__(self) -> None:
        self._pending: dict[int, Micros] = {}
        self._written_at = float("-inf")

    @property
    def pending(self) -> bool:
        return bool(self._pending)

    def due(self, now: float, batch: dict[int, Micros]) -> bool:
        """Is there something to write, and is it time? `now` in monotonic seconds; `batch`: about to be committed."""
        return bool(self._pending or batch) and now - self._written_at >= WRITE_INTERVAL

    def write(self, connection: psycopg.Connection, batch: dict[int, Micros]) -> None:
        """What is pending and `batch`, inside the caller's transaction; `committed` after it. Raises psycopg.Error."""
        newest = self._merged(batch)
        ids = sorted(newest)  # all sinks in the same order: no deadlocks
        connection.execute(_WRITE, {"epoch": EPOCH, "ids": ids, "times": [newest[gpu_id] for gpu_id in ids]})

    def committed(self, batch: dict[int, Micros], written_at: float | None) -> None:
        """A transaction with `batch` is done; `written_at` (monotonic seconds) if it wrote gpu_latest as well."""
        if written_at is None:
            self._pending = self._merged(batch)
        else:
            self._pending = {}
            self._written_at = written_at

    def _merged(self, batch: dict[int, Micros]) -> dict[int, Micros]:
        pending = self._pending
        if not pending:
            return dict(batch)
        return pending | {gpu_id: time for gpu_id, time in batch.items() if time > pending.get(gpu_id, time - 1)}


def refresh(connection: psycopg.Connection) -> None:
    """Bring the table up to what `gpu_metrics` holds: once, when a sink starts. Raises psycopg.Error."""
    connection.execute("SELECT refresh_gpu_latest()")
