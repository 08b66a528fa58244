"""Dashboard JSON as Grafana reads it: every query of every panel, variable and annotation, and what variables become.

Nothing is skipped silently: a data source, a kind of variable or an override that is not known here raises.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from tests.support.grafana_sql import Context, TimeRange, Variable, expand, parse_duration

DIRECTORY: Final = Path(__file__).parents[2] / "grafana"
POSTGRESQL: Final = frozenset({"grafana-postgresql-datasource", "postgres"})
"""The plug-in's id, and the one it had before Grafana 10."""
NO_QUERY: Final = frozenset({"row", "text", "dashlist", "news"})
"""Kinds of panels that show no data."""
PANEL_WIDTH: Final = 1000
"""Pixels: a panel over most of a screen; Grafana asks for about as many points."""


class Source(StrEnum):
    POSTGRESQL = "postgresql"
    PROMETHEUS = "prometheus"
    GRAFANA = "grafana"
    """Grafana's own annotations."""


class Use(StrEnum):
    PANEL = "panel"
    VARIABLE = "variable"
    ANNOTATION = "annotation"


class UnknownPartError(ValueError):
    """A part of a dashboard this module does not know."""


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a dashboard."""

    dashboard: str
    """Its uid."""
    use: Use
    title: str
    """Of the panel; name of the variable or annotation."""
    kind: str
    """The panel's type; empty for others."""
    ref: str
    source: Source
    sql: str
    """Of PostgreSQL with its macros; PromQL else."""
    format: str = "table"
    panel: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.dashboard} / {self.title} / {self.ref}" if self.ref else f"{self.dashboard} / {self.title}"


@dataclass(frozen=True, slots=True)
class Dashboard:
    uid: str
    title: str
    document: Mapping[str, Any]

    @property
    def variables(self) -> list[Mapping[str, Any]]:
        return list(self.document.get("templating", {}).get("list", []))

    @property
    def default_range(self) -> dt.timedelta:
        """`now-6h` to `now`."""
        time = self.document["time"]
        if time["to"] != "now" or not time["from"].startswith("now-"):
            raise UnknownPartError(f"{self.uid}: default range {time}")
        return parse_duration(time["from"].removeprefix("now-"))

    def panels(self) -> Iterator[Mapping[str, Any]]:
        """Rows' panels included; rows not."""
        for panel in self.document.get("panels", []):
            if panel["type"] == "row":
                yield from panel.get("panels", [])
            else:
                yield panel

    def queries(self) -> Iterator[Query]:
        """Every query of the dashboard, of whatever source. Raises UnknownPartError."""
        for variable in self.variables:
            if variable["type"] == "query":
                yield self._variable(variable)
        for annotation in self.document.get("annotations", {}).get("list", []):
            yield self._annotation(annotation)
        for panel in self.panels():
            yield from self._panel(panel)

    def _variable(self, variable: Mapping[str, Any]) -> Query:
        if variable.get("regex"):
            raise UnknownPartError(f"{self.uid}: variable {variable['name']} has a regex")
        query = variable["query"]
        text = query if isinstance(query, str) else query.get("rawSql", query.get("query"))
        if not isinstance(text, str):
            raise UnknownPartError(f"{self.uid}: variable {variable['name']}: query {query!r}")
        source = self._source(variable.get("datasource"), f"variable {variable['name']}")
        return Query(self.uid, Use.VARIABLE, variable["name"], "", "", source, text)

    def _annotation(self, annotation: Mapping[str, Any]) -> Query:
        source = self._source(annotation.get("datasource"), f"annotation {annotation['name']}")
        target = annotation.get("target", {})
        sql = target.get("rawSql", annotation.get("rawQuery", ""))
        if source is Source.POSTGRESQL and not sql:
            raise UnknownPartError(f"{self.uid}: annotation {annotation['name']} has no query")
        return Query(self.uid, Use.ANNOTATION, annotation["name"], "", "", source, sql, target.get("format", "table"))

    def _panel(self, panel: Mapping[str, Any]) -> Iterator[Query]:
        targets: Sequence[Mapping[str, Any]] = panel.get("targets", [])
        if (panel["type"] in NO_QUERY) == bool(targets):
            raise UnknownPartError(
                f"{self.uid}: panel {panel.get('title')!r} ({panel['type']}) has {len(targets)} queries"
            )
        if panel.get("timeShift"):
            raise UnknownPartError(f"{self.uid}: panel {panel['title']!r} has a time shift")
        for target in targets:
            source = self._source(target.get("datasource", panel.get("datasource")), f"panel {panel['title']!r}")
            text = target["expr"] if source is Source.PROMETHEUS else target["rawSql"]
            yield Query(
                self.uid, Use.PANEL, panel["title"], panel["type"], target["refId"], source, text,
                target.get("format", "table"), panel,
            )  # fmt: skip

    def _source(self, reference: Any, where: str) -> Source:
        """By type, or by the data source variable it refers to."""
        if not isinstance(reference, Mapping):
            raise UnknownPartError(f"{self.uid}: {where}: data source {reference!r}")
        if reference.get("type") in POSTGRESQL:
            return Source.POSTGRESQL
        if reference.get("type") == "prometheus":
            return Source.PROMETHEUS
        if reference.get("type") in ("grafana", "datasource") and reference.get("uid") == "-- Grafana --":
            return Source.GRAFANA
        raise UnknownPartError(f"{self.uid}: {where}: data source {dict(reference)!r}")


