"""Every query of every committed dashboard on TimescaleDB, expanded as Grafana does: what it shows, and what not."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

import pytest

from services.contract.catalogue import SAMPLED
from tests.integration.dashboards.dataset import (
    A100_HOST,
    DAY,
    HOUR,
    P40_HOST,
    SPAN,
    T4_HOST,
    Dataset,
    a100,
)
from tests.integration.dashboards.story import (
    CHOICES,
    DASHBOARDS,
    PANELS,
    QUERIES,
    RANGES,
    Nothing,
    Story,
    ids,
)
from tests.support.grafana_checks import Result, problems
from tests.support.grafana_dashboards import Query
from tests.support.grafana_plans import FRESH, chunks_in_plan, old_chunks

pytestmark = pytest.mark.timescale

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

NOT_ALWAYS: Final[dict[str, tuple[str, ...]]] = {}
"""Query -> ranges in which there is nothing to show."""


@pytest.mark.parametrize("query", QUERIES, ids=ids)
def test_there_is_something_where_data_exists(story: Story, query: Query) -> None:
    empty = [
        name
        for name, length in RANGES.items()
        if not any(
            story.result(query, length, choice).values for choice in (A100_HOST, P40_HOST, T4_HOST, "all", "lost GPU")
        )
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
    if query.kind == "state-timeline" and query.title != "Throttling":
        assert result.rows, "Grafana says that there is no time field"
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
    assert story.data.gpu_ids[a100(2)] == int(CHOICES["lost GPU"]["gpu"] or 0)
    assert numbers[int(CHOICES["MIG instance"]["gpu"] or 0)] is not None


def test_the_check_of_plans_sees_old_rows(story: Story) -> None:
    query = "SELECT count(*) FROM gpu_metrics WHERE time > now() - INTERVAL '2 days'"
    assert chunks_in_plan(story.connection, query) & old(story)
