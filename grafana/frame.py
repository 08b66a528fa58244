"""What surrounds the panels of a dashboard: variables, annotations, links to the other dashboards, ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.models import dashboard as models

from grafana import style
from grafana.panels import AnyPanel
from grafana.queries import POSTGRES, Sql

TAG: Final = "gpu-health-monitor"
"""The drop-down of every dashboard lists what carries it: a dashboard added later is in all menus at once."""
HOST_UID, FLEET_UID, CARD_UID, PIPELINE_UID = "gpu-telemetry", "gpu-fleet", "gpu-detail", "gpu-pipeline"
TITLES: Final = {
    FLEET_UID: "GPU fleet",
    HOST_UID: "GPU telemetry (host)",
    CARD_UID: "GPU detail",
    PIPELINE_UID: "GPU telemetry pipeline",
}
_ONE_HOST: Final = (HOST_UID, CARD_UID)
ALL: Final = "'*'"
"""What a variable's "All" becomes in SQL: `'*' IN (${cluster:sqlstring})`. Quoted here: Grafana inserts it as it is.
Without it, Grafana would list every value."""
KEEP_TIME: Final = "${__url_time_range}"
KEEP_SOURCE: Final = "var-GRAFANA_DS_UID=${GRAFANA_DS_UID}"
"""Else a link would lead to the same host in whatever database is the default."""

Variable = cog.Builder[models.VariableModel]
Section = tuple[str, Sequence[AnyPanel]]
"""A row's title, empty for none, and its panels."""


def host_url(host: str) -> str:
    """`host` is Grafana's expression for the host's name, percent-encoded."""
    return f"/d/{HOST_UID}?{KEEP_SOURCE}&var-host={host}&{KEEP_TIME}"


def card_url(host: str, gpu: str) -> str:
    return f"/d/{CARD_UID}?{KEEP_SOURCE}&var-host={host}&var-gpu={gpu}&{KEEP_TIME}"


# --- variables -------------------------------------------------------------------------------------------------------


def data_source(name: str, plugin: str, current: tuple[str, str]) -> Variable:
    """`current`: name and uid of the data source that is provisioned; another can be chosen."""
    chosen = models.VariableOption(selected=True, text=current[0], value=current[1])
    return dashboard.DatasourceVariable(name).label("Data source").type(plugin).current(chosen).multi(False)


def postgres_variable() -> Variable:
    return data_source("GRAFANA_DS_UID", "grafana-postgresql-datasource", ("gpu-telemetry", "gpu-telemetry-ds"))


def prometheus_variable() -> Variable:
    return data_source("PROMETHEUS_DS_UID", "prometheus", ("Prometheus", "gpu-prometheus"))


def choice(name: str, label: str, sql: str, description: str, *, several: bool = False) -> Variable:
    """A drop-down filled by SQL; with `several`, any number of values, and all to begin with."""
    variable = dashboard.QueryVariable(name).label(label).description(description).datasource(POSTGRES)
    variable.query(sql).refresh(models.VariableRefresh.ON_DASHBOARD_LOAD).multi(several).include_all(several)
    if several:
        variable.all_value(ALL).current(models.VariableOption(selected=True, text="All", value="$__all"))
    return variable


def among(expression: str, variable: str) -> str:
    """SQL: `expression` is one of the values chosen, or all are."""
    return f"({ALL} IN (${{{variable}:sqlstring}}) OR {expression} IN (${{{variable}:sqlstring}}))"


# --- annotations -----------------------------------------------------------------------------------------------------


class SqlAnnotation(models.AnnotationQuery, cog.Builder[models.AnnotationQuery]):
    """Marks over time from SQL: columns time, text, tags."""

    def __init__(self, name: str, sql: str, colour: str) -> None:
        super().__init__(name=name, datasource=POSTGRES, enable=True, icon_color=colour)
        self.sql = sql

    def build(self) -> SqlAnnotation:
        return self

    def to_json(self) -> dict[str, object]:
        return {**super().to_json(), "target": Sql(self.sql, ref="Anno").to_json()}


_HOST_OF_SOURCE: Final = r"substring(source FROM '^(?:\w+://)?\[?([^/:?\]]+)')"
EVENTS: Final = f"""(SELECT time, kind, gpu_id, gpu_uuid, instance_id, source, code, detail, status_tag, status_memo,
    coalesce(hostname, {_HOST_OF_SOURCE}) AS hostname FROM gpu_events)"""
