"""The newest samples of all GPUs in the database."""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from services.contract.event import Status
from services.ops.clock import Clock, SystemClock
from services.settings import Settings
from services.store.connect import Connection, StoreError, connect, one_line
from services.top.frame import Frame, Row, View, ViewError, Xid, known

XID_WINDOW: Final = "1 day"
"""An XID older than that is history, not the state of a GPU."""

_QUERY: Final = """
    SELECT v.*, extract(epoch FROM v.time)::float8 AS at, g.properties, count(*) OVER () AS total,
        lost.detail ->> 'reason' AS lost_reason, lost.time IS NOT NULL AS is_lost,
        xid.code AS xid_code, extract(epoch FROM xid.time)::float8 AS xid_at
    FROM v_latest_gpu_metrics v
    JOIN gpus g USING (gpu_id)
    LEFT JOIN LATERAL (
        SELECT e.kind, e.time, e.detail FROM gpu_events e
        WHERE e.gpu_id = v.gpu_id AND e.kind IN ('gpu_lost', 'gpu_returned')
        ORDER BY e.time DESC LIMIT 1
    ) lost ON lost.kind = 'gpu_lost' AND lost.time >= v.time
    LEFT JOIN LATERAL (
        SELECT e.code, e.time FROM gpu_events e
        WHERE e.gpu_id = v.gpu_id AND e.kind = 'xid' AND e.time > now() - %(window)s::interval
        ORDER BY e.time DESC LIMIT 1
    ) xid ON true
    WHERE %(hosts)s::text[] = '{}' OR v.hostname = ANY(%(hosts)s)
    ORDER BY is_lost DESC, v.gpu_temp DESC NULLS LAST, v.hostname, v.gpu_index, v.instance_id NULLS FIRST
    LIMIT %(limit)s
"""
"""Lost GPUs first, then the hottest."""


class DatabaseView(View):
    """`v_latest_gpu_metrics`, lost GPUs first, then the hottest; connects anew after a failure."""

    def __init__(self, settings: Settings, hosts: tuple[str, ...], limit: int, clock: Clock | None = None) -> None:
        self._settings, self._hosts, self._limit = settings, hosts, limit
        self._clock = clock or SystemClock()
        self._connection: Connection | None = None

    @property
    def name(self) -> str:
        try:
            parts = conninfo_to_dict(self._settings.dsn)
        except psycopg.ProgrammingError:
            return "database"
        return f"database {parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"

    def read(self) -> Frame:
        try:
            if self._connection is None:
                self._connection = connect(self._settings, "top", autocommit=True)
            found = self._query(self._connection)
        except StoreError as error:
            raise ViewError(str(error)) from error
        except psycopg.errors.UndefinedTable:
            self.close()
            raise ViewError(f"{self.name} has no tables of ours yet: run `gpumon migrate`") from None
        except psycopg.Error as error:
            self.close()
            raise ViewError(f"{self.name}: {one_line(error)}") from error
        now = self._clock.time()
        if not found and self._hosts:
            raise ViewError(f"{self.name} knows no GPU of {', '.join(self._hosts)}")
        total = found[0]["total"] if found else 0
        return Frame(self.name, now, tuple(row_of(row) for row in found), total)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _query(self, connection: Connection) -> list[dict[str, Any]]:
        with connection.cursor(row_factory=dict_row) as cursor:
            given = {"hosts": list(self._hosts), "limit": self._limit, "window": XID_WINDOW}
            return cursor.execute(_QUERY, given).fetchall()


def row_of(row: dict[str, Any]) -> Row:
    """From a row of the query. The age is the database's own, by its clock."""
    is_lost = row["is_lost"]
    values = {} if is_lost else known({**(row["properties"] or {}), **row})
    tagged = row["status_tag"] is not None or row["status_memo"] is not None
    return Row(
        host=row["hostname"],
        uuid=row["gpu_uuid"],
        index=row["gpu_index"],
        model=row["model"],
        pci_bus_id=row["pci_bus_id"],
        instance_id=row["instance_id"],
        instance_profile=row["instance_profile"],
        driver=row["driver_version"],
        values=values,
        age=row["age"].total_seconds(),
        lost=(row["lost_reason"] or "gone from its exporter") if is_lost else None,
        status=Status(tag=row["status_tag"], memo=row["status_memo"]) if tagged else None,
        xid=None if row["xid_code"] is None else Xid(row["xid_code"], row["xid_at"]),
    )
