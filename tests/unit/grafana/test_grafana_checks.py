"""The checks of results find what would not be drawn; the reader of dashboards refuses what it does not know."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from tests.support.grafana_checks import Result, problems
from tests.support.grafana_dashboards import Dashboard, Query, Source, UnknownPartError, Use, choose, context_of, nice
from tests.support.grafana_sql import TimeRange

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
RANGE = TimeRange(NOW - dt.timedelta(hours=6), NOW)
LATER = NOW + dt.timedelta(seconds=10)
TIME, VALUE, LABEL = ("time", "timestamptz"), ("temp", "int2"), ("gpu", "text")
VALUES_SHOWN: dict[str, Any] = {"options": {"reduceOptions": {"values": True}}}


def query(kind: str, style: str = "table", **panel: Any) -> Query:
    use = Use(kind) if kind in ("variable", "annotation") else Use.PANEL
    return Query("d", use, "title", kind, "A", Source.POSTGRESQL, "", style, panel)


WELL = [
    (query("timeseries", "time_series"), [TIME, LABEL, VALUE], [(NOW, "0", 1), (NOW, "1", 2), (LATER, "0", None)]),
    (query("timeseries"), [TIME, VALUE], [(NOW, 1)]),
    (query("timeseries", transformations=[{"id": "partitionByValues"}]), [TIME, LABEL, VALUE], [(NOW, "0", 1)]),
    (query("state-timeline"), [TIME, LABEL], [(NOW, "idle"), (LATER, None)]),
    (query("state-timeline", "time_series"), [TIME, LABEL, VALUE], [(NOW, "a", 1)]),
    (query("stat"), [VALUE], [(1,)]),
    (query("stat"), [VALUE], []),
    (query("stat", options={"reduceOptions": {"fields": "/.*/"}}), [LABEL], [("Tesla P40",)]),
    (query("stat", **VALUES_SHOWN), [LABEL, VALUE], [("a", 1), ("b", 2)]),
    (query("piechart", **VALUES_SHOWN), [LABEL, VALUE], [("a", 1), ("b", 2)]),
    (query("barchart"), [LABEL, VALUE], [("a", 1), ("b", 2)]),
    (query("table"), [LABEL, TIME], [("a", NOW)]),
    (query("variable"), [("__text", "text"), ("__value", "text")], [("a", "1")]),
    (query("variable"), [("host", "text")], [("a",)]),
    (query("annotation"), [TIME, ("text", "text"), ("tags", "text")], [(NOW, "a", "b")]),
]
ILL = [
    (query("timeseries", "time_series"), [("bucket", "timestamptz"), VALUE], [(NOW, 1)], "no column `time`"),
    (query("timeseries", "time_series"), [("time", "float8"), VALUE], [(1.0, 1)], "no column `time`"),
    (query("timeseries", "time_series"), [TIME, LABEL], [(NOW, "a")], "no column of numbers"),
    (query("timeseries", "time_series"), [TIME, VALUE], [(LATER, 1), (NOW, 1)], "not sorted"),
    (query("timeseries", "time_series"), [TIME, VALUE], [(None, 1)], "NULL"),
    (query("timeseries", "time_series"), [TIME, LABEL, VALUE], [(NOW, "a", 1), (NOW, "a", 2)], "two points"),
    (query("timeseries"), [TIME, LABEL, VALUE], [(NOW, "a", 1)], "text columns in a table"),
    (query("state-timeline", "time_series"), [TIME, LABEL], [(NOW, "idle")], "labels"),
    (query("stat"), [VALUE], [(1,), (2,)], "2 rows"),
    (query("stat"), [LABEL], [("Tesla P40",)], "names no fields"),
    (query("piechart"), [LABEL, VALUE], [("a", 1), ("b", 2)], "reduces"),
    (query("barchart"), [VALUE, LABEL], [(1, "a")], "first column"),
    (query("table"), [("age", "interval")], [], "interval"),
    (query("table"), [VALUE, VALUE], [], "twice"),
    (query("table"), [("?column?", "text")], [], "no name"),
    (query("table"), [("x", "float8")], [(float("nan"),)], "finite"),
    (query("table"), [LABEL], [("a",)] * 50_001, "50001 rows"),
    (query("variable"), [LABEL, ("b", "text")], [], "columns"),
    (query("variable"), [LABEL], [("a",), ("a",)], "twice"),
    (query("variable"), [VALUE], [(1,)], "not text"),
    (query("variable"), [LABEL], [(None,)], "NULL"),
    (query("annotation"), [("text", "text")], [], "no column `time`"),
    (query("annotation"), [TIME, ("kind", "text")], [], "annotations know"),
    (query("holodeck"), [VALUE], [], "not known"),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "columns", "rows"), WELL)
def test_what_a_panel_can_show(asked: Query, columns: list[tuple[str, str]], rows: list[tuple[Any, ...]]) -> None:
    assert problems(asked, Result(columns, rows)) == []


@pytest.mark.parametrize(("asked", "columns", "rows", "wanted"), ILL)
def test_what_it_cannot(asked: Query, columns: list[tuple[str, str]], rows: list[tuple[Any, ...]], wanted: str) -> None:
    (problem,) = problems(asked, Result(columns, rows))
    assert wanted in problem


# --- the reader of dashboards -----------------------------------------------------------------------------------------

POSTGRES = {"type": "grafana-postgresql-datasource", "uid": "${GRAFANA_DS_UID}"}


def dashboard(**parts: Any) -> Dashboard:
    document = {"time": {"from": "now-6h", "to": "now"}, **parts}
    return Dashboard("d", "D", document)


def panel(**parts: Any) -> dict[str, Any]:
    target = {"refId": "A", "rawSql": "SELECT 1", "format": "table"}
    return {"type": "stat", "title": "One", "datasource": POSTGRES, "targets": [target], **parts}


def test_every_query_is_found() -> None:
    found = dashboard(
        panels=[panel(), {"type": "row", "title": "Row", "panels": [panel(title="Inside a collapsed row")]}],
        annotations={"list": [{"name": "XID", "datasource": POSTGRES, "target": {"rawSql": "SELECT 2"}}]},
        templating={
            "list": [{"name": "host", "type": "query", "datasource": POSTGRES, "query": {"rawSql": "SELECT 3"}}]
        },
    )
    assert [(q.use, q.title, q.sql) for q in found.queries()] == [
        (Use.VARIABLE, "host", "SELECT 3"),
        (Use.ANNOTATION, "XID", "SELECT 2"),
        (Use.PANEL, "One", "SELECT 1"),
        (Use.PANEL, "Inside a collapsed row", "SELECT 1"),
    ]


@pytest.mark.parametrize(
    "broken",
    [
        panel(targets=[]),
        panel(datasource=None),
        panel(datasource={"type": "loki", "uid": "x"}),
        panel(timeShift="1h"),
        panel(type="text"),
    ],
)
def test_unknown_parts_are_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(UnknownPartError):
        list(dashboard(panels=[broken]).queries())


def test_variables_follow_each_other() -> None:
    multi = {"multi": True, "includeAll": True}
    found = dashboard(
        templating={
            "list": [
                {"name": "cluster", "type": "custom", "query": "a,b", **multi},
                {"name": "host", "type": "query", "datasource": POSTGRES, "query": "SELECT $cluster"},
                {"name": "gpu", "type": "custom", "query": "", "includeAll": True, "allValue": "'%'"},
            ]
        }
    )
    asked: list[str] = []

    def ask(sql: str) -> list[tuple[str, str]]:
        asked.append(sql)
        return [("text", "h1"), ("text", "h2")]

    chosen = choose(found, RANGE, ask, {"host": "h2"})
    assert asked == ["SELECT 'a','b'"]
    assert [(v.name, v.values, v.all_value) for v in chosen.values()] == [
        ("cluster", ("a", "b"), None),
        ("host", ("h2",), None),
        ("gpu", ("",), "'%'"),
    ]


def test_a_panel_may_have_a_range_of_its_own() -> None:
    (asked,) = dashboard(panels=[panel(timeFrom="24h")]).queries()
    assert context_of(asked, RANGE, {}).time_range.length == dt.timedelta(hours=24)


@pytest.mark.parametrize(
    ("seconds", "wanted"), [(0.9, 1), (3, 5), (21.6, 30), (2592, 3600), (100_000, 86_400)]
)  # fmt: skip
def test_intervals_are_round(seconds: float, wanted: int) -> None:
    assert nice(dt.timedelta(seconds=seconds)) == dt.timedelta(seconds=wanted)
