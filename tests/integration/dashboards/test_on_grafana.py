"""A real Grafana, where there is one, sends the database the very statements that the other tests send."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.dashboards.dataset import DAY, HOUR
from tests.integration.dashboards.story import CHOICES, DASHBOARDS, QUERIES, Story, ids, run
from tests.support.grafana_dashboards import Query, choose, context_of
from tests.support.grafana_sql import TimeRange, expand, with_variables
from tests.support.real_grafana import RealGrafana, need_grafana

pytestmark = pytest.mark.timescale


@pytest.fixture(scope="module")
def grafana() -> RealGrafana:
    return need_grafana()


@pytest.fixture(scope="module")
def database(grafana: RealGrafana, timescale: str) -> Iterator[str]:
    """uid of a data source that is the tests' database."""
    uid = f"gpumon-test-{uuid.uuid4().hex[:8]}"
    with grafana.database(uid, timescale):
        yield uid


@pytest.mark.parametrize("query", QUERIES, ids=ids)
def test_grafana_runs_what_the_tests_run(grafana: RealGrafana, database: str, story: Story, query: Query) -> None:
    for length in (6 * HOUR, DAY, 30 * DAY, 400 * DAY):
        end = story.data.end + dt.timedelta(milliseconds=456)
        shown = TimeRange(end - length, end)
        variables = choose(DASHBOARDS[query.dashboard], shown, story.ask, CHOICES["all"])
        context = context_of(query, shown, variables)
        result = grafana.query(
            database, with_variables(query.sql, context), shown.start.timestamp(), end.timestamp(), form=query.format
        )
        assert "error" not in result, result["error"]
        (frame, *_) = result["frames"]
        expanded = expand(query.sql, context)
        assert frame["schema"]["meta"]["executedQueryString"] == expanded
        if query.format == "table":
            assert rows(frame) == len(run(story.connection, expanded).rows)


def rows(frame: dict[str, Any]) -> int:
    columns = frame["data"]["values"]
    return len(columns[0]) if columns else 0
