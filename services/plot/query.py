"""The data of a picture from TimescaleDB. Reads only; every query is bounded in time and by GPU."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composed, Identifier, Literal

from services.contract.catalogue import Metric
from services.contract.clocks_event import THROTTLING
from services.plot import statements
from services.plot.data import GAP_STEPS, Floats, Gpu, Picture, Run, Series, Throttled, merge_runs, usual_steps
from services.plot.select import HOURS, LEVELS, MINUTES, ROWS, Level, Selection, choose, coarsest, finest
from services.store.connect import Connection

MOST_GPUS: Final = 16
"""More lines cannot be told apart."""
_SHORTEST_GAP: Final = 5.0
"""Seconds. A run does not end because a sample of a second came late."""


_GLANCE: Final = 180.0
"""Seconds: three samples even of a collector that asks once a minute."""


class NothingToShowError(Exception):
    """No picture; the message says what was asked for and what there is."""


def read(connection: Connection, selection: Selection) -> Picture:
    """Raises NothingToShowError."""
    gpus = find_gpus(connection, selection)
    if not gpus:
        raise NothingToShowError(_no_gpu(connection, selection))
    reader = _Reader(connection, selection, gpus)
    series = reader.series()
    if not any(len(s.times) for s in series):
        raise NothingToShowError(reader.nothing())
    return reader.picture(series)


# --- which GPUs -----------------------------------------------------------------------------------------------------

_GPUS: Final = SQL("""
    SELECT g.gpu_id, g.gpu_uuid AS uuid, coalesce(min(h.hostname), g.hostname) AS hostname, g.gpu_index AS index,
        g.model, g.instance_id, (g.properties ->> 'slowdown_temp')::float8 AS slowdown_temp,
        (g.properties ->> 'fb_total')::float8 AS memory_total
    FROM gpus g
    LEFT JOIN gpu_history h ON h.gpu_id = g.gpu_id AND (h.valid_from < %(end)s OR h.earliest)
        AND (h.valid_to > %(start)s OR h.valid_to IS NULL)
        AND (%(hosts)s::text[] = '{{}}' OR h.hostname = ANY(%(hosts)s))
    WHERE %(hosts)s::text[] = '{{}}' OR h.hostname IS NOT NULL
    GROUP BY g.gpu_id
    ORDER BY hostname, g.gpu_index, g.instance_id NULLS FIRST, g.gpu_id
