"""Dashboard "Fleet": all GPUs at once; where to look first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import units

from grafana import panels, style
from grafana.frame import FLEET_UID, card_url, host_url, page, postgres_variable
from grafana.panels import HIDDEN, AnyPanel, Overrides, cell, link, rows, series, steps
from grafana.resolution import ERRORS, FLEET, FROM, RANKING, TO, Level, increases, read, with_gaps
from grafana.selection import CLUSTER, GPU_NAME, HOSTS, IN_FLEET, MODEL, chosen, in_fleet
from services.contract.catalogue import COUNTERS, Unit
from services.contract.clocks_event import THROTTLING

GPU_LINK: Final = link("GPU detail", card_url("${__data.fields.host:percentencode}", "${__data.fields.gpu_id}"))
HOST_LINK: Final = link("Host", host_url("${__data.fields.host:percentencode}"))
IDENTITY: Final = f"""coalesce(g.cluster, 'none') AS cluster, g.rack, g.hostname AS host,
    {GPU_NAME.format(at="g")} AS "GPU", g.model"""
LINKED: Final[Overrides] = {"/^GPU$/": GPU_LINK, "/^host$/": HOST_LINK, "/^gpu_id$/": HIDDEN}
SILENT: Final = "v.age >= INTERVAL '5 minutes'"
"""As v_fleet_health_summary counts."""
LATEST: Final = f"FROM v_latest_gpu_metrics v WHERE {chosen('v')}"
SLOTS: Final = 16
"""GPUs of the largest single host (HGX with two baseboards); a host's hottest GPU has a column of its own anyway."""
ERROR_COUNTERS: Final = tuple(m.column for m in COUNTERS if m.unit is Unit.COUNT and not m.column.endswith("agg_total"))
"""Counters of errors; the aggregate ECC counters repeat the volatile ones."""
LINK_ERRORS: Final = tuple(x for x in ERROR_COUNTERS if x.startswith(("pcie_", "nvlink_")))
MEMORY_ERRORS: Final = tuple(x for x in ERROR_COUNTERS if x not in LINK_ERRORS)
RESTARTS: Final = (
    "Counted from bucket to bucket, restarts of a counter included; from minutes up to half an hour, then hours, "
    "over a day days. The first and the last bar are the whole hour or day in which the range begins and ends."
)
FIRST: Final = " The hour (over two days: the day) in which the range begins counts whole."
TODAY: Final = FIRST + " Over two days: whole days, and of today the whole hours; the running hour is not in it."


def _sum(level: Level) -> str:
    return (
        f"m.{level.time} AS time, gpu.cluster, {level.average('power_usage')} AS watts, INTERVAL '{level.gap}' AS gap"
    )


# --- now -------------------------------------------------------------------------------------------------------------


def counts() -> list[AnyPanel]:
    gpus = f"""SELECT count(*) AS "GPUs", count(DISTINCT v.hostname) AS hosts,
    count(*) FILTER (WHERE NOT {SILENT}) AS reporting, count(*) FILTER (WHERE {SILENT}) AS silent {LATEST}"""
    now = f"""SELECT max(v.gpu_temp) AS hottest, sum(v.power_usage::float8) AS power,
    avg(v.gpu_util)::float8 AS utilisation,
    CASE WHEN count(v.clocks_event_reasons) > 0 THEN
        count(*) FILTER (WHERE v.clocks_event_reasons & {THROTTLING} <> 0) END AS throttled {LATEST} AND NOT {SILENT}"""
    age = f"""SELECT extract(epoch FROM percentile_disc(0.5) WITHIN GROUP (ORDER BY v.age))::float8 AS median,
    extract(epoch FROM max(v.age))::float8 AS oldest {LATEST} AND NOT {SILENT}"""
    return [
        panels.override(panels.number(
            "GPUs", "GPUs and MIG instances known, how many report, how many have been silent for five minutes.",
            style.COUNT, rows(gpus)).span(9), {"/^silent$/": steps(style.ANY_IS_BAD)}),
        panels.override(panels.number(
            "Now", "Of the GPUs that report: highest temperature, power in all, mean utilisation, how many throttle.",
            style.COUNT, rows(now)).span(9).decimals(0),
            {"/^hottest$/": {"unit": units.Celsius, **steps(style.TEMPERATURE)}, "/^power$/": {"unit": units.Watt},
             "/^utilisation$/": {"unit": units.Percent}, "/^throttled$/": steps(style.ANY_IS_NOTABLE)}),
        panels.number(
            "Freshness", "Age of the newest sample of the GPUs that report: of the median GPU, and of the oldest.",
            units.Seconds, rows(age), of=style.LATE).span(6).decimals(1),
    ]  # fmt: skip


