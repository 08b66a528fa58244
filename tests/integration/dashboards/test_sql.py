"""Every query of every committed dashboard on TimescaleDB, expanded as Grafana does: what it shows, and what not."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import mean
from typing import Any, Final

import psycopg
import pytest

from mock_dcgm.fleet import build
from services.contract.catalogue import SAMPLED
from services.store.connect import Connection
from tests.integration.dashboards.dataset import (
    A100_HOST,
    DAY,
    FLEET,
    HOUR,
    MINUTE,
    P40_HOST,
    SPAN,
    T4_HOST,
    Dataset,
    Row,
    fill,
)
from tests.support.database import migrated, register, value_of
from tests.support.grafana_checks import Result, plain, problems
from tests.support.grafana_dashboards import Query, Source, Use, choose, committed, context_of
from tests.support.grafana_plans import FRESH, chunks_in_plan, old_chunks
from tests.support.grafana_sql import GrafanaError, TimeRange, Variable, expand

pytestmark = pytest.mark.timescale

DASHBOARDS: Final = {dashboard.uid: dashboard for dashboard in committed()}
QUERIES: Final = [q for d in DASHBOARDS.values() for q in d.queries() if q.source is Source.POSTGRESQL]
PANELS: Final = [q for q in QUERIES if q.use is Use.PANEL]
RANGES: Final = {"15 min": 15 * MINUTE, "6 h": 6 * HOUR, "2 days": 2 * DAY, "30 days": 30 * DAY}
CHOICES: Final[dict[str, dict[str, str | None]]] = {
    "all": {},
    A100_HOST: {"host": A100_HOST},
    P40_HOST: {"host": P40_HOST},
    T4_HOST: {"host": T4_HOST},
    "lost GPU": {"host": A100_HOST, "gpu": "5"},
    "MIG instance": {"host": A100_HOST, "gpu": "7"},
}
"""Values of the dashboards' variables; where All cannot be chosen, "all" is the first option."""


def ids(query: Query) -> str:
    return query.name


@dataclass
class Story:
    """The database, what is in it, and the variables already asked for."""

    connection: Connection
    data: Dataset
    chosen: dict[tuple[str, dt.timedelta, str], Mapping[str, Variable]] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    """SQL -> what it gave: several tests look at the same."""

    def sql(self, query: Query, length: dt.timedelta, choice: str) -> str:
        time_range = TimeRange(self.data.end - length, self.data.end)
        key = (query.dashboard, length, choice)
        if key not in self.chosen:
            self.chosen[key] = choose(DASHBOARDS[query.dashboard], time_range, self.ask, CHOICES[choice])
        return expand(query.sql, context_of(query, time_range, self.chosen[key]))

    def ask(self, sql: str) -> Sequence[Sequence[Any]]:
        return run(self.connection, sql).rows

    def result(self, query: Query, length: dt.timedelta, choice: str) -> Result:
        sql = self.sql(query, length, choice)
        if sql not in self.results:
            self.results[sql] = run(self.connection, sql)
        return self.results[sql]


def run(connection: Connection, sql: str) -> Result:
    """As Grafana sends it: one statement, no parameters."""
    cursor = connection.execute(sql.encode(), prepare=False)
    assert cursor.description is not None, "a statement without a result"
    types = psycopg.adapters.types
    columns = [
        (c.name, found.name if (found := types.get(c.type_code)) else str(c.type_code)) for c in cursor.description
    ]
    return Result(columns, cursor.fetchall())


@pytest.fixture(scope="module")
def connection(timescale: str) -> Iterator[Connection]:
    """No policy runs: retention would drop the old rows before the aggregates have them."""
    with migrated(timescale) as connection:
        connection.execute("SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs")
        yield connection


Nothing = dict[str, Result | Exception]


@pytest.fixture(scope="module")
def nothing(connection: Connection) -> Nothing:
    """Of each query its result in a database without rows: asked before the rows are written."""
    story = Story(connection, Dataset(value_of(connection, "SELECT now()")))
    results: Nothing = {}
    for query in QUERIES:
        try:
            results[query.name] = story.result(query, 6 * HOUR, "all")
        except (psycopg.Error, GrafanaError) as error:
            results[query.name] = error
    return results


