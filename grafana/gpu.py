"""Dashboard "GPU detail": everything on one card, from what it is to what happened to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import units

from grafana import counted, panels, style
from grafana.frame import CARD_UID, event_annotations, page, postgres_variable
from grafana.gaps import bands, with_gaps
from grafana.groups import Group, groups
from grafana.host import throttle_map
from grafana.panels import AnyPanel, Overrides, steps
from grafana.queries import rows, series
from grafana.resolution import SILENT, USAGE, Level, increases, read
from grafana.selection import CARD, HOST, ONE_GPU, of_card
from services.contract.catalogue import PROPERTIES, Kind, Metric, Unit
from services.contract.clocks_event import THROTTLING

FRESH: Final = f"v.age < INTERVAL '{SILENT}'"
CARD_ID: Final = "(SELECT gpu_id FROM gpu)"
BUCKETS: Final = " Over six hours read from minutes, over two days from hours, over sixty days from days."


# --- what it is ------------------------------------------------------------------------------------------------------


def now() -> list[AnyPanel]:
    of_card_now = "FROM v_latest_gpu_metrics v WHERE v.gpu_id = (SELECT gpu_id FROM gpu)"
    values = f"""WITH {CARD}
SELECT v.gpu_temp AS temperature, v.memory_temp AS "memory temperature", v.power_usage AS power,
    v.gpu_util AS utilisation, v.memory_percent AS memory, v.sm_clock AS clock {of_card_now} AND {FRESH}"""
    age = f"WITH {CARD} SELECT extract(epoch FROM v.age)::float8 AS age {of_card_now}"
    kinds: Overrides = {
        "/temperature$/": {"unit": units.Celsius, **steps(style.TEMPERATURE)},
        "/^power$/": {"unit": units.Watt},
        "/^(utilisation|memory)$/": {"unit": units.Percent},
        "/^clock$/": {"unit": style.unit("sm_clock"), "decimals": 2},
    }
    newest = panels.number(
        "Now", "The newest sample; nothing where it is older than five minutes.", "none", rows(values)
    )
    return [
        panels.override(newest.span(20), kinds),
        panels.number("Age", "Time since the newest sample.", units.Seconds, rows(age), of=style.FRESHNESS).span(4),
    ]


def inventory() -> list[AnyPanel]:
    is_what = f"""WITH {CARD}
SELECT key AS property, value FROM gpu, jsonb_each_text(to_jsonb(gpu) - ARRAY['properties', 'missing', 'labels'])
WHERE value IS NOT NULL
UNION ALL SELECT 'label ' || l.key, l.value FROM gpu, jsonb_each_text(gpu.labels) l"""
    known = ", ".join(f"('{m.column}', '{m.unit}', '{_quoted(m.help)}')" for m in PROPERTIES)
    limits = f"""WITH {CARD}
SELECT known.name AS property, (gpu.properties ->> known.name)::float8 AS value, known.unit, known.meaning
FROM gpu, (VALUES {known}) AS known (name, unit, meaning) WHERE gpu.properties ? known.name"""
    why = f"""WITH {CARD}
SELECT m.key AS metric, m.value AS reason FROM gpu, jsonb_each_text(gpu.missing) m ORDER BY m.value, m.key"""
    stays = f"""WITH {CARD}
SELECT h.valid_from AS "from", h.valid_to AS until, h.hostname AS host, h.rack, h.gpu_index AS index,
    h.pci_bus_id AS "PCI", h.driver_version AS driver, h.vbios_version AS "VBIOS"