def map_of_hosts() -> AnyPanel:
    """A row for each host, a column for each GPU."""
    slots = ", ".join(f'max(temp) FILTER (WHERE gpu_index = {slot}) AS "{slot}"' for slot in range(SLOTS))
    sql = f"""SELECT cluster, rack, host, count(*) AS "GPUs", max(temp) AS hottest, {slots},
    count(*) FILTER (WHERE silent) AS silent
FROM (
    SELECT coalesce(v.cluster, 'none') AS cluster, v.rack, v.hostname AS host, v.gpu_index, {SILENT} AS silent,
        CASE WHEN NOT {SILENT} THEN v.gpu_temp END AS temp {LATEST}
) g GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
    columns: Overrides = {
        "/^(\\d+|hottest)$/": cell(style.TEMPERATURE, units.Celsius),
        "/^\\d+$/": {"custom.width": 62, "mappings": [panels.unknown("transparent", "")]},
        "/^silent$/": cell(style.ANY_IS_BAD, style.COUNT),
        "/^host$/": HOST_LINK,
    }
    panel = panels.table(
        "Temperature map",
        "Cluster, rack, host, and the temperature of GPU 0, 1, 2, ... now. An empty cell: no such GPU, or silent "
        "for five minutes.",
        rows(sql), style.COUNT)  # fmt: skip
    return panels.override(panel.span(24).height(12), columns)


def by_model() -> AnyPanel:
    sql = f"""SELECT coalesce(v.cluster, 'none') AS cluster, v.datacenter, v.model, count(*) AS "GPUs",
    count(DISTINCT v.hostname) AS hosts, count(*) FILTER (WHERE {SILENT}) AS silent,
    avg(v.gpu_temp) FILTER (WHERE NOT {SILENT})::float8 AS "mean temperature",
    max(v.gpu_temp) FILTER (WHERE NOT {SILENT}) AS "highest temperature",
    sum(v.power_usage::float8) FILTER (WHERE NOT {SILENT}) AS power,
    avg(v.gpu_util) FILTER (WHERE NOT {SILENT})::float8 AS utilisation,
    avg(v.memory_percent) FILTER (WHERE NOT {SILENT}) AS memory
{LATEST} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
    columns: Overrides = {
        "/temperature$/": {**cell(style.TEMPERATURE, units.Celsius), "decimals": 0},
        "/^power$/": {"unit": units.Watt, "decimals": 0},
        "/^(utilisation|memory)$/": {"unit": units.Percent, "decimals": 0},
        "/^silent$/": cell(style.ANY_IS_BAD, style.COUNT),
    }
    panel = panels.table(
        "Clusters and models",
        "What there is, and how it does now; silent GPUs count as GPUs only.",
        rows(sql),
        style.COUNT,
    )
    return panels.override(panel.span(24), columns)


# --- worst first -----------------------------------------------------------------------------------------------------


def hottest() -> AnyPanel:
    def select(level: Level) -> str:
        return (
            f"m.gpu_id, max({level.highest('gpu_temp')}) AS peak, max({level.highest('memory_temp')}) AS memory_peak, "
            f"sum({level.total('gpu_temp')})::float8 AS total, sum({level.count('gpu_temp')}) AS n"
        )

    sql = f"""WITH {IN_FLEET}, sample AS (
{read(select, in_fleet, RANKING, group="m.gpu_id")}
)
SELECT {IDENTITY}, s.peak AS "peak temperature", s.total / nullif(s.n, 0) AS "mean temperature",
    s.memory_peak AS "memory peak temperature", g.gpu_id
FROM (
    SELECT gpu_id, max(peak) AS peak, max(memory_peak) AS memory_peak, sum(total) AS total, sum(n) AS n
    FROM sample GROUP BY 1
) s JOIN gpu g USING (gpu_id) WHERE s.peak IS NOT NULL ORDER BY s.peak DESC, 7 DESC LIMIT 20"""
    columns = {"/temperature$/": {**cell(style.TEMPERATURE, units.Celsius), "decimals": 0}, **LINKED}
    return panels.override(
        panels.table("Hottest GPUs", "The twenty highest peaks within the time range." + TODAY, rows(sql)), columns
    )


