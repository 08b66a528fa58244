"""Rules for dashboards, after Grafana's own linter; each exception has its reason, none is kept that is not needed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

import pytest
from grafana_foundation_sdk.models import dashboard as sdk
from grafana_foundation_sdk.models import units

from grafana import panels, style
from grafana.host_runs import WHAT_TO_DO
from grafana.pipeline import NO_EXPORTER, NO_MOCK
from grafana.style import Thresholds
from tests.support.grafana_dashboards import Dashboard, committed
from tests.support.grafana_sql import parse_duration

DASHBOARDS = {dashboard.uid: dashboard for dashboard in committed()}
DATA_SOURCES = {
    "grafana-postgresql-datasource": "${GRAFANA_DS_UID}",
    "prometheus": "${PROMETHEUS_DS_UID}",
}
UNITS = {unit for name, unit in vars(units).items() if not name.startswith("_")} | {"bool_yes_no", panels.SECONDS}
WITHOUT_LEGEND = {"stat", "table", "row"}
Problems = Iterator[tuple[str, str]]
"""(panel, variable or annotation, what is wrong with it)"""


def values(panel: Mapping[str, Any], name: str) -> Iterator[Any]:
    """A property of the fields of a panel: the default, then the overrides."""
    if name in panel["fieldConfig"]["defaults"]:
        yield panel["fieldConfig"]["defaults"][name]
    for override in panel["fieldConfig"]["overrides"]:
        yield from (p["value"] for p in override["properties"] if p["id"] == name)


# --- rules: each yields what is wrong --------------------------------------------------------------------------------


def schema_is_current(d: Dashboard) -> Problems:
    if d.document["schemaVersion"] != sdk.Dashboard().schema_version:
        yield "dashboard", f"schemaVersion {d.document['schemaVersion']}"


def is_not_editable(d: Dashboard) -> Problems:
    if d.document["editable"]:
        yield "dashboard", "what is changed in the browser is lost with the next version"


def is_described(d: Dashboard) -> Problems:
    if not d.document.get("description") or not d.document.get("tags"):
        yield "dashboard", "no description or tag"


def times_are_the_browsers(d: Dashboard) -> Problems:
    if d.document["timezone"] != "browser":
        yield "dashboard", d.document["timezone"]


def refresh_is_not_too_quick(d: Dashboard) -> Problems:
    if parse_duration(d.document["refresh"]).total_seconds() < 5:
        yield "dashboard", d.document["refresh"]


def ids_are_unique(d: Dashboard) -> Problems:
    ids = [panel["id"] for panel in d.document["panels"]]
    if None in ids or len(set(ids)) != len(ids):
        yield "dashboard", f"{ids}"


def panels_do_not_overlap(d: Dashboard) -> Problems:
    taken: dict[tuple[int, int], str] = {}
    for panel in d.document["panels"]:
        place = panel["gridPos"]
        if place["x"] + place["w"] > 24:
            yield panel["title"], "reaches beyond the 24 columns"
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                if (x, y) in taken:
                    yield panel["title"], f"lies over {taken[x, y]}"
                taken[x, y] = panel["title"]


def panel_has_title_and_description(d: Dashboard) -> Problems:
    for panel in d.panels():
        if not panel.get("title") or len(panel.get("description", "")) < 15:
            yield panel.get("title", "?"), "no title or description"


def titles_are_unique(d: Dashboard) -> Problems:
    titles = [panel["title"] for panel in d.panels()]
    for title in {title for title in titles if titles.count(title) > 1}:
        yield title, "twice"


def panel_has_queries(d: Dashboard) -> Problems:
    for panel in d.panels():
        refs = [target["refId"] for target in panel.get("targets", [])]
        if not refs or len(set(refs)) != len(refs) or not all(refs):
            yield panel["title"], f"refIds {refs}"


def panel_has_a_unit(d: Dashboard) -> Problems:
    for panel in d.panels():
        found = list(values(panel, "unit"))
        if unknown := set(found) - UNITS:
            yield panel["title"], f"Grafana knows no unit {unknown}"
        if set(found) <= {"none", ""} and panel["type"] not in ("table", "state-timeline"):
            yield panel["title"], "no unit"


def data_source_is_a_variable(d: Dashboard) -> Problems:
    sources = chain.from_iterable(
        [panel["datasource"], *(target["datasource"] for target in panel["targets"])] for panel in d.panels()
    )
    others = [v["datasource"] for v in d.variables if v["type"] == "query"]
    others += [a["datasource"] for a in d.document["annotations"]["list"]]
    names = {f"${{{v['name']}}}" for v in d.variables if v["type"] == "datasource"}
    for source in chain(sources, others):
        if source["uid"] != DATA_SOURCES[source["type"]] or source["uid"] not in names:
            yield "dashboard", f"{source}"


def data_source_variable_is_labelled(d: Dashboard) -> Problems:
    for variable in (v for v in d.variables if v["type"] == "datasource"):
        if variable["label"] != "Data source":
            yield variable["name"], "label"
        if variable["name"] != "datasource":
            yield variable["name"], "the usual name is `datasource`"


def variables_are_fresh(d: Dashboard) -> Problems:
    for variable in (v for v in d.variables if v["type"] == "query"):
        if variable["refresh"] != sdk.VariableRefresh.ON_TIME_RANGE_CHANGED:
            yield variable["name"], "not asked for anew when the time range changes"


def all_is_one_quoted_value(d: Dashboard) -> Problems:
    """Grafana inserts `allValue` unquoted, whatever the format; without one it lists every value there is."""
    for variable in (v for v in d.variables if v.get("includeAll")):
        if not re.fullmatch(r"'[^']+'", variable.get("allValue", "")):
            yield variable["name"], f"allValue {variable.get('allValue')}"


def variables_are_described(d: Dashboard) -> Problems:
    for variable in (v for v in d.variables if v["type"] == "query"):
        if not variable.get("description") or not variable.get("label"):
            yield variable["name"], "no label or description"


def variables_in_queries_exist_and_are_quoted(d: Dashboard) -> Problems:
    """`${host:sqlstring}`: quoted, with quotes inside doubled. Plain `$host` would be an injection."""
    names = {v["name"] for v in d.variables}
    for query in d.queries():
        for name, form in re.findall(r"\$\{(\w+)(:\w+)?\}", query.sql):
            if name not in names or form != ":sqlstring":
                yield query.title, f"${{{name}{form}}}"
        if bare := re.findall(r"\$(?!__)\w+", query.sql):
            yield query.title, f"{bare}"


def rates_follow_the_range(d: Dashboard) -> Problems:
    for query in d.queries():
        for function, window in re.findall(r"\b(rate|irate|increase)\(\w+\[([^]]+)\]", query.sql):
            if window != "$__rate_interval":
                yield query.title, f"{function} over {window}"


def queries_are_bounded_in_time(d: Dashboard) -> Problems:
    for query in d.queries():
        buckets = r"(bucket|time) >= time_bucket\([^()]+, \$__timeFrom\(\)"
        bounded = "$__timeFilter(" in query.sql or re.search(buckets, query.sql)
        if query.source == "postgresql" and not bounded:
            yield query.title, "neither $__timeFilter nor buckets from $__timeFrom() on"


def nothing_is_drawn_over_gaps(d: Dashboard) -> Problems:
    """But over the nulls that another series' samples make; Prometheus' series are all at the same times."""
    for panel in d.panels():
        config = panel["fieldConfig"]
        everywhere = [o["properties"] for o in config["overrides"] if o["matcher"]["options"] == "/.*/"]
        spans = [p["value"] for properties in everywhere for p in properties if p["id"] == "custom.spanNulls"]
        short = panels.SILENCE if panel["datasource"]["type"] != "prometheus" else False
        if panel["type"] == "timeseries" and config["defaults"]["custom"].get("spanNulls") != short:
            yield panel["title"], "spanNulls"
        several = any("AS metric" in target.get("rawSql", "") for target in panel["targets"])
        if panel["type"] == "state-timeline" and spans != ([panels.SILENCE] if several else []):
            yield panel["title"], "spanNulls"


def unknown_is_said(d: Dashboard) -> Problems:
    for panel in d.panels():
        known = (style.NO_VALUE, style.NONE, style.NOT_YET, WHAT_TO_DO, NO_EXPORTER, NO_MOCK)
        if panel["fieldConfig"]["defaults"].get("noValue") not in known:
            yield panel["title"], "noValue"


def shares_are_of_a_whole(d: Dashboard) -> Problems:
    for panel in d.panels():
        defaults = panel["fieldConfig"]["defaults"]
        whole = {"percent": 100, "percentunit": 1}.get(defaults.get("unit"))
        if whole and (defaults.get("min"), defaults.get("max")) != (0, whole):
            yield panel["title"], f"from {defaults.get('min')} to {defaults.get('max')}"


def counts_have_no_decimals(d: Dashboard) -> Problems:
    for panel in d.panels():
        if "short" in values(panel, "unit"):
            yield panel["title"], "counts are rounded to thousands"
        defaults = panel["fieldConfig"]["defaults"]
        if defaults.get("unit") == style.COUNT and defaults.get("decimals") != 0:
            yield panel["title"], "decimals of a count"


def has_a_legend(d: Dashboard) -> Problems:
    for panel in (p for p in d.panels() if p["type"] not in WITHOUT_LEGEND):
        if not panel["options"]["legend"]["showLegend"]:
            yield panel["title"], "no legend"


def thresholds_come_from_one_source(d: Dashboard) -> Problems:
    known = [t for t in vars(style).values() if isinstance(t, Thresholds)]
    known += [Thresholds(base="transparent", steps=t.lines or t.steps) for t in known]
    configs = [json.loads(json.dumps(panels.thresholds(t).build(), default=lambda o: o.to_json())) for t in known]
    for panel in d.panels():
        for found in values(panel, "thresholds"):
            if found not in configs:
                yield panel["title"], f"{found}"


def temperatures_have_the_runbooks_thresholds(d: Dashboard) -> Problems:
    for panel in d.panels():
        defaults = panel["fieldConfig"]["defaults"]
        fields = [defaults] if "thresholds" in defaults else []
        fields += [{p["id"]: p["value"] for p in o["properties"]} for o in panel["fieldConfig"]["overrides"]]
        for field in (f for f in fields if f.get("unit") == "celsius"):
            steps = [step["value"] for step in field["thresholds"]["steps"][1:]]
            if steps not in ([60, 75, 85], [75, 85]):
                yield panel["title"], f"{steps}"


# --- what only a Grafana shows --------------------------------------------------------------------------------------


def bands_have_no_idle_pager(d: Dashboard) -> Problems:
    """A page of so many bands is Grafana's default; its pager is drawn below a single band too."""
    for panel in (p for p in d.panels() if p["type"] == "state-timeline"):
        if panel["options"].get("perPage") != 0:
            yield panel["title"], "perPage"


