"""Continuous aggregates against plain Python on the same rows: every column, gaps, restarts of counters, late rows."""

from __future__ import annotations

import datetime as dt
import random

import pytest

from services.contract.catalogue import COUNTERS, SAMPLED
from services.store.connect import Connection
from tests.integration.store.samples import START, Gpu, Sample, aggregates, buckets, is_exact
from tests.support.database import empty, insert, refresh, rows_of, value_of

pytestmark = pytest.mark.timescale

MINUTE, HOUR, DAY = dt.timedelta(minutes=1), dt.timedelta(hours=1), dt.timedelta(days=1)
LEVELS = [("gpu_metrics_1min", MINUTE), ("gpu_metrics_1hour", HOUR), ("gpu_metrics_1day", DAY)]
END = START + 4 * HOUR


def make(gpus: list[Gpu], *, every: float = 23) -> list[Sample]:
    steps = int((END - START).total_seconds() / every)
    times = [START + dt.timedelta(seconds=every * step) for step in range(steps)]
    outage = range(steps // 2, steps // 2 + int(420 / every))  # seven minutes without a sample
    return [gpu.sample(time) for gpu in gpus for step, time in enumerate(times) if step not in outage]


@pytest.fixture(scope="module")
def rows(shared: Connection) -> list[Sample]:
    """Three GPUs over four hours, refreshed at every level."""
    empty(shared)
    source = random.Random(20260301)
    rows = make([Gpu(number, source) for number in (1, 2, 30_000)])
    insert(shared, rows)
    refresh(shared)
    return rows


@pytest.mark.parametrize(("level", "width"), LEVELS, ids=[name for name, _ in LEVELS])
def test_every_column_of_every_bucket(shared: Connection, rows: list[Sample], level: str, width: dt.timedelta) -> None:
    found = {(row["bucket"], row["gpu_id"]): row for row in rows_of(shared, f"SELECT * FROM {level}")}
    expected = buckets(rows, width)
    assert found.keys() == expected.keys()
    assert len(expected) >= 6
    for key, samples in expected.items():
        assert found[key]["samples"] == len(samples)
        for metric in SAMPLED:
            for name, compute in aggregates(metric).items():
                value = found[key][f"{name}_{metric.column}"]
                want = compute(samples)
                assert value == (want if is_exact(metric, name) else pytest.approx(want)), (key, name, metric.column)


def test_there_are_gaps_and_restarts_in_what_was_tested(rows: list[Sample]) -> None:
    assert sum("counter_resets" in row for row in rows) > 500
    assert all(any(row.get(m.column) is None for row in rows) for m in SAMPLED if m not in COUNTERS)
    assert len(buckets(rows, DAY)) == 6


def test_averages_are_of_samples_not_of_averages(shared: Connection, rows: list[Sample]) -> None:
    for level, width in LEVELS:
        found = rows_of(shared, f"SELECT bucket, gpu_id, avg_gpu_temp, avg_power_usage FROM v_{level}")
        for row in found:
            samples = buckets(rows, width)[row["bucket"], row["gpu_id"]]
            for name in ("gpu_temp", "power_usage"):
                values = [sample[name] for sample in samples if name in sample]
                assert row[f"avg_{name}"] == (pytest.approx(sum(values) / len(values)) if values else None)


def test_a_filter_on_the_bucket_reaches_the_aggregate(shared: Connection, rows: list[Sample]) -> None:
    """Of the two chunks of six hours (from 18:00 and from 00:00) only the later one is looked at."""
    query = "SELECT avg_gpu_temp FROM v_gpu_metrics_1min WHERE bucket >= '2026-03-02 02:00+00' AND gpu_id = 2"
    plan = "\n".join(row["QUERY PLAN"] for row in rows_of(shared, f"EXPLAIN {query}"))
    chunks = [row["chunk"] for row in rows_of(shared, "SELECT show_chunks('gpu_metrics_1min')::text AS chunk")]
    assert sorted(chunk.rpartition(".")[2] in plan for chunk in chunks) == [False, True]


@pytest.mark.parametrize(("every", "restart"), [(23.0, 0.02), (200.0, 0.5)])
def test_increases_add_up_to_what_the_counters_really_grew(
    connection: Connection, every: float, restart: float
) -> None:
    """Also with restarts between two buckets, in the first sample of a bucket, and with one sample a bucket."""
    gpus = [Gpu(number, random.Random(number), restart=restart) for number in (1, 2)]
    insert(connection, make(gpus, every=every))
    refresh(connection)
    sums = ", ".join(f"sum({m.column}_increase)::bigint AS {m.column}" for m in COUNTERS)
    for level in ("1min", "1hour", "1day"):
        query = f"SELECT gpu_id, {sums} FROM gpu_increases_{level}(%s, %s) GROUP BY gpu_id ORDER BY gpu_id"
        found = rows_of(connection, query, (START - DAY, END + DAY))
        assert [{m.column: row[m.column] for m in COUNTERS} for row in found] == [dict(gpu.grown) for gpu in gpus], (
            level
        )


def counter(time: dt.datetime, value: int | None, reset: int | None = None) -> Sample:
    row: Sample = {"time": time, "gpu_id": 1, "pcie_replay_counter": value}
    return row if reset is None else {**row, "counter_resets": {"pcie_replay_counter": reset}}


def increases(connection: Connection, since: dt.datetime = START, until: dt.datetime = END) -> list[int | None]:
    query = "SELECT pcie_replay_counter_increase FROM gpu_increases_1min(%s, %s) ORDER BY bucket"
    return [row["pcie_replay_counter_increase"] for row in rows_of(connection, query, (since, until))]


def test_the_gap_between_buckets_counts_to_the_later_one(connection: Connection) -> None:
    insert(connection, [counter(START, 10), counter(START + MINUTE, 15), counter(START + MINUTE * 2, 18)])
    assert increases(connection) == [0, 5, 3]


def test_the_range_may_begin_anywhere(connection: Connection) -> None:
    """The bucket before the range is looked at, and not returned."""
    insert(connection, [counter(START + MINUTE * step, 10 * step) for step in range(30)])
    assert increases(connection, START + MINUTE * 7, START + MINUTE * 10) == [10, 10, 10]


def test_after_a_long_silence_a_bucket_counts_from_its_own_first_sample(connection: Connection) -> None:
    long_after = START + MINUTE * 12
    insert(connection, [counter(START, 10), counter(long_after, 500), counter(long_after + MINUTE / 2, 501)])
    assert increases(connection) == [0, 1]


def test_a_restart_nobody_saw_is_unknown_not_negative(connection: Connection) -> None:
    insert(connection, [counter(START, 100), counter(START + MINUTE, 3), counter(START + MINUTE * 2, 4)])
    assert increases(connection) == [0, None, 1]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_days_are_counted_once_also_when_clocks_change(connection: Connection, zone: str) -> None:
    """The 25th of October 2026 has 25 hours in Berlin, the 1st of November in New York."""
    start = dt.datetime(2026, 10, 20, 12, tzinfo=dt.UTC)
    insert(connection, [counter(start + day * DAY, 24 * day) for day in range(20)])
    connection.execute(f"SET timezone = '{zone}'".encode())
    try:
        query = "SELECT pcie_replay_counter_increase AS grown FROM gpu_increases_1day(%s, %s) ORDER BY bucket"
        found = [row["grown"] for row in rows_of(connection, query, (start - DAY, start + 30 * DAY))]
    finally:
        connection.execute("RESET timezone")
    assert found == [0] + [24] * 19


def test_a_restart_in_the_first_sample_of_a_bucket(connection: Connection) -> None:
    insert(connection, [counter(START, 100), counter(START + MINUTE, 3, reset=100), counter(START + MINUTE * 2, 4)])
    assert increases(connection) == [0, 3, 1]
    (row,) = rows_of(connection, "SELECT * FROM gpu_metrics_1min WHERE bucket = %s", (START + MINUTE,))
    assert (row["first_pcie_replay_counter"], row["last_pcie_replay_counter"]) == (103, 3)
    assert row["resets_pcie_replay_counter"] == 100


def test_no_value_is_unknown(connection: Connection) -> None:
    insert(connection, [counter(START, None), counter(START + MINUTE, 7)])
    assert increases(connection) == [None, 0]


def test_newest_rows_are_seen_before_any_refresh(connection: Connection) -> None:
    insert(connection, [counter(START, 1)])
    for level, _ in LEVELS:
        assert value_of(connection, f"SELECT samples FROM {level}") == 1


def test_late_rows_are_seen_after_the_next_refresh(connection: Connection) -> None:
    insert(connection, [counter(START + MINUTE * step, step) for step in range(120)])
    refresh(connection)
    insert(connection, [{**counter(START + MINUTE * 3 + MINUTE / 2, None), "gpu_temp": 77}])
    refresh(connection)
    for level, samples in (("gpu_metrics_1min", 2), ("gpu_metrics_1hour", 31), ("gpu_metrics_1day", 91)):
        query = f"SELECT samples, max_gpu_temp FROM {level} WHERE bucket <= %s ORDER BY bucket DESC LIMIT 1"
        assert rows_of(connection, query, (START + MINUTE * 3,)) == [{"samples": samples, "max_gpu_temp": 77}], level