def most_throttled() -> AnyPanel:
    def select(level: Level) -> str:
        bits = f"m.or_clocks_event_reasons & {THROTTLING} <> 0"
        share = f"100.0 * count(*) FILTER (WHERE {bits}) / nullif(count(m.or_clocks_event_reasons), 0)"
        # Within an hour under load there is nearly always a throttled moment: a share of hours would say nothing.
        known = share if level.step == "minute" else "NULL::numeric"
        held = "false" if level.whole else f"bool_or({bits})"
        return (
            f"m.gpu_id, {known} AS share, {held} AS held, "
            f"{_spent('power_violation')} AS power, {_spent('thermal_violation')} AS heat"
        )

    sql = f"""WITH {IN_FLEET}, sample AS (
{read(select, in_fleet, RANKING, group="m.gpu_id")}
)
SELECT {IDENTITY}, s.heat::float8 AS "by heat", s.power::float8 AS "by power",
    s.share::float8 AS "minutes with throttling", g.gpu_id
FROM (
    SELECT gpu_id, sum(share) AS share, bool_or(held) AS held, sum(power) AS power, sum(heat) AS heat
    FROM sample GROUP BY 1
) s JOIN gpu g USING (gpu_id) WHERE s.heat > 0 OR s.power > 0 OR s.held
ORDER BY coalesce(s.heat, 0) + coalesce(s.power, 0) DESC, s.share DESC NULLS LAST LIMIT 20"""
    columns: Overrides = {
        "/^minutes with throttling$/": {**cell(style.SHARE_THROTTLED, units.Percent), "decimals": 0},
        "/^by /": {"unit": style.unit("power_violation")},
        **LINKED,
    }
    panel = panels.table(
        "Most throttled GPUs",
        "How long clocks were held back within the time range, as the GPU counts it; and, up to an hour, in which "
        "share of the minutes they were held back at all (of hours and days it would say nothing)." + TODAY,
        rows(sql))  # fmt: skip
    return panels.override(panel, columns)


def _spent(x: str) -> str:
    """Growth of a counter over several buckets. Where it restarted, what grew within the buckets; unknown where it is
    lower at the end than it was and nobody saw it start again (ADR 3)."""
    newest = f"last(m.last_{x}, m.bucket) FILTER (WHERE m.last_{x} IS NOT NULL)"
    within = f"sum(m.last_{x} - m.first_{x} + coalesce(m.resets_{x}, 0))"
    return f"""CASE WHEN coalesce(sum(m.resets_{x}), 0) > 0 THEN {within}
        WHEN max(m.last_{x}) = {newest} THEN max(m.last_{x}) - min(m.first_{x}) END"""


# --- over time -------------------------------------------------------------------------------------------------------


def over_time() -> list[AnyPanel]:
    power, reporting = (
        f"""WITH {IN_FLEET}, each AS (
{read(_sum, in_fleet, FLEET)}
), sample AS (
SELECT time, coalesce(cluster, 'none') AS metric, {value} AS value, max(gap) AS gap FROM each GROUP BY 1, 2
)
{with_gaps(("value",), "metric")}"""
        for value in ("sum(watts)", "count(*)")
    )
    level = (
        " Read from minutes up to two hours, then from hours, over two days from every third, over a week from days, "
        "and of today hours. The running hour is not in it; what is now is at the top."
    )
    return [
        panels.areas(
            "Power by cluster",
            "Mean power of each bucket, added up over the GPUs that report power: one that reports none is left out."
            + level,
            units.Watt,
            series(power),
        ),
        panels.areas("GPUs reporting", "GPUs with a sample in each bucket." + level, style.COUNT, series(reporting)),
    ]


# --- errors ----------------------------------------------------------------------------------------------------------


