"""What each kind of panel needs of a query's result: columns, types, order, number of rows.

From Grafana's documentation of the PostgreSQL query editor (a time series query returns `time`, ascending; text columns
become labels, all others values) and of the visualizations. A kind that is not here fails: teach it what it needs.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

from tests.support.grafana_dashboards import Query, Use

NUMBERS: Final = frozenset({"int2", "int4", "int8", "float4", "float8", "numeric"})
TEXTS: Final = frozenset({"text", "varchar", "bpchar", "name"})
TYPES: Final = NUMBERS | TEXTS | {"timestamptz", "bool", "json", "jsonb"}
"""What is shown as what it is; Grafana turns other types into text, which sorts and counts wrongly."""
MOST_ROWS: Final = 50_000
"""A browser draws this many points; more is a query without a limit or without buckets."""


@dataclass(frozen=True, slots=True)
class Result:
    """`columns` are (name, PostgreSQL's type name)."""

    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Any]]

    def of_type(self, types: frozenset[str]) -> list[int]:
        return [index for index, (_, kind) in enumerate(self.columns) if kind in types]

    def column(self, name: str) -> list[Any]:
        index = [found for found, _ in self.columns].index(name)
        return [row[index] for row in self.rows]

    @property
    def numbers(self) -> list[float]:
        """Every number that is not NULL."""
        indices = self.of_type(NUMBERS)
        return [float(row[i]) for row in self.rows for i in indices if row[i] is not None]

    @property
    def values(self) -> list[Any]:
        """Everything but time and NULL."""
        indices = [i for i, (_, kind) in enumerate(self.columns) if kind != "timestamptz"]
        return [row[i] for row in self.rows for i in indices if row[i] is not None]


def problems(query: Query, result: Result) -> list[str]:
    """What is wrong with the result for the query's use; empty where all is well."""
    found = list(_anything(result))
    if query.use is Use.VARIABLE:
        return found + _variable(result)
    if query.use is Use.ANNOTATION:
        return found + _annotation(result)
    if query.kind not in KINDS:
        return [*found, f"panels of kind {query.kind} are not known to this test"]
    return found + KINDS[query.kind](query, result)


def _anything(result: Result) -> list[str]:
    names = [name for name, _ in result.columns]
    found = [f"column {name} twice" for name in {n for n in names if names.count(n) > 1}]
    found += [f"column {name} is {kind}" for name, kind in result.columns if kind not in TYPES]
    found += [f'column "{name}" has no name' for name in names if not name or name == "?column?"]
    if len(result.rows) > MOST_ROWS:
        found.append(f"{len(result.rows)} rows")
    if not all(math.isfinite(number) for number in result.numbers):
        found.append("a number is not finite")
    return found


def _time(result: Result) -> list[str]:
    """`time` as timestamptz, without NULL, ascending."""
    if ("time", "timestamptz") not in result.columns:
        return ["no column `time` of type timestamptz"]
    times: list[dt.datetime | None] = result.column("time")
    told = [time for time in times if time is not None]
    if len(told) < len(times):
        return ["`time` is NULL in a row"]
    return [] if told == sorted(told) else ["rows are not sorted by `time`"]


def _transformed(query: Query) -> bool:
    """Whether the panel makes series or columns out of text columns itself."""
    told = {transformation["id"] for transformation in query.panel.get("transformations", [])}
    return bool(told & {"partitionByValues", "prepareTimeSeries", "groupingToMatrix", "labelsToFields", "pivot"})


def _series(query: Query, result: Result) -> list[str]:
    """Lines: a number per time and label."""
    found = _time(result)
    labels = result.of_type(TEXTS)
    if not result.of_type(NUMBERS):
        found.append("no column of numbers")
    if query.format != "time_series" and labels and not _transformed(query):
        found.append("text columns in a table: `time_series` makes them labels, or a transformation does")
    if not found:
        time = [name for name, _ in result.columns].index("time")
        keys = [(row[time], *(row[i] for i in labels)) for row in result.rows]
        if len(set(keys)) < len(keys):
            found.append("a series has two points at one time")
    return found


