"""Compressed bytes per row on a mock day of A100s whose load is spread as in a production cluster.

The rows are exact: nothing is rounded that the exporter had not rounded. Two days are stored: one whose values are new
at every scrape, and one whose exporter refreshes them every 30 s (dcgm-exporter's default) while it is scraped at 10 s.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from itertools import islice

import psycopg

from mock_dcgm.exposition import OPT_IN
from mock_dcgm.fleet import build, spread
from mock_dcgm.simulator import Simulator, Snapshot
from services.contract.row import COLUMNS, METRIC_COLUMNS
from services.sink.copy_format import to_copy
from services.sink.pgtime import from_unix
from services.sink.rows import Row
from tests.bench.database import own_database
from tests.bench.report import Figure, Options

INTERVAL = 10.0
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()
EPOCH_2000 = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
GOAL = 20.0
BATCH = 20_000
SHOWN = 12
"""Columns listed, the largest first; the rest is one line."""
_NAMES = ", ".join(column.name for column in COLUMNS)
_COMPRESSED_CHUNKS = """
    SELECT format('%I.%I', compressed.schema_name, compressed.table_name)
    FROM _timescaledb_catalog.chunk plain
    JOIN _timescaledb_catalog.chunk compressed ON compressed.id = plain.compressed_chunk_id
    JOIN _timescaledb_catalog.hypertable h ON h.id = plain.hypertable_id
    WHERE h.table_name = 'gpu_metrics'"""


def run(options: Options) -> list[Figure]:
    gpus, hours = (64, 2.0) if options.quick else ((1000, 24.0) if options.dsn else (100, 24.0))
    figures = []
    for label, every in (("new at every scrape", 1), ("refreshed every 30 s", 3)):
        with own_database(options.dsn) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
            _fill(connection, gpus, hours, every)
            figures += _figures(connection, label, f"{gpus} A100 at 10 s for {hours:g} h", goal=every == 1)
    return figures


def _fill(connection: psycopg.Connection, gpus: int, hours: float, every: int) -> None:
    """COPY the day in, compressing each chunk as soon as it is whole, as the policy does."""
    rows = _day(gpus, hours, every)
    while batch := list(islice(rows, BATCH)):
        with connection.cursor().copy(f"COPY gpu_metrics ({_NAMES}) FROM STDIN (FORMAT binary)") as copy:
            copy.write(to_copy(batch))
        _compress(connection, older_than=EPOCH_2000 + dt.timedelta(microseconds=batch[0][0]))
    _compress(connection, older_than=None)


def _compress(connection: psycopg.Connection, older_than: dt.datetime | None) -> None:
    connection.execute(
        "SELECT compress_chunk(c, if_not_compressed => true) "
        "FROM show_chunks('gpu_metrics', older_than => %s::timestamptz) c "
        "JOIN timescaledb_information.chunks i ON format('%%I.%%I', i.chunk_schema, i.chunk_name)::regclass = c "
        "WHERE NOT i.is_compressed",
        (older_than,),
    )


def _day(gpus: int, hours: float, every: int) -> Iterator[Row]:
    """Rows in arrival order. `every`: the exporter has new values at every n-th scrape."""
    fleet = build(spread(gpus=gpus, hosts=max(1, gpus // 8), models=[("A100", 1)], profile="cluster", seed=1))
    simulator = Simulator(fleet, start=START)
    entities = simulator.layout.entities
    context = [(e.gpu.pod, e.gpu.namespace, e.gpu.container, None, None, None, None) for e in entities]
    values: list[tuple[float | None, ...]] = []
    for number, snapshot in enumerate(simulator.run(hours * 3600, INTERVAL)):
        if number % every == 0:
            values = _values(simulator, snapshot)
        time = from_unix(START + (number + 1) * INTERVAL)
        for gpu, (metrics, rest) in enumerate(zip(values, context, strict=True)):
            yield (time, gpu + 1, *metrics, *rest)


def _values(simulator: Simulator, snapshot: Snapshot) -> list[tuple[float | None, ...]]:
    """One tuple per GPU in METRIC_COLUMNS order, None where the board or the default exposition has no value."""
    nothing: list[float | None] = [None] * len(simulator.layout.entities)
    columns: list[list[float | None]] = []
    for column in METRIC_COLUMNS:
        if column.name in OPT_IN or column.name not in snapshot.columns:
            columns.append(nothing)
            continue
        here = simulator.present[column.name].tolist()
        measured = snapshot.columns[column.name].tolist()
        columns.append([value if has else None for value, has in zip(measured, here, strict=True)])
    return list(zip(*columns, strict=True))


def _figures(connection: psycopg.Connection, label: str, note: str, *, goal: bool) -> list[Figure]:
    rows = _one(connection, "SELECT count(*) FROM gpu_metrics")
    after, before = (
        _one(connection, f"SELECT sum({which}_compression_total_bytes) FROM chunk_compression_stats('gpu_metrics')")
        / rows
        for which in ("after", "before")
    )
    bench = f"storage, {label}"
    figures = [
        Figure(bench, "row before", before, "B", note=note),
        Figure(
            bench,
            "row compressed",
            after,
            "B",
            f"< {GOAL:g} B",
            after < GOAL if goal else None,
            "indexes and TOAST included",
        ),
    ]
    sizes = {name: size / rows for name, size in _column_sizes(connection).items()}
    largest = sorted(sizes, key=lambda name: -sizes[name])
    figures += [Figure(bench, f"column {name}", sizes[name], "B") for name in largest[:SHOWN]]
    rest = sum(sizes[name] for name in largest[SHOWN:])
    figures.append(Figure(bench, f"the other {len(largest) - SHOWN} columns", rest, "B"))
    figures.append(Figure(bench, "pages, TOAST and indexes", after - sum(sizes.values()), "B"))
    return figures


def _column_sizes(connection: psycopg.Connection) -> dict[str, int]:
    """Bytes by column over all compressed chunks."""
    sizes: dict[str, int] = {}
    for (chunk,) in connection.execute(_COMPRESSED_CHUNKS).fetchall():
        query = "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
        names = [name for (name,) in connection.execute(query, (chunk,)).fetchall()]
        sums = ", ".join(f'coalesce(sum(pg_column_size("{name}")), 0)' for name in names)
        row = connection.execute(f"SELECT {sums} FROM {chunk}").fetchone()
        for name, size in zip(names, row or (), strict=True):
            sizes[name] = sizes.get(name, 0) + int(size)
    return sizes


def _one(connection: psycopg.Connection, query: str) -> float:
    row = connection.execute(query).fetchone()
    if row is None or row[0] is None:
        raise RuntimeError(f"no answer: {query}")
    return float(row[0])