def load(path: Path) -> Dashboard:
    document = json.loads(path.read_text(encoding="utf-8"))
    return Dashboard(document["uid"], document["title"], document)


def committed() -> list[Dashboard]:
    """The dashboards in grafana/."""
    return [load(path) for path in sorted(DIRECTORY.glob("*.json"))]


# --- what variables become --------------------------------------------------------------------------------------------

Ask = Callable[[str], Sequence[Sequence[Any]]]
"""SQL -> rows."""


def choose(
    dashboard: Dashboard, time_range: TimeRange, ask: Ask, wanted: Mapping[str, str | None]
) -> dict[str, Variable]:
    """The variables with `wanted` chosen (name -> value; None: All where there is one), others their first option.

    Later variables see what is chosen of the earlier ones, as in Grafana.
    """
    chosen: dict[str, Variable] = {}
    for variable in dashboard.variables:
        options = _options(dashboard, variable, Context(time_range, chosen), ask)
        chosen[variable["name"]] = _chosen(variable, options, wanted)
    return chosen


def _options(dashboard: Dashboard, variable: Mapping[str, Any], context: Context, ask: Ask) -> list[str]:
    match variable["type"]:
        case "query":
            (query,) = (q for q in dashboard.queries() if q.use is Use.VARIABLE and q.title == variable["name"])
            rows = ask(expand(query.sql, context)) if query.source is Source.POSTGRESQL else []
            return [str(row[-1]) for row in rows]  # __text, __value; or the value alone
        case "custom":
            return [option.partition(" : ")[2] or option for option in str(variable["query"]).split(",")]
        case "textbox" | "constant":
            return [str(variable["query"])]
        case "datasource":
            return [str(variable["current"]["value"])]
        case other:
            raise UnknownPartError(f"{dashboard.uid}: variable {variable['name']} of type {other}")


def _chosen(variable: Mapping[str, Any], options: list[str], wanted: Mapping[str, str | None]) -> Variable:
    name, multi, include_all = variable["name"], bool(variable.get("multi")), bool(variable.get("includeAll"))
    value = wanted.get(name)
    if include_all and (value is None or value not in options):
        return Variable(name, tuple(options), multi, include_all, variable.get("allValue") or None)
    if value in options:
        return Variable(name, (str(value),), multi, include_all)
    return Variable(name, tuple(options[:1]) or ("",), multi, include_all)


def context_of(query: Query, time_range: TimeRange, variables: Mapping[str, Variable]) -> Context:
    """With the panel's own range and interval, where it has one."""
    panel = query.panel
    if own := panel.get("timeFrom"):
        time_range = TimeRange(time_range.end - parse_duration(str(own).removeprefix("now-")), time_range.end)
    points = panel.get("maxDataPoints") or PANEL_WIDTH
    smallest = parse_duration(panel["interval"].lstrip(">")) if panel.get("interval") else dt.timedelta(seconds=1)
    interval = max(smallest, nice(time_range.length / points))
    return Context(time_range, variables, interval)


_STEPS: Final = ("1s", "5s", "10s", "30s", "1m", "2m", "5m", "10m", "30m", "1h", "2h", "6h", "12h", "1d")


def nice(length: dt.timedelta) -> dt.timedelta:
    """The next round step: about what Grafana makes of range / points."""
    steps = [parse_duration(step) for step in _STEPS]
    return next((step for step in steps if step >= length), steps[-1])