def labels_of_bars_are_readable(d: Dashboard) -> Problems:
    """At most 0 characters, the SDK's default, makes every label three dots."""
    for panel in (p for p in d.panels() if p["type"] == "barchart"):
        if not panel["options"]["xTickLabelMaxLength"]:
            yield panel["title"], "xTickLabelMaxLength"


def columns_may_be_narrow(d: Dashboard) -> Problems:
    """150 pixels at least, Grafana's default, push the sixth column out of half a page."""
    for panel in (p for p in d.panels() if p["type"] == "table"):
        if panel["fieldConfig"]["defaults"]["custom"].get("minWidth", 150) > 100:
            yield panel["title"], "minWidth"


def areas_and_bars_begin_at_zero(d: Dashboard) -> Problems:
    """A part's height says nothing else."""
    for panel in (p for p in d.panels() if p["type"] == "timeseries"):
        defaults = panel["fieldConfig"]["defaults"]
        if defaults["custom"].get("stacking", {}).get("mode") == "normal" and defaults.get("min") != 0:
            yield panel["title"], "min"


def slices_have_the_colours_of_their_names(d: Dashboard) -> Problems:
    """Overrides go by names of fields; rows have none until they are turned into fields."""
    for panel in (p for p in d.panels() if p["type"] == "piechart"):
        if "rowsToFields" not in [step["id"] for step in panel.get("transformations", ())]:
            yield panel["title"], "rows"


