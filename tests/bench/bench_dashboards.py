"""Every PostgreSQL query of every dashboard with a week of data: time at the default range, 24 h, 7 d and 30 d.

100 GPUs at 10 s on the embedded database; 1,000 GPUs on a native one (TIMESCALE_DSN), there with rows a minute apart
before the last day (tests/bench/dashboard_data.py says why that does not matter here). What is measured is from sending
the query to having all its rows, one connection, median of three; variables as the dashboard is opened.

examples:
  python -m tests.bench.bench_dashboards --dsn postgresql://...           measures only: a database filled before
  python -m tests.bench.bench_dashboards --dsn postgresql://... --fill 7  an empty one, every row of 7 days 10 s apart
"""

from __future__ import annotations

import argparse
import datetime as dt
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass

import psycopg

from services.store.connect import Connection
from tests.bench.dashboard_data import catch_up, fill
from tests.bench.database import own_database, prepare
from tests.bench.report import Figure, Options, table
from tests.support.grafana_dashboards import Dashboard, Query, Source, choose, committed, context_of
from tests.support.grafana_plans import FRESH, chunks_in_plan, old_chunks
from tests.support.grafana_sql import TimeRange, duration, expand

GOAL = 200.0
"""ms, of each query with 1,000 GPUs on a native server."""
NATIVE_GPUS = 1000
ROUNDS = 3
DAY = dt.timedelta(days=1)
LONGER = (DAY, 7 * DAY, 30 * DAY)


@dataclass(frozen=True, slots=True)
class Timed:
    """A query at a range: ms, rows, and whether rows of gpu_metrics older than FRESH are in its plan."""

    query: Query
    length: dt.timedelta
    milliseconds: float
    rows: int
    old_rows: bool

    def __str__(self) -> str:
        return f"{duration(self.length)} {self.milliseconds:.0f}{' RAW' if self.old_rows else ''}"


def run(options: Options) -> list[Figure]:
    native = options.dsn is not None
    gpus, days = (20, 2) if options.quick else (NATIVE_GPUS, 7) if native else (100, 7)
    dense = DAY if native else days * DAY
    with own_database(options.dsn) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        rows = fill(connection, gpus, days, dense)
        where = f"{gpus:,} GPUs, {days} d, {rows:,} rows ({'native' if native else 'embedded'})"
        return figures(measure(connection), where, goal=native and not options.quick)


def measure(connection: Connection) -> list[Timed]:
    found: list[Timed] = []
    for dashboard in committed():
        sys.stderr.write(f"  {dashboard.uid}\n")
        for length in sorted({dashboard.default_range, *LONGER}):
            found += _dashboard(connection, dashboard, length)
    return found


def _dashboard(connection: Connection, dashboard: Dashboard, length: dt.timedelta) -> Iterable[Timed]:
    row = connection.execute("SELECT now()").fetchone()
    assert row is not None
    shown = TimeRange(row[0] - length, row[0])
    old = old_chunks(connection, shown.end - FRESH)

    def ask(sql: str) -> list[psycopg.rows.TupleRow]:
        return connection.execute(sql.encode(), prepare=False).fetchall()

    variables = choose(dashboard, shown, ask, {})
    for query in dashboard.queries():
        if query.source is not Source.POSTGRESQL:
            continue
        sql = expand(query.sql, context_of(query, shown, variables))
        times, count = [], 0
        for _ in range(ROUNDS):
            began = time.perf_counter()
            count = len(ask(sql))
            times.append((time.perf_counter() - began) * 1000)
        raw = length > DAY and bool(chunks_in_plan(connection, sql) & old)
        yield Timed(query, length, statistics.median(times), count, raw)


def figures(timed: list[Timed], where: str, *, goal: bool) -> list[Figure]:
    """A line for each query, the worst of its ranges as the value and all ranges as the note; the slowest first."""
    queries: dict[str, list[Timed]] = {}
    for one in timed:
        queries.setdefault(one.query.name, []).append(one)
    lines = []
    for name, ranges in queries.items():
        worst = max(one.milliseconds for one in ranges)
        note = ", ".join(map(str, ranges)) + f"; {max(one.rows for one in ranges):,} rows"
        lines.append(
            Figure("dashboards", name, worst, "ms", f"< {GOAL:g} ms", worst < GOAL if goal else None, note=note)
        )
    lines.sort(key=lambda figure: -figure.value)
    old = [one for one in timed if one.old_rows]
    total = Figure("dashboards", "queries over a day that read old rows", len(old), "", "0", not old, note=where)
    slow = sum(figure.value >= GOAL for figure in lines)
    return [Figure("dashboards", "queries", len(lines), "", note=where), total,
            Figure("dashboards", f"queries over {GOAL:g} ms", slow, "", note=where), *lines]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsn", required=True, help="a native TimescaleDB's database, filled before or empty")
    parser.add_argument("--fill", type=int, metavar="DAYS", help="migrate and fill it: 1,000 GPUs; a week takes 10 min")
    args = parser.parse_args()
    if args.fill is not None:
        prepare(args.dsn)
    with psycopg.connect(args.dsn, autocommit=True) as connection:
        if args.fill is not None:
            fill(connection, NATIVE_GPUS, args.fill, args.fill * DAY)
        catch_up(connection)
        rows = connection.execute("SELECT approximate_row_count('gpu_metrics')").fetchone()
        where = f"about {rows[0]:,} rows" if rows else ""
        print(table(figures(measure(connection), where, goal=True)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
