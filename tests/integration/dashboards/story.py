"""The committed dashboards' SQL, asked of a database as Grafana asks it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from services.store.connect import Connection
from tests.integration.dashboards.dataset import A100_HOST, DAY, HOUR, MINUTE, P40_HOST, T4_HOST, Dataset
from tests.support.grafana_checks import Result, plain
from tests.support.grafana_dashboards import Query, Source, Use, choose, committed, context_of
from tests.support.grafana_sql import TimeRange, Variable, expand

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


Nothing = dict[str, Result | Exception]
"""Query -> what it gives where nothing is stored."""


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


def panel(uid: str, title: str, ref: str = "A") -> Query:
    return next(q for q in PANELS if (q.dashboard, q.title, q.ref) == (uid, title, ref))


def shown(story: Story, uid: str, title: str, length: dt.timedelta, host: str) -> list[list[Any]]:
    return [[plain(value) for value in row] for row in story.result(panel(uid, title), length, host).rows]


def between(
    story: Story, query: Query, start: dt.datetime, end: dt.datetime, chosen: Mapping[str, str | None] | None = None
) -> Result:
    """What the query gives of this very range; `chosen`: variables, by default as the dashboard is opened."""
    time_range = TimeRange(start, end)
    variables = choose(DASHBOARDS[query.dashboard], time_range, story.ask, chosen or {})
    return run(story.connection, expand(query.sql, context_of(query, time_range, variables)))