def errors() -> list[AnyPanel]:
    xids = f"""SELECT time_bucket(greatest(({TO} - {FROM}) / 100, INTERVAL '1 minute'), e.time) AS time,
    'XID ' || e.code AS metric, count(*) AS value
FROM gpu_events e JOIN gpus g ON g.gpu_id = e.gpu_id
WHERE e.kind = 'xid' AND $__timeFilter(e.time) AND {chosen()} GROUP BY 1, 2 ORDER BY 1, 2"""
    return [
        panels.bars(
            "XIDs", "XID errors by code. docs/xids.md says what each means and what to do.",
            style.COUNT, series(xids)).span(8),
        panels.bars(
            "Memory errors",
            "By how much the counters of ECC errors, retired pages and remapped rows grew. " + RESTARTS,
            style.COUNT, series(_errors(MEMORY_ERRORS))).span(8),
        panels.bars(
            "Link errors", "By how much the counters of PCIe replays and NVLink errors grew. " + RESTARTS,
            style.COUNT, series(_errors(LINK_ERRORS))).span(8),
        recent_xids(),
    ]  # fmt: skip


def recent_xids() -> AnyPanel:
    sql = f"""SELECT e.time, e.hostname AS host, {GPU_NAME.format(at="g")} AS "GPU", e.code AS "XID",
    e.detail ->> 'meaning' AS meaning, e.detail ->> 'severity' AS severity,
    e.detail ->> 'immediate_action' AS "do now", g.gpu_id
FROM gpu_events e JOIN gpus g ON g.gpu_id = e.gpu_id
WHERE e.kind = 'xid' AND $__timeFilter(e.time) AND {chosen()} ORDER BY e.time DESC LIMIT 100"""
    panel = panels.table(
        "Recent XIDs", "The newest hundred XIDs within the time range, and what to do. docs/xids.md has all.", rows(sql)
    )
    return panels.override(panel.span(24), {"/^severity$/": panels.severity(), **LINKED})


def _errors(columns: Sequence[str]) -> str:
    grown = ", ".join(f"sum({x}) AS {x}" for x in columns)
    return f"""WITH {IN_FLEET}, sample AS (
{increases(columns, "m.gpu_id", in_fleet, ERRORS)}
)
SELECT time, {grown} FROM sample GROUP BY 1 ORDER BY 1"""


def lost() -> list[AnyPanel]:
    missing = f"""SELECT DISTINCT ON (e.gpu_uuid, e.instance_id) {IDENTITY},
    e.time AS since, e.detail ->> 'reason' AS reason,
    extract(epoch FROM now() - l.time)::float8 AS "last sample", g.gpu_id
FROM gpu_events e JOIN gpus g USING (gpu_id) LEFT JOIN gpu_latest l USING (gpu_id)
WHERE e.kind = 'gpu_lost' AND {chosen()} AND (l.time IS NULL OR l.time < now() - INTERVAL '5 minutes') AND NOT EXISTS (
    SELECT FROM gpu_events back WHERE back.kind = 'gpu_returned' AND back.gpu_id = e.gpu_id AND back.time >= e.time)
ORDER BY e.gpu_uuid, e.instance_id, e.time DESC"""
    silent = f"""SELECT coalesce(g.cluster, 'none') AS cluster, g.rack, g.hostname AS host, count(*) AS "GPUs",
    extract(epoch FROM now() - max(l.time))::float8 AS "last sample"
FROM gpus g JOIN gpu_latest l USING (gpu_id) WHERE {chosen()}
GROUP BY 1, 2, 3 HAVING max(l.time) < now() - INTERVAL '1 minute' ORDER BY max(l.time) LIMIT 200"""
    age = cell(style.FRESHNESS, units.Seconds)
    return [
        panels.override(panels.table(
            "Lost GPUs", "Reported lost, not returned, and silent for five minutes. None is good.",
            rows(missing)).span(14), {"/^last sample$/": age, **LINKED}),
        panels.override(panels.table(
            "Hosts late by over a minute", "Hosts none of whose GPUs has a sample younger than a minute.",
            rows(silent)).span(10),
            {"/^last sample$/": age, "/^host$/": HOST_LINK}),
    ]  # fmt: skip


def build() -> models.Dashboard:
    sections: Sequence[tuple[str, Sequence[AnyPanel]]] = [
        ("", [*counts(), map_of_hosts()]),
        ("Worst first", [hottest(), most_throttled(), *lost()]),
        ("Over time", over_time()),
        ("Errors", errors()),
        ("Inventory", [by_model()]),
    ]
    return page(
        FLEET_UID,
        "All GPUs: temperature, throttling, power, errors, and who is missing.",
        variables=[postgres_variable(), CLUSTER, HOSTS, MODEL],
        sections=sections,
        since="now-2h",
    )