FROM gpu_history h WHERE h.gpu_id = {CARD_ID} ORDER BY h.valid_from DESC"""
    reasons: Overrides = {
        "/^reason$/": {"mappings": [panels.text_map({
            "unsupported": ("no such value on this board", style.GREY),
            "permission": ("exporter may not read it", style.ORANGE),
            "failed": ("reading it failed", style.RED),
            "not_exposed": ("exporter is not asked for it", style.BLUE),
        })], "custom.cellOptions": {"type": "color-text"}},
    }  # fmt: skip
    return [
        panels.table("Inventory", "What the GPU is and where it is, as told last.", rows(is_what)).span(8).height(10),
        panels.table("Limits", "Limits and maxima of the device.", rows(limits)).span(8).height(10),
        panels.override(panels.table(
            "Why there is no value",
            "Metrics this GPU has no value of, and why. Absent, forbidden, failed and zero differ.",
            rows(why)).span(8).height(10), reasons),
        panels.table("Where it was", "Hosts, slots, drivers and firmware over time; the present stay has no end.",
                     rows(stays)).span(24).height(5),
    ]  # fmt: skip


def _quoted(text: str) -> str:
    return text.replace("'", "''")


# --- metrics ---------------------------------------------------------------------------------------------------------


def metric_panels() -> list[AnyPanel]:
    return [_grown(group) if group.metrics[0].kind is Kind.COUNTER else _gauges(group) for group in groups()]


def _gauges(group: Group) -> AnyPanel:
    """Lines; where the range is read from buckets, a band from the lowest to the highest around the average."""
    banded = [m.column for m in group.metrics if _has_average(m)]

    def select(level: Level) -> str:
        values = [f"{_value(m, level)} AS {m.column}" for m in group.metrics]
        bands = [f'{_edge(level, x, which)} AS "{x} {which}"' for x in banded for which in ("min", "max")]
        return f"m.{level.time} AS time, {', '.join(values + bands)}, INTERVAL '{level.gap}' AS gap"

    names = (*(m.column for m in group.metrics), *(f"{x} {which}" for x in banded for which in ("min", "max")))
    sql = f"WITH {CARD}, sample AS (\n{read(select, of_card)}\n)\n{with_gaps(names)}"
    hot = style.TEMPERATURE if group.metrics[0].unit is Unit.CELSIUS else None
    unit = style.unit(group.metrics[0].column)
    panel = panels.lines(group.title, group.description + BUCKETS, unit, series(sql), of=hot)
    return panels.override(panel, _bands(banded))


def _has_average(metric: Metric) -> bool:
    return metric.unit not in (Unit.CODE, Unit.FLAG)


def _value(metric: Metric, level: Level) -> str:
    if _has_average(metric):
        return level.average(metric.column)
    return level.last(metric.column) if metric.unit is Unit.CODE else level.highest(metric.column)


def _edge(level: Level, column: str, which: str) -> str:
    if level.raw:
        return "NULL::float8"
    return f"{level.lowest(column) if which == 'min' else level.highest(column)}::float8"


def _bands(columns: Sequence[str]) -> Overrides:
    """Thin, not in the legend, filled from the highest down to the lowest."""
    quiet = {"custom.lineWidth": 0, "custom.hideFrom": {"legend": True, "tooltip": False, "viz": False}}
    filled = {f"/^{x} max$/": {"custom.fillBelowTo": f"{x} min", "custom.fillOpacity": 15} for x in columns}
    return {"/ (min|max)$/": quiet, **filled} if columns else {}


def _grown(group: Group) -> AnyPanel:
    """Bars: by how much counters grew in each bucket."""
    columns = [m.column for m in group.metrics]
    divisor, unit = style.SCALED.get(group.metrics[0].unit, (1, style.unit(columns[0])))
    values = {x: f"{x} / {divisor}" if divisor != 1 else x for x in columns}
    sql = f"""WITH {CARD}, sample AS (
{increases(columns, "m.gpu_id", of_card)}
){counted.bars(values, "sample")}"""
    return panels.bars(
        group.title, group.description + " Up to two days read from minutes, then hours, then days.", unit, series(sql)
    )


def throttling() -> AnyPanel:
    def select(level: Level) -> str:
        bits = level.bits("clocks_event_reasons")
        when = f"m.{level.time} AS time, m.{level.time} AS until, INTERVAL '{level.gap}' AS gap"
        return f"{when}, {bits} & {THROTTLING} AS throttling"

    sql = f"WITH {CARD}, sample AS (\n{read(select, of_card)}\n)\n{bands('throttling')}"
    return panels.states(
        "Throttling", "Why the clocks were held back; of buckets, every bit that was set.", series(sql), throttle_map()
    )


# --- who used it, what happened --------------------------------------------------------------------------------------


def _tenants() -> str:
    def select(level: Level) -> str:
        parts = ", ".join(f"{level.said(x)} AS {x}" for x in ("namespace", "pod", "container"))
        when = f"{level.begin} AS time, {level.end} AS until"
        return f"{when}, {parts}, {level.samples} AS samples, INTERVAL '{level.gap}' AS gap"

    return f"WITH {CARD}, sample AS (\n{read(select, of_card, USAGE)}\n)"


def tenants() -> list[AnyPanel]:
    who = "namespace, pod, container"
    # Islands: while the tenant stays, a row's number among all and among the tenant's go up together.
    stays = f"""{_tenants()}, stays AS (
    SELECT *, row_number() OVER (ORDER BY time) - row_number() OVER (PARTITION BY {who} ORDER BY time) AS stay
    FROM sample
)
SELECT {who}, min(time) AS "from", max(until) AS "to", sum(samples)::bigint AS samples
FROM stays WHERE pod IS NOT NULL GROUP BY {who}, stay ORDER BY 4 DESC LIMIT 500"""
    exact = (
        " Over six hours exact to the minute, which counts for the pod it ended with; over two days a pod that comes"
        " back within an hour is one with its first time in it; over a year to the day."
    )
    return [
        panels.states(
            "Tenants", "The pod that held the GPU. Blank: none, or no sample." + exact,
            rows(_tenants() + "\n" + bands("pod")), None),
        panels.table(
            "Tenants within the time range",
            "Who held the GPU, from the first sample to the last; a pod that came back is a row again." + exact,
            rows(stays), style.COUNT).span(24),
    ]  # fmt: skip


def events() -> AnyPanel:
    sql = f"""WITH {CARD}
SELECT e.time, e.kind, nullif(e.code, 0) AS "XID", e.detail ->> 'meaning' AS meaning,
    e.detail ->> 'severity' AS severity, e.detail ->> 'immediate_action' AS "do now",
    e.detail ->> 'process' AS process, e.detail ->> 'reason' AS reason, e.status_tag AS status, e.status_memo AS memo
FROM gpu_events e WHERE e.gpu_id = {CARD_ID} AND $__timeFilter(e.time) ORDER BY e.time DESC LIMIT 500"""
    panel = panels.table(
        "Events", "XIDs, lost and returned, counters that restarted. docs/xids.md has all XIDs.", rows(sql)
    ).no_value(style.NONE)
    return panels.override(panel.span(24).height(10), {"/^severity$/": panels.severity()})


def build() -> models.Dashboard:
    sections: Sequence[tuple[str, Sequence[AnyPanel]]] = [
        ("", now()),
        ("Metrics", [throttling(), *metric_panels()]),
        ("Tenants", tenants()),
        ("Events", [events()]),
        ("Inventory", inventory()),
    ]
    return page(
        CARD_UID,
        "One GPU: all its metrics, who used it, what happened to it, what it is.",
        variables=[postgres_variable(), HOST, ONE_GPU],
        sections=sections,
        annotations=event_annotations(
            "(e.gpu_id::text IN (${gpu:sqlstring}) OR e.kind = 'status' AND e.hostname IN (${host:sqlstring}))"
        ),
    )
