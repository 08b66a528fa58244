"""Compression, retention and refresh, proved by running their jobs and looking at the chunks."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from services.store.connect import Connection
from services.store.policies import COMPRESSION, REFRESH, RETENTION
from tests.support.database import empty, insert, migrated, rows_of, run_job, value_of

pytestmark = pytest.mark.timescale

MINUTE, HOUR, DAY = dt.timedelta(minutes=1), dt.timedelta(hours=1), dt.timedelta(days=1)
LEVELS = ("gpu_metrics_1min", "gpu_metrics_1hour", "gpu_metrics_1day")


@pytest.fixture(scope="module")
def shared(timescale: str) -> Iterator[Connection]:
    with migrated(timescale) as connection:
        # Where there are background workers, they must not run the jobs while the tests look.
        connection.execute(
            "SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs WHERE job_id >= 1000"
        )
        yield connection


@pytest.fixture
def connection(shared: Connection) -> Connection:
    empty(shared)
    shared.execute("SELECT drop_chunks('gpu_metrics', newer_than => '-infinity'::timestamptz)")
    return shared


def fill(connection: Connection, since: dt.datetime, until: dt.datetime, every: dt.timedelta = MINUTE) -> int:
    """One GPU, one row each `every`. Returns how many rows."""
    times = [since + every * step for step in range(int((until - since) / every))]
    insert(connection, [{"time": time, "gpu_id": 1, "gpu_temp": 50} for time in times])
    return len(times)


def chunks(connection: Connection, hypertable: str = "gpu_metrics") -> list[tuple[dt.datetime, bool, int]]:
    """(end, compressed, number of rows) of each chunk."""
    found = connection.execute(
        "SELECT chunk_schema, chunk_name, range_end, is_compressed FROM timescaledb_information.chunks "
        "WHERE hypertable_name = %s ORDER BY range_end",
        (hypertable,),
    ).fetchall()
    return [
        (end, compressed, value_of(connection, f'SELECT count(*) FROM "{schema}"."{name}"'))
        for schema, name, end, compressed in found
    ]


def test_a_row_is_in_the_columnstore_within_two_hours(connection: Connection, now: dt.datetime) -> None:
    rows = fill(connection, now - 4 * HOUR, now)
    run_job(connection, COMPRESSION, "gpu_metrics")
    found = chunks(connection)
    assert sum(count for _, _, count in found) == rows
    assert {compressed for end, compressed, _ in found if end <= now - HOUR} == {True}
    assert {compressed for end, compressed, _ in found if end > now - HOUR} == {False}
    # What is not compressed yet will be at the next run at the latest: ten minutes on.
    schedule = value_of(
        connection,
        "SELECT schedule_interval FROM timescaledb_information.jobs "
        "WHERE proc_name = 'policy_compression' AND hypertable_name = 'gpu_metrics'",
    )
    oldest_open = min(end - HOUR / 2 for end, compressed, _ in found if not compressed)
    assert now + schedule - oldest_open <= 2 * HOUR


def test_late_rows_and_repeats_in_compressed_chunks(connection: Connection, now: dt.datetime) -> None:
    begin = now - 4 * HOUR
    rows = fill(connection, begin, now)
    run_job(connection, COMPRESSION, "gpu_metrics")
    insert(connection, [{"time": begin + MINUTE / 2, "gpu_id": 1, "gpu_temp": 99}])
    with pytest.raises(psycopg.errors.UniqueViolation):
        insert(connection, [{"time": begin, "gpu_id": 1}])
    connection.execute(
        "INSERT INTO gpu_metrics (time, gpu_id) SELECT %s, generate_series(1, 2) ON CONFLICT DO NOTHING", (begin,)
    )
    assert value_of(connection, "SELECT count(*) FROM gpu_metrics") == rows + 2
    assert value_of(connection, "SELECT gpu_temp FROM gpu_metrics WHERE gpu_id = 1 AND time = %s", (begin,)) == 50
    run_job(connection, COMPRESSION, "gpu_metrics")
    assert value_of(connection, "SELECT count(*) FROM gpu_metrics") == rows + 2
    outside = value_of(
        connection,
        "SELECT count(*) FROM timescaledb_information.chunks WHERE hypertable_name = 'gpu_metrics' "
        "AND range_end <= %s AND NOT is_compressed",
        (now - HOUR,),
    )
    assert outside == 0


def test_retention_drops_what_is_older_and_nothing_else(connection: Connection, now: dt.datetime) -> None:
    fill(connection, now - 7 * DAY - 3 * HOUR, now - 7 * DAY + 3 * HOUR)
    run_job(connection, COMPRESSION, "gpu_metrics")
    run_job(connection, RETENTION, "gpu_metrics")
    oldest = value_of(connection, "SELECT min(time) FROM gpu_metrics")
    assert now - 7 * DAY - HOUR / 2 <= oldest <= now - 7 * DAY + MINUTE
    assert value_of(connection, "SELECT count(*) FROM gpu_metrics WHERE time >= %s", (now - 7 * DAY + MINUTE,)) >= 179


@pytest.mark.parametrize(("level", "days"), [("gpu_metrics_1min", 30), ("gpu_metrics_1hour", 365)])
def test_aggregates_are_kept_longer(connection: Connection, now: dt.datetime, level: str, days: int) -> None:
    fill(connection, now - (days + 100) * DAY, now - (days + 100) * DAY + 3 * HOUR)
    fill(connection, now - (days - 15) * DAY, now - (days - 15) * DAY + 3 * HOUR)
    for name in LEVELS:
        connection.execute(f"CALL refresh_continuous_aggregate('{name}', NULL, NULL)".encode())
    run_job(connection, RETENTION, "gpu_metrics")
    run_job(connection, RETENTION, level)
    assert value_of(connection, "SELECT count(*) FROM gpu_metrics") == 0
    assert value_of(connection, f"SELECT min(bucket) FROM {level}") >= now - (days - 14) * DAY - 2 * DAY


def buckets(connection: Connection) -> dict[str, list[tuple[dt.datetime, int]]]:
    return {
        level: connection.execute(f"SELECT bucket, samples FROM {level} ORDER BY bucket".encode()).fetchall()
        for level in LEVELS
    }


def test_refreshing_after_rows_were_dropped_erases_nothing(connection: Connection, now: dt.datetime) -> None:
    """Rows from both sides of the retention; all jobs, in every order that matters, and again after late rows."""
    fill(connection, now - 9 * DAY, now - 6 * DAY, 7 * MINUTE)
    for level in LEVELS:
        connection.execute(f"CALL refresh_continuous_aggregate('{level}', NULL, NULL)".encode())
    before = buckets(connection)
    assert len(before["gpu_metrics_1day"]) >= 3
    run_job(connection, RETENTION, "gpu_metrics")
    assert value_of(connection, "SELECT min(time) FROM gpu_metrics") > now - 7 * DAY - HOUR
    for level in LEVELS:
        run_job(connection, REFRESH, level)
    assert buckets(connection) == before
    # A late row makes its buckets stale on every level; their refresh must not take the neighbours along.
    late = value_of(connection, "SELECT min(time) FROM gpu_metrics WHERE time > %s", (now - 7 * DAY + 2 * HOUR,))
    insert(connection, [{"time": late + MINUTE / 3, "gpu_id": 1, "gpu_temp": 90}])
    for level in LEVELS:
        run_job(connection, REFRESH, level)
    after = buckets(connection)
    for level in LEVELS:
        assert [bucket for bucket, _ in after[level]] == [bucket for bucket, _ in before[level]] or level == LEVELS[0]
        assert sum(samples for _, samples in after[level]) == sum(samples for _, samples in before[level]) + 1


def test_what_would_happen_without_that_window(connection: Connection, now: dt.datetime) -> None:
    """The danger is real: the test above would not notice if a refresh could not erase anything."""
    fill(connection, now - 9 * DAY, now - 8 * DAY, 7 * MINUTE)
    connection.execute("CALL refresh_continuous_aggregate('gpu_metrics_1min', NULL, NULL)")
    run_job(connection, RETENTION, "gpu_metrics")
    assert value_of(connection, "SELECT count(*) FROM gpu_metrics_1min") > 100
    connection.execute("CALL refresh_continuous_aggregate('gpu_metrics_1min', NULL, NULL, force => true)")
    assert value_of(connection, "SELECT count(*) FROM gpu_metrics_1min") == 0


def test_aggregates_are_compressed_and_take_late_rows_then_too(connection: Connection, now: dt.datetime) -> None:
    begin = now - DAY
    fill(connection, begin, now)
    run_job(connection, REFRESH, "gpu_metrics_1min")
    run_job(connection, COMPRESSION, "gpu_metrics_1min")
    compressed = value_of(
        connection,
        "SELECT count(*) FROM timescaledb_information.chunks c JOIN timescaledb_information.continuous_aggregates a "
        "ON c.hypertable_name = a.materialization_hypertable_name "
        "WHERE a.view_name = 'gpu_metrics_1min' AND c.is_compressed",
    )
    assert compressed >= 2
    insert(connection, [{"time": begin + HOUR + MINUTE / 3, "gpu_id": 1, "gpu_temp": 90}])
    run_job(connection, REFRESH, "gpu_metrics_1min")
    assert value_of(connection, "SELECT count(*) FROM gpu_metrics_1min WHERE max_gpu_temp = 90") == 1
    assert value_of(connection, "SELECT sum(samples)::bigint FROM gpu_metrics_1min") == 24 * 60 + 1


def test_an_hour_is_stored_soon_after_it_is_over(connection: Connection, now: dt.datetime) -> None:
    """Before its refresh dashboards put it together from minutes. What comes after that is in it after the next."""
    fill(connection, now - 4 * HOUR, now)
    over = (now - 5 * MINUTE).replace(minute=0, second=0, microsecond=0)
    table = value_of(
        connection,
        "SELECT format('%%I.%%I', materialization_hypertable_schema, materialization_hypertable_name) "
        "FROM timescaledb_information.continuous_aggregates WHERE view_name = %s",
        ("gpu_metrics_1hour",),
    )

    def newest_stored() -> dict[str, Any]:
        for level in LEVELS[:2]:
            run_job(connection, REFRESH, level)
        return rows_of(connection, f"SELECT bucket, samples FROM {table} ORDER BY 1 DESC LIMIT 1")[0]

    assert newest_stored() == {"bucket": over - HOUR, "samples": 60}
    insert(connection, [{"time": over - MINUTE + dt.timedelta(seconds=59.5), "gpu_id": 1, "gpu_temp": 99}])
    assert newest_stored() == {"bucket": over - HOUR, "samples": 61}


def test_jobs_have_started_staggered(connection: Connection) -> None:
    starts = [
        row["initial_start"]
        for row in rows_of(connection, "SELECT initial_start FROM timescaledb_information.jobs WHERE job_id >= 1000")
    ]
    assert len(starts) == len(set(starts)) == 19  # 18 policies, and the job of gpu_snapshots


def test_a_query_for_one_gpu_reads_its_batches_only(connection: Connection, now: dt.datetime) -> None:
    """Without segments: the lowest and highest gpu_id of each batch, of 1,000 rows or (native 2.28) 4,000."""
    begin = now.replace(minute=0, second=0, microsecond=0) - 3 * HOUR  # ten minutes inside one chunk
    times = [begin + dt.timedelta(seconds=step) for step in range(0, 600, 10)]
    insert(connection, [{"time": time, "gpu_id": gpu, "gpu_temp": gpu % 90} for time in times for gpu in range(200)])
    run_job(connection, COMPRESSION, "gpu_metrics")
    query = "EXPLAIN (ANALYZE, FORMAT JSON) SELECT gpu_temp FROM gpu_metrics WHERE gpu_id = 77 AND time < now()"
    (scan,) = _scans_of_compressed(value_of(connection, query)[0]["Plan"])
    batches = value_of(connection, f"SELECT count(*) FROM _timescaledb_internal.{scan['Relation Name']}")
    assert batches >= 3
    assert scan["Actual Rows"] <= 2


def _scans_of_compressed(plan: dict[str, Any]) -> list[dict[str, Any]]:
    found = [plan] if str(plan.get("Relation Name", "")).startswith("compress_hyper") else []
    return found + [scan for child in plan.get("Plans", []) for scan in _scans_of_compressed(child)]