""")


def find_gpus(connection: Connection, selection: Selection) -> list[Gpu]:
    """Those selected that were on a selected host during the range; whether they have data is another matter."""
    given = {"start": selection.start, "end": selection.end, "hosts": list(selection.hosts)}
    found = [Gpu(**row) for row in _dicts(connection, _GPUS.format(), given)]
    return [gpu for gpu in found if not selection.gpus or any(_is(gpu, name) for name in selection.gpus)]


_HOSTS: Final = SQL("SELECT hostname, count(*) AS gpus FROM gpus GROUP BY 1 ORDER BY 1 LIMIT 20")


def _is(gpu: Gpu, name: str) -> bool:
    return name == str(gpu.index) if name.isdigit() else gpu.uuid.lower().startswith(name.lower())


def _no_gpu(connection: Connection, selection: Selection) -> str:
    known = _dicts(connection, _HOSTS.format())
    if not known:
        return "the database knows no GPU yet: is the collector running, and the sink?"
    listed = ", ".join(f"{row['hostname']} ({row['gpus']})" for row in known)
    return f"no GPU matches {', '.join(selection.filters())}; hosts with GPUs: {listed}"


# --- their data -----------------------------------------------------------------------------------------------------


class _Reader:
    """One picture's queries, which share level, bucket and stays."""

    def __init__(self, connection: Connection, selection: Selection, gpus: Sequence[Gpu]) -> None:
        self._connection, self._selection = connection, selection
        self._gpus = {gpu.gpu_id: gpu for gpu in gpus}
        self._stays = self._read_stays()
        reach = {level.relation: _oldest(connection, level) for level in LEVELS}
        self._finest = finest(reach, selection.start)
        self._check_few()
        counts, span = self._extent()
        self._gpus = {i: gpu for i, gpu in self._gpus.items() if i in counts}
        _refuse_many("", len(self._gpus))
        most = max(counts.values(), default=0)
        self.level, self.bucket = choose(span, most, self._finest, by_status=selection.by_status)
        # Where runs begin need not be known better than a point of the picture shows it; but rows chosen by status are
        # looked for by the minute at most, or a short run would not be the last of any bucket.
        seen = min(self.bucket, MINUTES.seconds) if selection.by_status else self.bucket
        self._times_level = coarsest(seen, self._finest)

    def series(self) -> list[Series]:
        """All metrics of all GPUs, by metric and then GPU; GPUs without any point are left out."""
        if not self._gpus:
            return []
        metrics = self._selection.metrics
        rows = self._rows(statements.points(self._selection, self.level, self.bucket))
        table = np.array(rows, dtype=np.float64).reshape(len(rows), 2 + 4 * len(metrics))
        parts = [(gpu, table[table[:, 0] == gpu_id]) for gpu_id, gpu in self._gpus.items()]
        return [
            self._line(gpu, metric, part, 2 + 4 * i)
            for i, metric in enumerate(metrics)
            for gpu, part in parts
            if len(part)
        ]

    def _line(self, gpu: Gpu, metric: Metric, rows: Floats, at: int) -> Series:
        value, low, high, counts = (rows[:, at + i] for i in range(4))
        banded = bool(self.bucket) and not bool(np.isnan(low).all())
        times = rows[:, 1] + self.bucket / 2
        return Series(gpu, metric, times, value, low if banded else None, high if banded else None, counts)

    def picture(self, series: list[Series]) -> Picture:
        selection = self._selection
        gap, step = self._gap(series)
        powered = any(m.column == "power_usage" for m in selection.metrics)
        limits = dict(self._rows(statements.power_limits(self._times_level))) if powered else {}
        shown = {s.gpu.gpu_id for s in series}
        throttled = tuple(self._throttled(gap, step))
        gpus = [replace(g, power_limit=limits.get(i)) for i, g in self._gpus.items() if i in shown]
        return Picture(
            start=selection.start.timestamp(),
            end=selection.end.timestamp(),
            gpus=tuple(gpus),
            metrics=selection.metrics,
            series=tuple(series),
            runs=tuple(merge_runs(self._runs(gap, step), gap)),
            throttled=throttled,
            relation=self.level.relation,
            bucket=self.bucket,
            notes=tuple(self._notes(throttled=bool(throttled))),
        )

    def nothing(self) -> str:
        """Why there is no picture: the range, what was asked for, and where there is data."""
        s, zone = self._selection, self._selection.zone
        asked = ", ".join(s.filters())
        between = f"no data from {_said(s.start, zone)} to {_said(s.end, zone)}" + (f" ({asked})" if asked else "")
        bounds = _bounds(self._connection, sorted({stay[0] for stay in self._stays}))
        if bounds is None:
            return f"{between}; these GPUs have no data at all"
        whatever = " of any status" if s.by_status else ""
        return f"{between}; there is data{whatever} between {_said(bounds[0], zone)} and {_said(bounds[1], zone)}"

    def _notes(self, *, throttled: bool) -> list[str]:
        """What the picture cannot say to the second."""
        notes = []
        if self._selection.by_status and self.level is not ROWS:
            notes.append(f"status: that of the last sample of each {_length(self.level.seconds)}")
        if throttled and self._times_level is not ROWS:
            notes.append(f"throttled: any sample of a {_length(self._times_level.seconds)}")
        return notes

    def _rows(self, query: Composed, since: dt.datetime | None = None) -> list[tuple[Any, ...]]:
        """`since`: in place of the begin of the range."""
        stays = [stay for stay in self._stays if stay[0] in self._gpus]
        ids, begins, ends = ([stay[i] for stay in stays] for i in range(3))
        asked = self._selection
        given = {"start": since or asked.start, "end": asked.end, "tags": list(asked.tags), "memos": list(asked.memos)}
        return self._connection.execute(query, {**given, "ids": ids, "since": begins, "until": ends}).fetchall()

    def _read_stays(self) -> list[tuple[Any, ...]]:
        """(gpu_id, since, until) of each stay at a selected host; without --host the whole range counts."""
        s = self._selection
        if not s.hosts:
            return [(gpu_id, s.start, s.end) for gpu_id in self._gpus]
        return self._connection.execute(
            """
            SELECT gpu_id, CASE WHEN earliest THEN %(start)s ELSE greatest(valid_from, %(start)s) END,
                least(coalesce(valid_to, %(end)s), %(end)s)
            FROM gpu_history
            WHERE gpu_id = ANY(%(ids)s) AND hostname = ANY(%(hosts)s) AND (valid_from < %(end)s OR earliest)
                AND (valid_to > %(start)s OR valid_to IS NULL)
            """,
            {"start": s.start, "end": s.end, "ids": list(self._gpus), "hosts": list(s.hosts)},
        ).fetchall()

    def _check_few(self) -> None:
        """By the end of the range only, where a fleet's GPUs all are: counting all rows of 10,000 takes seconds."""
        if len(self._gpus) > MOST_GPUS:
            glance = dt.timedelta(seconds=_GLANCE + 2 * self._finest.seconds)
            since = max(self._selection.start, self._selection.end - glance)
            _refuse_many("at least ", len(self._rows(statements.extent(self._finest), since)))

    def _extent(self) -> tuple[dict[int, int], float]:
        """gpu_id -> rows in the range, and the seconds they lie in. Counted by the minute where the minutes know."""
        for level in (MINUTES if self._finest is ROWS else self._finest, self._finest):
            rows = self._rows(statements.extent(level))
            if rows:
                span = max(row[3] for row in rows) - min(row[2] for row in rows)
                return {row[0]: row[1] for row in rows}, span.total_seconds() + level.seconds
        return {}, 0.0

    def _gap(self, series: Sequence[Series]) -> tuple[float, float]:
        """Seconds without a sample that end a run, and seconds a sample stands for."""
        usual = [usual_steps(s.times) for s in series if len(s.times) > 1]
        longest = max((float(steps.max()) for steps in usual), default=0.0)
        step = self._times_level.seconds or min((float(np.median(steps)) for steps in usual), default=0.0)
        return max(_SHORTEST_GAP, GAP_STEPS * max(longest, step)), step

    def _runs(self, gap: float, step: float) -> list[Run]:
        return [
            Run(self._gpus[gpu_id].hostname, start, end, tag, memo)
            for gpu_id, start, end, tag, memo in self._rows(
                statements.runs(self._selection, self._times_level, gap, step)
            )
            if tag is not None or memo is not None
        ]

    def _throttled(self, gap: float, step: float) -> list[Throttled]:
        return [
            Throttled(self._gpus[gpu_id], start, end, bits & THROTTLING)
            for gpu_id, start, end, bits in self._rows(
                statements.throttled(self._selection, self._times_level, gap, step)
            )
            if bits is not None and bits & THROTTLING
        ]


