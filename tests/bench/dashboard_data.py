"""A week of a fleet in the real schema, quickly: a mock hour by COPY, then that hour over and over, made by the server.

Counters go on from hour to hour. Rows older than a day may be a minute apart instead of ten seconds: aggregates have as
many buckets and dashboards that read them as much to do, and the table has as many chunks; the rest would only take
time to make. Everything is compressed and refreshed as the policies do it.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from itertools import islice
from typing import Final

from mock_dcgm.fleet import build, spread
from services.contract.catalogue import COUNTERS
from services.contract.row import COLUMNS, METRIC_COLUMNS
from services.sink.copy_format import to_copy
from services.store.connect import Connection
from services.store.policies import SETTLED
from tests.bench.bench_storage import BATCH, START, _day

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
_NAMES: Final = ", ".join(column.name for column in COLUMNS)
_COUNTED: Final = tuple(m.column for m in COUNTERS)
TAGGED_HOST: Final = "gpu-node-000"
"""Whose operator says what it does: the first in the list, so the one the Host dashboard opens with."""


def fill(connection: Connection, gpus: int, days: int, dense: dt.timedelta) -> int:
    """`days` up to now: every 10 s within the last `dense`, every minute before. Gives the number of rows."""
    now = _now(connection)
    start = _hour(now) - days * DAY
    _register(connection, gpus, start)
    _mock_hour(connection, gpus)
    rows, began = 0, time.monotonic()
    for number in range(days * 24):
        hour = start + number * HOUR
        step = 10 if hour >= now - dense else 60
        rows += _insert(connection, hour, number, step=step, above=hour, upto=hour + HOUR)
        _compress(connection, "gpu_metrics", hour - HOUR)
        if (number + 1) % 24 == 0:
            _refresh(connection, hour - 25 * HOUR, hour + HOUR)
            _say(f"{(number + 1) // 24} of {days} days, {rows:,} rows, {time.monotonic() - began:.0f} s")
    _compress(connection, "gpu_metrics_1min", now - 6 * HOUR)
    _events(connection, days)
    return rows + catch_up(connection)


def catch_up(connection: Connection) -> int:
    """Rows from the newest to now, every 10 s, and aggregates as the policies leave them: minutes up to the last."""
    rows = 0
    if not _count(connection, "mock_hour_10"):
        _fill_mock_hour(connection, _count(connection, "gpus"))
    for _ in range(2):  # the second time for what has passed meanwhile
        start, newest = _pair(connection, "SELECT min(first_seen), (SELECT max(time) FROM gpu_metrics) FROM gpus")
        now = _now(connection)
        hour = _hour(newest)
        while hour < now:
            rows += _insert(connection, hour, (hour - start) // HOUR, step=10, above=newest, upto=now)
            hour += HOUR
        _refresh(connection, _hour(newest) - 2 * HOUR, now)
        connection.execute("SELECT refresh_gpu_latest()")
    _compress(connection, "gpu_metrics", now - HOUR)
    connection.execute("ANALYZE")
    return rows


def _register(connection: Connection, gpus: int, seen: dt.datetime) -> None:
    """Hosts of eight in five clusters, ten hosts a rack."""
    fleet = build(spread(gpus=gpus, hosts=max(1, gpus // 8), models=[("A100", 1)], profile="cluster", seed=1))
    for number, host in enumerate(fleet.hosts):
        place = {"cluster": f"cluster-{number % 5}", "datacenter": "dc1", "rack": f"rack-{number // 10:02}"}
        for gpu in host.gpus:
            model = gpu.model
            document = {
                "uuid": gpu.uuid,
                "hostname": host.name,
                "index": gpu.index,
                "model": model.name,
                "pci_bus_id": gpu.pci_bus_id,
                "driver_version": host.driver,
                "properties": {"fb_total": model.memory_total, "slowdown_temp": model.slowdown_temp},
                **place,
            }
            connection.execute("SELECT register_gpu(%s::jsonb, %s)", (json.dumps(document), seen))


def _mock_hour(connection: Connection, gpus: int) -> None:
    """Tables mock_hour_10; mock_hour_60, its whole minutes; mock_growth, by how much counters of a GPU grow in it."""
    connection.execute("CREATE UNLOGGED TABLE mock_hour_10 (LIKE gpu_metrics)")
    _fill_mock_hour(connection, gpus)
    # a 359th more: the step from the last row to the first of the next hour
    growth = ", ".join(f"((max({c}) - min({c})) * 360.0 / 359)::bigint AS {c}" for c in _COUNTED)
    connection.execute(f"CREATE TABLE mock_growth AS SELECT gpu_id, {growth} FROM mock_hour_10 GROUP BY 1".encode())
    connection.execute(
        "CREATE UNLOGGED TABLE mock_hour_60 AS SELECT * FROM mock_hour_10 WHERE extract(second FROM time) = 0"
    )
    connection.execute("ANALYZE mock_hour_10, mock_hour_60, mock_growth")


def _fill_mock_hour(connection: Connection, gpus: int) -> None:
    """The same rows each time. Again where the server had crashed: unlogged tables are empty then."""
    rows = _day(gpus, 1.0, 1)
    while batch := list(islice(rows, BATCH)):
        with connection.cursor().copy(f"COPY mock_hour_10 ({_NAMES}) FROM STDIN (FORMAT binary)".encode()) as copy:
            copy.write(to_copy(batch))


def _insert(
    connection: Connection, hour: dt.datetime, number: int, *, step: int, above: dt.datetime, upto: dt.datetime
) -> int:
    """The mock hour as the hour that begins at `hour`, the `number`th: rows later than `above`, up to `upto`."""
    shift = hour - dt.datetime.fromtimestamp(START, dt.UTC)
    tagged = "h.gpu_id <= 8"
    columns = {m.name: f"h.{m.name} + {number} * g.{m.name}" if m.name in _COUNTED else f"h.{m.name}"
               for m in METRIC_COLUMNS}  # fmt: skip
    columns |= {name: f"h.{name}" for name in ("pod", "namespace", "container", "counter_resets", "extra")}
    columns["status_tag"] = f"CASE WHEN {tagged} THEN '{_status(number)}' END"
    columns["status_memo"] = f"CASE WHEN {tagged} THEN 'run {number // 3}' END"
    cursor = connection.execute(
        f"""INSERT INTO gpu_metrics (time, gpu_id, {", ".join(columns)})
        SELECT h.time + %s, h.gpu_id, {", ".join(columns.values())}
        FROM mock_hour_{step} h JOIN mock_growth g USING (gpu_id)
        WHERE h.time > %s AND h.time <= %s ORDER BY 1, 2""".encode(),
        (shift, above - shift, upto - shift),
    )
    return cursor.rowcount


def _status(number: int) -> str:
    return ("idle", "prod", "prod", "bench")[number // 3 % 4]


def _events(connection: Connection, days: int) -> None:
    """Fifty XIDs and two lost GPUs a day, status changes of the tagged host."""
    connection.execute(
        """INSERT INTO gpu_events (time, kind, gpu_id, gpu_uuid, hostname, source, code, detail)
        SELECT now() - n * (INTERVAL '1 day' / 50), 'xid', gpu_id, gpu_uuid, hostname, 'bench',
            (ARRAY[13, 31, 43, 79])[1 + n %% 4],
            '{"meaning": "an error", "severity": "critical", "immediate_action": "reset"}'
        FROM generate_series(0, %s) n JOIN gpus ON gpu_id = 1 + n * 7 %% (SELECT count(*) FROM gpus)
        ON CONFLICT DO NOTHING""",
        (50 * days - 1,),
    )
    connection.execute(
        """INSERT INTO gpu_events (time, kind, gpu_id, gpu_uuid, hostname, source, detail)
        SELECT now() - n * INTERVAL '6 hours' + m * INTERVAL '1 hour', (ARRAY['gpu_lost', 'gpu_returned'])[1 + m],
            gpu_id, gpu_uuid, hostname, 'bench', '{"reason": "gone"}'
        FROM generate_series(1, %s) n CROSS JOIN generate_series(0, 1) m JOIN gpus ON gpu_id = 1 + n""",
        (2 * days,),
    )
    for number in range(0, days * 24, 3):
        connection.execute(
            "INSERT INTO gpu_events (time, kind, hostname, source, detail) SELECT min(first_seen) + %s, 'status', %s, "
            "'bench', jsonb_build_object('tag', %s::text, 'memo', %s::text) FROM gpus",
            (number * HOUR, TAGGED_HOST, _status(number), f"run {number // 3}"),
        )


def _refresh(connection: Connection, start: dt.datetime, end: dt.datetime) -> None:
    """Buckets between that are over, and have been for as long as the policies wait; of days all."""
    settled = {aggregate: end - dt.timedelta(seconds=wait) for aggregate, wait in SETTLED.items()}
    windows = {
        "gpu_metrics_1min": (start, settled["gpu_metrics_1min"]),
        "gpu_metrics_1hour": (start, _hour(settled["gpu_metrics_1hour"])),
        "gpu_usage_1hour": (start, _hour(settled["gpu_usage_1hour"])),
        "gpu_metrics_1day": (None, settled["gpu_metrics_1day"].replace(hour=0, minute=0, second=0, microsecond=0)),
    }
    for aggregate, (since, until) in windows.items():
        if since is not None and until <= since:
            continue
        call = f"CALL refresh_continuous_aggregate('{aggregate}', %s::timestamptz, %s::timestamptz)"
        connection.execute(call.encode(), (since, until))


def _compress(connection: Connection, relation: str, older_than: dt.datetime) -> None:
    """`relation`: the table, or an aggregate."""
    connection.execute(
        "SELECT compress_chunk(c, if_not_compressed => true) FROM show_chunks(%s::regclass, older_than => %s) c "
        "JOIN timescaledb_information.chunks i ON format('%%I.%%I', i.chunk_schema, i.chunk_name)::regclass = c "
        "WHERE NOT i.is_compressed",
        (relation, older_than),
    )


def _hour(moment: dt.datetime) -> dt.datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _now(connection: Connection) -> dt.datetime:
    return _pair(connection, "SELECT now(), now()")[0]


def _count(connection: Connection, table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])


def _pair(connection: Connection, query: str) -> tuple[dt.datetime, dt.datetime]:
    row = connection.execute(query.encode()).fetchone()
    if row is None or None in row:
        raise RuntimeError(f"no answer: {query}")
    return row[0], row[1]


def _say(text: str) -> None:
    sys.stderr.write(f"  {text}\n")