def _states(query: Query, result: Result) -> list[str]:
    """Bands: a state per time. In time series format texts become labels, so states must be numbers there."""
    found = _time(result)
    if query.format == "time_series":
        return found if result.of_type(NUMBERS) else [*found, "no states: texts are labels in a time series"]
    if len(result.columns) < 2:
        found.append("no column of states")
    return found


def _fields(query: Query) -> str:
    return str(query.panel.get("options", {}).get("reduceOptions", {}).get("fields") or "")


def _all_values(query: Query) -> bool:
    return bool(query.panel.get("options", {}).get("reduceOptions", {}).get("values"))


def _stat(query: Query, result: Result) -> list[str]:
    """One row, or as many as the panel is told to show; texts are shown only when their fields are named."""
    if query.format == "time_series":
        return _series(query, result)
    found = []
    if len(result.rows) > 1 and not _all_values(query):
        found.append(f"{len(result.rows)} rows, of which one is shown")
    if not result.of_type(NUMBERS) and not _fields(query):
        found.append("no column of numbers, and the panel names no fields")
    return found


def _shares(query: Query, result: Result) -> list[str]:
    """Slices or bars: a row each (which the panel shows all, or turns into fields), or a column each in one row."""
    if not result.of_type(NUMBERS):
        return ["no column of numbers"]
    turned = any(step["id"] == "rowsToFields" for step in query.panel.get("transformations", ()))
    if len(result.rows) > 1 and not (turned or _all_values(query)) and query.format != "time_series":
        return [f"{len(result.rows)} rows, and the panel reduces them to one"]
    return []


def _bars(_query: Query, result: Result) -> list[str]:
    """Bar chart: first a text or a time, then numbers."""
    found = []
    if not result.columns or result.columns[0][1] not in TEXTS | {"timestamptz"}:
        found.append("the first column is neither text nor time")
    if not result.of_type(NUMBERS):
        found.append("no column of numbers")
    return found


def _table(_query: Query, _result: Result) -> list[str]:
    return []


def _plot(_query: Query, result: Result) -> list[str]:
    """XY chart, histogram, heat map of numbers."""
    return [] if result.of_type(NUMBERS) else ["no column of numbers"]


def _variable(result: Result) -> list[str]:
    names = [name for name, _ in result.columns]
    if len(names) != 1 and sorted(names) != ["__text", "__value"]:
        return [f"columns {names}: one, or __text and __value"]
    values = [row[-1] for row in result.rows]
    found = ["an option is NULL"] if None in values else []
    if any(kind not in TEXTS for _, kind in result.columns):
        found.append("options are not text")
    return found if len(set(values)) == len(values) else [*found, "an option is there twice"]


def _annotation(result: Result) -> list[str]:
    allowed = {"time", "timeend", "title", "text", "tags", "id"}
    found = [f"column {name}: annotations know {', '.join(sorted(allowed))}" for name, _ in result.columns
             if name not in allowed]  # fmt: skip
    if "time" not in [name for name, kind in result.columns if kind == "timestamptz"]:
        found.append("no column `time` of type timestamptz")
    return found


KINDS: Final[Mapping[str, Callable[[Query, Result], list[str]]]] = MappingProxyType(
    {
        "timeseries": _series,
        "trend": _series,
        "heatmap": _series,
        "state-timeline": _states,
        "status-history": _states,
        "stat": _stat,
        "gauge": _stat,
        "bargauge": _shares,
        "piechart": _shares,
        "barchart": _bars,
        "table": _table,
        "xychart": _plot,
        "histogram": _plot,
    }
)


def plain(value: Any) -> Any:
    """A value of the database as Python compares it: numeric becomes float."""
    return float(value) if isinstance(value, Decimal) else value