@pytest.fixture(scope="module")
def story(connection: Connection, nothing: Nothing) -> Story:
    now: dt.datetime = value_of(connection, "SELECT now()")
    end = now.replace(second=now.second // 10 * 10, microsecond=0)
    return Story(connection, fill(connection, end))


# --- every query -----------------------------------------------------------------------------------------------------


def test_there_are_dashboards_and_each_has_queries() -> None:
    assert DASHBOARDS
    for dashboard in DASHBOARDS.values():
        assert list(dashboard.queries()), dashboard.uid


def test_query_names_are_unique() -> None:
    """Else one result would stand for two panels."""
    names = [q.name for q in QUERIES]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("query", QUERIES, ids=ids)
def test_columns_are_what_the_panel_needs(story: Story, query: Query) -> None:
    found = {
        f"{name}, {choice}: {problem}"
        for name, length in RANGES.items()
        for choice in (CHOICES if length == 6 * HOUR else ("all", A100_HOST))
        for problem in problems(query, story.result(query, length, choice))
    }
    assert not found


# --- rows where data exists ------------------------------------------------------------------------------------------

NOT_ALWAYS: Final[dict[str, tuple[str, ...]]] = {
    "gpu-telemetry / GPU Temperature / B": ("15 min", "6 h"),  # peaks of buckets: rows have none beside themselves
}
"""Query -> ranges in which there is nothing to show."""


@pytest.mark.parametrize("query", QUERIES, ids=ids)
def test_there_is_something_where_data_exists(story: Story, query: Query) -> None:
    empty = [
        name
        for name, length in RANGES.items()
        if not any(story.result(query, length, choice).values for choice in (A100_HOST, P40_HOST, "all", "lost GPU"))
    ]
    assert empty == list(NOT_ALWAYS.get(query.name, ()))


# --- nothing where there is none -------------------------------------------------------------------------------------

TRUE_ZEROS: Final[dict[str, str]] = {
    "gpu-telemetry / Total Samples / A": "there are none",
    "gpu-fleet / GPUs / A": "there are none: known, reporting, silent",
}
"""Query -> why it may say zero in an empty database: it counts what is stored."""


@pytest.mark.parametrize("query", QUERIES, ids=ids)
def test_an_empty_database_gives_nothing_and_no_invented_zero(nothing: Nothing, query: Query) -> None:
    result = nothing[query.name]
    assert isinstance(result, Result), result
    assert problems(query, result) == []
    if query.name in TRUE_ZEROS:
        assert set(result.numbers) == {0.0}
    else:
        assert result.values == []


METRIC: Final = re.compile(r"\b(?:sum|count|min|max|last|first|or|resets|avg)?_?(" + "|".join(
    sorted((m.column for m in SAMPLED), key=len, reverse=True)) + r")(?:_increase)?\b")  # fmt: skip


def metrics_of(query: Query) -> set[str]:
    """The metrics its SQL names."""
    return set(METRIC.findall(query.sql))


def reported(data: Dataset, host: str) -> set[str]:
    metrics = {m.column for m in SAMPLED}
    return {name for row in data.rows if row["host"] == host for name in metrics & row.keys() if row[name] is not None}


@pytest.mark.parametrize(
    ("host", "among_others"),
    [(P40_HOST, {"Energy", "Memory temperature"}), (T4_HOST, {"ECC errors"})],
)
def test_a_board_without_a_metric_shows_none(story: Story, host: str, among_others: set[str]) -> None:
    """A P40 has no profiling, energy or NVLink; a T4 with ECC off has no ECC counts. Neither has zero of them."""
    has, asked = reported(story.data, host), set()
    for query in PANELS:
        named = metrics_of(query)
        if named <= has or "host" not in {v["name"] for v in DASHBOARDS[query.dashboard].variables}:
            continue
        for length in RANGES.values():
            result = story.result(query, length, host)
            if named.isdisjoint(has):
                assert result.numbers == [], query.name
            for name, _ in result.columns:
                assert name not in named - has or set(result.column(name)) <= {None}, f"{query.name}: {name}"
        asked.add(query.title)
    assert among_others <= asked


# --- plans -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", QUERIES, ids=ids)
@pytest.mark.parametrize("length", [DAY + HOUR, SPAN], ids=["25 h", "30 days"])
def test_no_old_rows_are_read_for_more_than_a_day(story: Story, query: Query, length: dt.timedelta) -> None:
    """Of gpu_metrics the plan has chunks of the last two hours only: newest samples, and what no aggregate has yet."""
    used = chunks_in_plan(story.connection, story.sql(query, length, "all"))
    assert used.isdisjoint(old(story))


def old(story: Story) -> set[str]:
    names = old_chunks(story.connection, story.data.end - FRESH)
    assert len(names) >= 8, "too few old chunks to tell"
    return names


def test_the_gpus_chosen_are_what_they_are_called(story: Story) -> None:
    numbers = {number: instance for (_, instance), number in story.data.gpu_ids.items()}
    assert story.data.gpu_ids[_gpu(2)] == int(CHOICES["lost GPU"]["gpu"] or 0)
    assert numbers[int(CHOICES["MIG instance"]["gpu"] or 0)] is not None


def test_the_check_of_plans_sees_old_rows(story: Story) -> None:
    query = "SELECT count(*) FROM gpu_metrics WHERE time > now() - INTERVAL '2 days'"
    assert chunks_in_plan(story.connection, query) & old(story)


# --- values, computed a second time in Python -------------------------------------------------------------------------

HOST_UID, FLEET_UID = "gpu-telemetry", "gpu-fleet"
EPOCH: Final = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
BUCKETS: Final = {"15 min": None, "6 h": None, "2 days": MINUTE, "30 days": HOUR}
"""Of a host, by range: rows, minutes, hours."""
Bucket = list[Row]
"""The rows of a GPU in a bucket, in order."""


def begin_of(time: dt.datetime, width: dt.timedelta) -> dt.datetime:
    return EPOCH + (time - EPOCH) // width * width


def buckets(data: Dataset, length: dt.timedelta, width: dt.timedelta | None, host: str) -> list[Bucket]:
    """What a panel over the last `length` is computed from: buckets that reach into it, whole."""
    start = data.end - length if width is None else begin_of(data.end - length, width)
    found: dict[tuple[int, dt.datetime], Bucket] = {}
    for row in data.rows:
        begin = row["time"] if width is None else begin_of(row["time"], width)
        if row["host"] == host and start <= begin <= data.end:
            found.setdefault((row["gpu_id"], begin), []).append(row)
    return list(found.values())


def panel(uid: str, title: str, ref: str = "A") -> Query:
    return next(q for q in PANELS if (q.dashboard, q.title, q.ref) == (uid, title, ref))


def shown(story: Story, uid: str, title: str, length: dt.timedelta, host: str) -> list[list[Any]]:
    return [[plain(value) for value in row] for row in story.result(panel(uid, title), length, host).rows]


def temps(rows: list[Row]) -> list[int]:
    return [row["gpu_temp"] for row in rows if row.get("gpu_temp") is not None]


def by_tag(found: list[Bucket]) -> dict[str, list[Row]]:
    """A bucket belongs to the tag of its last row."""
    tags: dict[str, list[Row]] = {}
    for rows in found:
        tags.setdefault(rows[-1].get("status_tag") or "untagged", []).extend(rows)
    return tags


@pytest.mark.parametrize("host", [P40_HOST, A100_HOST, T4_HOST])
@pytest.mark.parametrize("name", RANGES)
def test_temperatures_and_samples_of_a_host(story: Story, name: str, host: str) -> None:
    length = RANGES[name]
    found = buckets(story.data, length, BUCKETS[name], host)
    rows = [row for bucket in found for row in bucket]
    assert shown(story, HOST_UID, "Max Temp", length, host) == [[max(temps(rows))]]
    assert shown(story, HOST_UID, "Avg Temp", length, host) == [[pytest.approx(mean(temps(rows)))]]
    assert shown(story, HOST_UID, "Total Samples", length, host) == [[len(rows)]]
    tags = by_tag(found)
    assert dict(shown(story, HOST_UID, "Samples by Status", length, host)) == {t: len(r) for t, r in tags.items()}
    spread = shown(story, HOST_UID, "Temperature Distribution by Status", length, host)
    assert {tag: (low, high) for tag, low, _, high in spread} == {
        tag: (min(temps(rows)), max(temps(rows))) for tag, rows in tags.items()
    }
    for tag, _, average, _ in spread:
        assert average == pytest.approx(mean(temps(tags[tag])), abs=0.05 + 1e-9)


def test_current_temperatures_are_the_newest(story: Story) -> None:
    """The GPU that was lost nine minutes ago has none."""
    newest: dict[int, Row] = {}
    for row in story.data.rows:
        if row["host"] == A100_HOST:
            newest[row["gpu_id"]] = row
    fresh = [r["gpu_temp"] for r in newest.values() if r["time"] == story.data.end and "gpu_temp" in r]
    values = [row[-1] for row in shown(story, HOST_UID, "Current Temperature", 6 * HOUR, A100_HOST)]
    assert len(fresh) == 3
    assert sorted(value for value in values if value is not None) == sorted(fresh)


def test_recent_status_changes_are_those_that_were_made(story: Story) -> None:
    result = story.result(panel(HOST_UID, "Recent Status Changes"), 6 * HOUR, P40_HOST)
    told = [e for e in story.data.events if e["kind"] == "status" and e["time"] >= story.data.end - 6 * HOUR]
    wanted = [(e["time"], e["detail"]["tag"], e["detail"]["memo"]) for e in reversed(told)]
    assert list(zip(result.column("time"), result.column("status"), result.column("memo"), strict=True)) == wanted
    assert result.column("before") == [*(tag for _, tag, _ in wanted[1:]), "idle"]


@pytest.mark.parametrize("name", ["6 h", "2 days"])
def test_energy_is_what_the_counter_grew(story: Story, name: str) -> None:
    """kWh by GPU, over a restart of the counter; not of the GPU that was lost, whose growth meanwhile nobody knows."""
    start, end = begin_of(story.data.end - RANGES[name], MINUTE), story.data.end
    values = {row[-2]: row[-1] for row in shown(story, HOST_UID, "Energy", RANGES[name], A100_HOST)}
    for index in (0, 1, 3):
        gpu = story.data.gpu_ids[_gpu(index)]
        rows = [row for row in story.data.rows if row["gpu_id"] == gpu and minute(row) <= end]
        assert values[f"GPU {index}"] == pytest.approx(grown(rows, start) / 3.6e9, rel=1e-9)


def minute(row: Row) -> dt.datetime:
    time: dt.datetime = row["time"]
    return begin_of(time, MINUTE)


def _gpu(index: int) -> tuple[str, None]:
    host = next(h for h in build(FLEET).hosts if h.name == A100_HOST)
    return (host.gpus[index].uuid, None)


def grown(rows: list[Row], start: dt.datetime) -> int:
    """mJ in the minutes that begin at `start` or later. A restart begins at zero; what grew over more than ten minutes
    without a row is not counted (docs/schema.md)."""
    name = "total_energy_consumption"
    return sum(
        after[name] - (0 if name in after.get("counter_resets", {}) else before[name])
        for before, after in pairwise(rows)
        if minute(after) >= start and minute(after) - minute(before) <= 10 * MINUTE
    )


def between(story: Story, query: Query, start: dt.datetime, end: dt.datetime) -> Result:
    time_range = TimeRange(start, end)
    variables = choose(DASHBOARDS[query.dashboard], time_range, story.ask, CHOICES["all"])
    return run(story.connection, expand(query.sql, context_of(query, time_range, variables)))


def test_a_peak_in_the_hour_in_which_the_range_begins_is_shown(story: Story) -> None:
    """The fleet opens with two hours, read from hours: what is hottest may lie in the first, which began before."""
    gpu = story.data.gpu_ids[_gpu(0)]
    hours: dict[dt.datetime, int] = {}
    for row in story.data.rows:
        if row["gpu_id"] == gpu and "gpu_temp" in row and row["time"] >= story.data.end - DAY:
            hour = begin_of(row["time"], HOUR)
            hours[hour] = max(hours.get(hour, 0), row["gpu_temp"])
    first, peak = next((h, t) for h, t in hours.items() if t > max(hours.get(h + n * HOUR, t) for n in (1, 2)))
    start = first + MINUTE
    result = between(story, panel(FLEET_UID, "Hottest GPUs"), start, start + 2 * HOUR)
    assert dict(zip(result.column("gpu_id"), result.column("peak temperature"), strict=True))[gpu] == peak


def test_an_error_in_the_hour_in_which_the_range_begins_is_shown(story: Story) -> None:
    name, gpu = "ecc_dbe_vol_total", story.data.gpu_ids[_gpu(0)]
    rows = [row for row in story.data.rows if row["gpu_id"] == gpu and name in row]
    at = next(after["time"] for before, after in pairwise(rows) if after[name] > before[name])
    hour = begin_of(at, HOUR)
    result = between(story, panel(FLEET_UID, "Memory errors"), hour + MINUTE, hour + 2 * HOUR)
    assert dict(zip(result.column("time"), result.column(name), strict=True))[hour] >= 1


def test_a_share_of_hours_is_not_said(story: Story) -> None:
    """Nearly every hour under load has a throttled moment: it would be 100 %."""
    for length, said in ((15 * MINUTE, True), (6 * HOUR, False), (30 * DAY, False)):
        result = story.result(panel(FLEET_UID, "Most throttled GPUs"), length, "all")
        assert any(share is not None for share in result.column("minutes with throttling")) == said


@pytest.mark.parametrize("name", ["6 h", "30 days"])
def test_a_memo_used_again_is_another_run(story: Story, name: str) -> None:
    """'normal usage' held until 33 h before the end, and again in the last two hours."""
    result = story.result(panel(HOST_UID, "Runs by memo"), RANGES[name], P40_HOST)
    memos = [memo for memo, gpu in zip(result.column("memo"), result.column("GPU"), strict=True) if gpu == "GPU 0"]
    assert memos.count("normal usage") == (2 if name == "30 days" else 1)


def test_gpus_are_in_the_order_of_their_numbers(story: Story) -> None:
    variables = {v["name"]: v for v in DASHBOARDS[HOST_UID].variables}
    sql = str(variables["gpu"]["query"]).replace("${host:sqlstring}", f"'{A100_HOST}'")
    names = [row[0] for row in story.ask(sql)]
    assert [name[:5] for name in names] == sorted(name[:5] for name in names)
    assert len(names) == 6
    tiles = [row[1] for row in shown(story, HOST_UID, "Current Temperature", 6 * HOUR, A100_HOST)]
    assert tiles == names


def test_gpu_10_comes_after_gpu_9(story: Story) -> None:
    variables = {v["name"]: v for v in DASHBOARDS[HOST_UID].variables}
    sql = str(variables["gpu"]["query"])
    host = "twelve"
    with story.connection.transaction(force_rollback=True):
        for index in range(12):
            register(story.connection, story.data.end, uuid=f"GPU-twelve-{index}", hostname=host, index=index)
        names = [row[0] for row in story.ask(sql.replace("${host:sqlstring}", f"'{host}'"))]
    assert names == [f"GPU {index}" for index in range(12)]


def test_recent_xids_are_those_that_were_told(story: Story) -> None:
    result = story.result(panel(FLEET_UID, "Recent XIDs"), 6 * HOUR, "all")
    told = [e for e in story.data.events if e["kind"] == "xid" and e["time"] >= story.data.end - 6 * HOUR]
    found = zip(result.column("time"), result.column("XID"), result.column("do now"), strict=True)
    assert sorted(found) == sorted((e["time"], e["code"], "reset") for e in told)


def test_lost_gpus_are_those_that_are_lost(story: Story) -> None:
    result = story.result(panel(FLEET_UID, "Lost GPUs"), 6 * HOUR, "all")
    assert [tuple(row) for row in zip(result.column("host"), result.column("GPU"), strict=True)] == [
        (A100_HOST, "GPU 2")
    ]


def test_power_by_cluster_is_the_sum_of_the_means(story: Story) -> None:
    """In minutes, where a minute holds six samples of each GPU."""
    result = story.result(panel(FLEET_UID, "Power by cluster"), 15 * MINUTE, "all")
    at = EPOCH + (story.data.end - 5 * MINUTE - EPOCH) // MINUTE * MINUTE
    watts: dict[int, list[float]] = {}
    for row in story.data.rows:
        if row["host"] == A100_HOST and at <= row["time"] < at + MINUTE and "power_usage" in row:
            watts.setdefault(row["gpu_id"], []).append(row["power_usage"])
    of = {(time, name): value for time, name, value in result.rows}
    assert len(watts) == 3
    assert of[at, "east"] == pytest.approx(sum(mean(values) for values in watts.values()), rel=1e-5)