RULES: tuple[Callable[[Dashboard], Problems], ...] = (
    schema_is_current, is_not_editable, is_described, times_are_the_browsers, refresh_is_not_too_quick, ids_are_unique,
    panels_do_not_overlap, panel_has_title_and_description, titles_are_unique, panel_has_queries, panel_has_a_unit,
    data_source_is_a_variable, data_source_variable_is_labelled, variables_are_fresh, variables_are_described,
    all_is_one_quoted_value,
    variables_in_queries_exist_and_are_quoted, rates_follow_the_range, queries_are_bounded_in_time,
    nothing_is_drawn_over_gaps, unknown_is_said, has_a_legend, thresholds_come_from_one_source,
    temperatures_have_the_runbooks_thresholds, shares_are_of_a_whole, counts_have_no_decimals,
    bands_have_no_idle_pager, labels_of_bars_are_readable, columns_may_be_narrow, areas_and_bars_begin_at_zero,
    slices_have_the_colours_of_their_names,
)  # fmt: skip

WORDS = "its value is a word"
NOW = "what is, not what was within a time range"
KEPT = "the inventory is not a matter of the time range"
BAR = "bars of [$__interval] lie side by side, so that their sum is what happened; they are a minute wide at least"
EXCEPTIONS: dict[tuple[str, str, str], str] = {
    **{
        ("bands_have_no_idle_pager", "gpu-pipeline", name): "one a target: there may be hundreds"
        for name in ("Services", "Targets")
    },
    ("panel_has_a_unit", "gpu-telemetry", "Current Status"): WORDS,
    ("panel_has_a_unit", "gpu-telemetry", "GPU"): WORDS,
    ("panel_has_a_unit", "gpu-detail", "Codes"): "codes have none",
    **{
        ("data_source_variable_is_labelled", uid, "GRAFANA_DS_UID"): "the name the operators' runbook replaces by sed"
        for uid in ("gpu-telemetry", "gpu-fleet", "gpu-detail")
    },
    ("data_source_variable_is_labelled", "gpu-pipeline", "PROMETHEUS_DS_UID"): "named as the other",
    **{
        ("variables_are_fresh", uid, name): KEPT
        for uid, names in {
            "gpu-telemetry": ("host", "gpu"), "gpu-fleet": ("cluster", "host", "model", "no_slot"),
            "gpu-detail": ("host", "gpu"),
        }.items()
        for name in names
    },
    **{
        ("queries_are_bounded_in_time", uid, name): KEPT
        for uid, names in {
            "gpu-telemetry": ("host", "gpu"),
            "gpu-fleet": ("cluster", "host", "model", "no_slot", "Clusters and models"),
            "gpu-detail": ("host", "gpu", "Inventory", "Limits", "Why there is no value", "Where it was"),
        }.items()
        for name in names
    },
    **{
        ("queries_are_bounded_in_time", uid, name): NOW
        for uid, names in {
            "gpu-telemetry": ("Current Temperature", "Current Status", "GPU", "GPUs of this host"),
            "gpu-fleet": ("GPUs", "Now", "Freshness", "Need attention", "Temperature map", "Lost and silent GPUs",
                          "Hosts late by over a minute"),
            "gpu-detail": ("State", "Now", "Age"),
        }.items()
        for name in names
    },
    ("queries_are_bounded_in_time", "gpu-telemetry", "Recent Status Changes"):
        "each row needs the change before it; it is bounded by $__timeFrom() and $__timeTo()",
    ("rates_follow_the_range", "gpu-pipeline", "Dead letters"): "the number is of the whole time range: [$__range]",
    **{
        ("rates_follow_the_range", "gpu-pipeline", name): BAR
        for name in ("Scrapes refused", "Scrapes left out", "Delivery failures", "Write path", "Retries",
                     "Dead letters by reason", "Failed readings")
    },
}  # fmt: skip
"""(rule, dashboard, what) -> reason."""