"""`gpu_events`. Of an exporter that is down perhaps only the address is known, `gpu-7:9400`: the host is its host."""
_SOURCE: Final = "'(' || e.source || ')'"
"""Which exporter: a host may have several."""
WORDS: Final = {
    "status": ("Status changes", "upper(e.detail ->> 'tag')", "e.detail ->> 'memo'"),
    "xid": ("XIDs", "'XID ' || e.code", "e.detail ->> 'meaning'"),
    "gpu_lost": ("GPUs lost", "'GPU lost'", "e.detail ->> 'reason'"),
    "gpu_returned": ("GPUs returned", "'GPU returned'", "NULL"),
    "target_down": (
        "Exporters",
        "'Exporter down'",
        f"nullif(concat_ws(' ', coalesce(e.detail ->> 'detail', e.detail ->> 'reason'), {_SOURCE}), '')",
    ),
    "target_up": ("Exporters", "'Exporter up'", f"concat_ws(' ', 'it answers again', {_SOURCE})"),
}
"""Kind of event -> name of its marks, and SQL over `EVENTS e`: what happened, and more about it, in words."""
LOST_ACTION: Final = "power the host off and on; look for XID 79"
"""What to do about a GPU that is lost, wherever it is said."""
DO_NOW: Final = f"CASE e.kind WHEN 'xid' THEN e.detail ->> 'immediate_action' WHEN 'gpu_lost' THEN '{LOST_ACTION}' END"
"""SQL over `EVENTS e`: what to do about it."""


def told(part: int, words: Mapping[str, tuple[str, str]]) -> str:
    """SQL over `EVENTS e`: of each kind what happened (part 0), or more about it (part 1)."""
    cases = " ".join(f"WHEN '{kind}' THEN {texts[part]}" for kind, texts in words.items())
    return f"CASE e.kind {cases} END"


def event_annotations(where: str) -> list[SqlAnnotation]:
    """One for each name, so that each can be switched off; `where` over `EVENTS e`."""
    named: dict[str, dict[str, tuple[str, str]]] = {}
    for kind, (name, what, more) in WORDS.items():
        named.setdefault(name, {})[kind] = (what, more)
    return [_marks(name, words, where) for name, words in named.items()]


def _marks(name: str, words: Mapping[str, tuple[str, str]], where: str) -> SqlAnnotation:
    kinds = ", ".join(f"'{kind}'" for kind in words)
    sql = f"""SELECT e.time, concat_ws(': ', {told(0, words)}, {told(1, words)}, {DO_NOW}) AS text,
    concat_ws(',', e.kind, e.hostname) AS tags
FROM {EVENTS} e WHERE e.kind IN ({kinds}) AND {where} AND $__timeFilter(e.time)
ORDER BY e.time LIMIT 500"""
    return SqlAnnotation(name, sql, style.EVENT_COLOURS[next(iter(words))])


# --- the whole -------------------------------------------------------------------------------------------------------


def _links(uid: str) -> list[cog.Builder[models.DashboardLink]]:
    """To the other dashboards, with the time range, the database and the host where both have one; then all that carry
    the tag.

    Variables are named one by one: "All" of a drop-down is nothing that a drop-down for a single value understands.
    """
    others = [
        dashboard.DashboardLink(title)
        .type(models.DashboardLinkType.LINK)
        .url(f"/d/{other}{_kept(uid, other)}")
        .tooltip(f"Open {title}")
        for other, title in TITLES.items()
        if other != uid
    ]
    more = dashboard.DashboardLink("More").type(models.DashboardLinkType.DASHBOARDS).tags([TAG]).as_dropdown(True)
    return [link.keep_time(True) for link in [*others, more]]


def _kept(uid: str, other: str) -> str:
    """What a link from one dashboard to another hands on."""
    kept = [KEEP_SOURCE] if PIPELINE_UID not in (uid, other) else []
    kept += ["var-host=${host:percentencode}"] if uid in _ONE_HOST and other in _ONE_HOST else []
    return "?" + "&".join(kept) if kept else ""


def page(
    uid: str,
    description: str,
    *,
    variables: Sequence[Variable],
    sections: Sequence[Section],
    annotations: Sequence[SqlAnnotation] = (),
    refresh: str = "30s",
    since: str = "now-6h",
) -> models.Dashboard:
    """A whole dashboard. Times are the browser's."""
    built = dashboard.Dashboard(TITLES[uid]).uid(uid).description(description).tags([TAG]).timezone("browser")
    built.time(since, "now").refresh(refresh).readonly().tooltip(models.DashboardCursorSync.CROSSHAIR)
    built.variables(list(variables)).annotations(list(annotations)).links(_links(uid))
    for title, panels in sections:
        if title:
            built.with_row(dashboard.Row(title))
        for panel in panels:
            built.with_panel(panel)
    return _numbered(built.build())


def _numbered(whole: models.Dashboard) -> models.Dashboard:
    """Ids in order: a panel keeps its id as long as none is put before it."""
    for number, panel in enumerate(whole.panels or (), 1):
        panel.id_val = number
    return whole