def _refuse_many(bound: str, found: int) -> None:
    if found > MOST_GPUS:
        raise NothingToShowError(
            f"{bound}{found} GPUs have data in this range, and at most {MOST_GPUS} lines can be told apart: "
            "choose with --host or --gpu"
        )


_FIRST_CHUNK: Final = SQL(
    "SELECT min(range_start) FROM timescaledb_information.chunks "
    "WHERE hypertable_schema = current_schema() AND hypertable_name = {}"
)


def _oldest(connection: Connection, level: Level) -> dt.datetime | None:
    """Of the rows, the begin of their first chunk: the rows themselves are in hundreds of them."""
    if level is ROWS:
        query = _FIRST_CHUNK.format(Literal(level.relation))
    else:
        query = SQL("SELECT min({}) FROM {}").format(Identifier(level.time), Identifier(level.relation))
    row = connection.execute(query).fetchone()
    oldest: dt.datetime | None = row[0] if row else None
    return oldest


_ALWAYS: Final = (dt.datetime.min.replace(tzinfo=dt.UTC), dt.datetime.max.replace(tzinfo=dt.UTC))


def _bounds(connection: Connection, ids: Sequence[int]) -> tuple[dt.datetime, dt.datetime] | None:
    """Time of the first and of the last sample of these GPUs. Looked for by the hour, then within these two hours: the
    rows themselves are in hundreds of chunks."""
    first, last = _within(connection, HOURS, ids, *_ALWAYS)
    if first is None or last is None:
        return None
    hour = dt.timedelta(hours=1)
    # Rows are kept shorter than minutes, and those shorter than hours: where the finer are gone, the bucket must do.
    starts = (_within(connection, level, ids, first, first + hour)[0] for level in (ROWS, MINUTES))
    ends = (_within(connection, level, ids, last, last + hour)[1] for level in (ROWS, MINUTES))
    return next(filter(None, starts), first), next(filter(None, ends), last)


def _within(
    connection: Connection, level: Level, ids: Sequence[int], start: dt.datetime, end: dt.datetime
) -> tuple[dt.datetime | None, dt.datetime | None]:
    """First and last time of a level in a range; of a bucket its begin."""
    query = SQL("SELECT min({t}), max({t}) FROM {relation} WHERE gpu_id = ANY(%s) AND {t} >= %s AND {t} < %s").format(
        t=Identifier(level.time), relation=Identifier(level.relation)
    )
    row = connection.execute(query, (list(ids), start, end)).fetchone()
    return (None, None) if row is None else (row[0], row[1])


def _dicts(connection: Connection, query: Composed, given: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, given).fetchall()


def _said(time: dt.datetime, zone: dt.tzinfo) -> str:
    """As --start and --end take it."""
    return time.astimezone(zone).isoformat(timespec="seconds")


def _length(seconds: float) -> str:
    return {60: "minute", 3600: "hour"}.get(int(seconds), "day")
