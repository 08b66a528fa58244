"""Fleet, "Worst first": what is hottest, held back most, lost, late."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.models import units

from grafana import panels, style
from grafana.fleet_gpus import HOST_LINK, LINKED, WHERE, WHO
from grafana.panels import AnyPanel, Overrides, cell
from grafana.queries import rows
from grafana.resolution import RANKING, SILENT, Level, read
from grafana.selection import IN_FLEET, chosen, in_fleet
from services.contract.clocks_event import THROTTLING

FIRST: Final = " The minute (over an hour: the hour, over two days: the day) in which the range begins counts whole."
TODAY: Final = FIRST + " Over two days: whole days, and of today the whole hours; the running hour is not in it."


def hottest() -> AnyPanel:
    def select(level: Level) -> str:
        return (
            f"m.gpu_id, max({level.highest('gpu_temp')}) AS peak, max({level.highest('memory_temp')}) AS memory_peak, "
            f"sum({level.total('gpu_temp')})::float8 AS total, sum({level.count('gpu_temp')}) AS n"
        )

    sql = f"""WITH {IN_FLEET}, sample AS (
{read(select, in_fleet, RANKING, group="m.gpu_id")}
)
SELECT {WHO}, s.peak, s.total / nullif(s.n, 0) AS mean, s.memory_peak AS "memory peak", {WHERE}, g.gpu_id
FROM (
    SELECT gpu_id, max(peak) AS peak, max(memory_peak) AS memory_peak, sum(total) AS total, sum(n) AS n
    FROM sample GROUP BY 1
) s JOIN gpu g USING (gpu_id) WHERE s.peak IS NOT NULL ORDER BY s.peak DESC, mean DESC LIMIT 20"""
    columns = {"/^(memory )?(peak|mean)$/": {**cell(style.TEMPERATURE, units.Celsius), "decimals": 0}, **LINKED}
    return panels.override(
        panels.table(
            "Hottest GPUs", "The twenty highest peaks of GPU temperature within the time range." + TODAY, rows(sql)
        ),
        columns,
    )


def most_throttled() -> AnyPanel:
    def select(level: Level) -> str:
        bits = f"m.or_clocks_event_reasons & {THROTTLING} <> 0"
        share = f"100.0 * count(*) FILTER (WHERE {bits}) / nullif(count(m.or_clocks_event_reasons), 0)"
        # Within an hour under load there is nearly always a throttled moment: a share of hours would say nothing.
        known = share if level.step == "minute" else "NULL::numeric"
        held = "false" if level.whole else f"bool_or({bits})"
        return (
            f"m.gpu_id, min(m.bucket) AS time, {known} AS share, {held} AS held, "
            f"{_ends('power_violation')}, {_ends('thermal_violation')}"
        )

    sql = f"""WITH {IN_FLEET}, sample AS (
{read(select, in_fleet, RANKING, group="m.gpu_id")}
)
SELECT {WHO}, s.heat::float8 AS "by heat", s.power::float8 AS "by power",
    s.share::float8 AS "share of minutes", {WHERE}, g.gpu_id
FROM (
    SELECT gpu_id, sum(share) AS share, bool_or(held) AS held,
        {_spent("power_violation")} AS power,
        {_spent("thermal_violation")} AS heat
    FROM sample GROUP BY 1
) s JOIN gpu g USING (gpu_id) WHERE s.heat > 0 OR s.power > 0 OR s.held
ORDER BY coalesce(s.heat, 0) + coalesce(s.power, 0) DESC, s.share DESC NULLS LAST LIMIT 20"""
    columns: Overrides = {
        "/^share of minutes$/": {**cell(style.SHARE_THROTTLED, units.Percent), "decimals": 0, "custom.width": 130},
        "/^by /": {"unit": style.unit("power_violation")},
        **LINKED,
    }
    panel = panels.table(
        "Most throttled GPUs",
        "How long clocks were held back within the time range, as the GPU counts it; and, up to an hour, in which "
        "share of the minutes they were held back at all (of hours and days it would say nothing). Over two days only "
        "boards that count the time themselves are in it." + TODAY,
        rows(sql)).no_value(style.NONE)  # fmt: skip
    return panels.override(panel, columns)


def _ends(x: str) -> str:
    """Of a counter over several buckets, what `_spent` needs."""
    return (
        f"first(m.first_{x}, m.bucket) FILTER (WHERE m.first_{x} IS NOT NULL) AS first_{x}, "
        f"last(m.last_{x}, m.bucket) FILTER (WHERE m.last_{x} IS NOT NULL) AS last_{x}, "
        f"max(m.last_{x}) AS highest_{x}, sum(m.resets_{x}) AS resets_{x}"
    )


def _spent(x: str) -> str:
    """Growth of a counter over the parts of the range: the days, the hours of today. Over restarts that were written
    down too (ADR 3). Unknown where it is lower at the end than before, and nobody saw it start again."""
    newest = f"last(last_{x}, time) FILTER (WHERE last_{x} IS NOT NULL)"
    oldest = f"first(first_{x}, time) FILTER (WHERE first_{x} IS NOT NULL)"
    grown = f"{newest} - {oldest} + coalesce(sum(resets_{x}), 0)"
    return f"""CASE WHEN sum(resets_{x}) > 0 OR max(highest_{x}) = {newest} THEN
            CASE WHEN {grown} >= 0 THEN {grown} END END"""


def lost() -> list[AnyPanel]:
    missing = f"""SELECT DISTINCT ON (e.gpu_uuid, e.instance_id) {WHO},
    e.time AS since, extract(epoch FROM now() - l.time)::float8 AS "last sample", e.detail ->> 'reason' AS reason,
    {WHERE}, g.gpu_id
FROM gpu_events e JOIN gpus g USING (gpu_id) LEFT JOIN gpu_latest l USING (gpu_id)
WHERE e.kind = 'gpu_lost' AND {chosen()} AND (l.time IS NULL OR l.time < now() - INTERVAL '{SILENT}') AND NOT EXISTS (
    SELECT FROM gpu_events back WHERE back.kind = 'gpu_returned' AND back.gpu_id = e.gpu_id AND back.time >= e.time)
ORDER BY e.gpu_uuid, e.instance_id, e.time DESC"""
    silent = f"""SELECT g.hostname AS host, extract(epoch FROM now() - max(l.time))::float8 AS "last sample",
    count(*) AS "GPUs", coalesce(g.cluster, 'none') AS cluster, g.rack
FROM gpus g LEFT JOIN gpu_latest l USING (gpu_id) WHERE {chosen()}
GROUP BY 1, 4, 5 HAVING coalesce(max(l.time) < now() - INTERVAL '1 minute', true)
ORDER BY max(l.time) NULLS FIRST LIMIT 200"""
    age = cell(style.FRESHNESS, units.Seconds)
    return [
        panels.override(panels.table(
            "Lost GPUs", "Reported lost, not returned, and silent for five minutes. None is good.",
            rows(missing)).span(14).no_value(style.NONE), {"/^last sample$/": age, **LINKED}),
        panels.override(panels.table(
            "Hosts late by over a minute",
            "Hosts none of whose GPUs has a sample younger than a minute, or ever had one.",
            rows(silent)).span(10).no_value(style.NONE),
            {"/^last sample$/": age, "/^host$/": HOST_LINK}),
    ]  # fmt: skip