@pytest.mark.parametrize("uid", DASHBOARDS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(rule: Callable[[Dashboard], Problems], uid: str) -> None:
    found = [(what, problem) for what, problem in rule(DASHBOARDS[uid])]
    assert [item for item in found if (rule.__name__, uid, item[0]) not in EXCEPTIONS] == []


def test_no_exception_is_left_over() -> None:
    needed = {(rule.__name__, uid, what) for rule in RULES for uid, d in DASHBOARDS.items() for what, _ in rule(d)}
    assert set(EXCEPTIONS) - needed == set()


def test_uids_and_titles_are_unique() -> None:
    assert len({d.title for d in DASHBOARDS.values()}) == len(DASHBOARDS) == 4


def links() -> list[tuple[str, str]]:
    """(dashboard, address of a dashboard it links to)."""
    found = []
    for uid, dashboard in DASHBOARDS.items():
        found += [(uid, url) for url in re.findall(r'"(/d/[^"]+)"', json.dumps(dashboard.document))]
    return found


@pytest.mark.parametrize(("source", "url"), links())
def test_a_link_leads_somewhere(source: str, url: str) -> None:
    target, _, query = url.removeprefix("/d/").partition("?")
    assert target in DASHBOARDS
    known = {v["name"] for v in DASHBOARDS[target].variables}
    own = {v["name"] for v in DASHBOARDS[source].variables}
    for name, value in re.findall(r"var-(\w+)=([^&]+)", query):
        assert name in known
        inner = re.fullmatch(r"\$\{([\w.]+)(:percentencode)?\}", value)
        assert inner, value
        assert inner[1].startswith("__data.fields.") or inner[1] in own


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_links_carry_the_time_range(uid: str) -> None:
    document = DASHBOARDS[uid].document
    assert all(link["keepTime"] for link in document["links"])
    in_panels = re.findall(r'"url": "(/d/[^"]+)"', json.dumps(document["panels"]))
    own = "&from=${__data.fields.begin_ms}&to=${__data.fields.end_ms}"  # of the row
    assert all("${__url_time_range}" in url or url.endswith(own) for url in in_panels)


def test_columns_that_links_use_are_there() -> None:
    """`${__data.fields.x}` names a column of the panel's own query."""
    checked = 0
    for dashboard in DASHBOARDS.values():
        for panel in dashboard.panels():
            for column in re.findall(r"__data\.fields\.(\w+)", json.dumps(panel["fieldConfig"])):
                assert re.search(rf"\b{column}\b", panel["targets"][0]["rawSql"]), (panel["title"], column)
                checked += 1
    assert checked >= 8


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_there_is_a_way_to_every_other_dashboard(uid: str) -> None:
    document = DASHBOARDS[uid].document
    targets = {link["url"].split("?")[0] for link in document["links"] if link["type"] == "link"}
    assert targets == {f"/d/{other}" for other in DASHBOARDS if other != uid}
    (more,) = [link for link in document["links"] if link["type"] == "dashboards"]
    assert set(more["tags"]) <= set(document["tags"]), "a dashboard with the tag is in the drop-down of all"


def test_links_keep_the_database() -> None:
    """Cells and the row at the top; the pipeline's data source is another kind."""
    for d in committed():
        if d.uid == "gpu-pipeline":
            continue
        urls = [link["url"] for link in d.document["links"] if link["type"] == "link"]
        urls += re.findall(r"/d/[^\"']*", json.dumps([panel["fieldConfig"] for panel in d.panels()]))
        for url in urls:
            assert url.startswith("/d/gpu-pipeline") or "var-GRAFANA_DS_UID=${GRAFANA_DS_UID}" in url, url
