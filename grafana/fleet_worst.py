"""Fleet, "Worst first": what is hottest, held back most, lost, late."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.models import units

from grafana import panels, style
from grafana.fleet_gpus import CARD_NAME, CARDS, HOST_LINK, INVENTORY, LINKED, WHERE, WHO
from grafana.panels import AnyPanel, Overrides, cell
from grafana.presence import AND_LOST
from grafana.queries import rows
from grafana.resolution import RANKING, TO, Level, read
from grafana.selection import IN_FLEET, in_fleet
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
SELECT {WHO}, s.peak, s.total / nullif(s.n, 0) AS mean, s.memory_peak AS "memory", {WHERE}, g.gpu_id
FROM (
    SELECT gpu_id, max(peak) AS peak, max(memory_peak) AS memory_peak, sum(total) AS total, sum(n) AS n
    FROM sample GROUP BY 1
) s JOIN gpu g USING (gpu_id) WHERE s.peak IS NOT NULL ORDER BY s.peak DESC, mean DESC LIMIT 20"""
    columns = {"/^(memory|peak|mean)$/": {**cell(style.TEMPERATURE, units.Celsius), "decimals": 0}, **LINKED}
    return panels.override(
        panels.table(
            "Hottest GPUs",
            "The twenty highest peaks of GPU temperature within the time range, with mean, and peak of the memory."
            + TODAY,
            rows(sql),
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
            f"m.gpu_id, min(m.bucket) AS time, max(m.bucket) + INTERVAL '{level.buckets(1)}' AS until, "
            f"{known} AS share, {held} AS held, {_ends('power_violation')}, {_ends('thermal_violation')}"
        )

    sql = f"""WITH {IN_FLEET}, sample AS (
{read(select, in_fleet, RANKING, group="m.gpu_id")}
), spent AS (
    SELECT gpu_id, sum(share) AS share, bool_or(held) AS held,
        extract(epoch FROM least(max(until), greatest(now(), {TO})) - min(time))::float8 AS covered,
        {_spent("power_violation")} / 1e9::float8 AS power,
        {_spent("thermal_violation")} / 1e9::float8 AS heat
    FROM sample GROUP BY 1
)
SELECT {WHO}, {_within("s.heat")} AS "by heat", {_within("s.power")} AS "by power", s.covered AS "of",
    CASE WHEN s.heat IS NULL AND s.power IS NULL THEN s.share::float8
        ELSE least(100 * (coalesce(s.heat, 0) + coalesce(s.power, 0)) / nullif(s.covered, 0), 100) END AS share,
    {WHERE}, g.gpu_id
FROM spent s JOIN gpu g USING (gpu_id) WHERE s.heat > 0 OR s.power > 0 OR s.held
ORDER BY s.heat DESC NULLS LAST, s.power DESC NULLS LAST, s.share DESC NULLS LAST LIMIT 20"""
    columns: Overrides = {
        "/^share$/": {**cell(style.SHARE_THROTTLED, units.Percent), "decimals": 0, "custom.width": 75},
        "/^(by .*|of)$/": {"unit": units.Seconds, "decimals": 1},
        **LINKED,
    }
    panel = panels.table(
        "Most throttled GPUs",
        "How long clocks were held back, as the GPU counts it: those held back longest by heat first, then by power. "
        "Of: the time that was read, from the first bucket to the last; share: both together of it, or, of a board "
        "that does not count the time, the share of the minutes in which it was held back at all (up to an hour; of "
        "hours and days that would say nothing). Over two days only boards that count the time are in it." + TODAY,
        rows(sql)).no_value(style.NONE)  # fmt: skip
    return panels.override(panel, columns)


def _within(spent: str) -> str:
    """No more than the time that was read; unknown stays unknown, of which least() would make all of it."""
    return f"CASE WHEN {spent} > s.covered THEN s.covered ELSE {spent} END"


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
    missing = f"""WITH {CARDS}
SELECT c.hostname AS host, {CARD_NAME} AS "GPU", CASE WHEN l.gpu_uuid IS NULL THEN 'silent' ELSE 'lost' END AS state,
    coalesce(l.lost_at, c.newest) AS since, extract(epoch FROM now() - c.newest)::float8 AS "last sample", l.reason,
    {WHERE}, g.gpu_id
FROM card c
JOIN (SELECT gpu_uuid, coalesce(min(gpu_id) FILTER (WHERE instance_id IS NULL), min(gpu_id)) AS gpu_id
    FROM inventory GROUP BY 1) i USING (gpu_uuid) JOIN gpus g USING (gpu_id)
{AND_LOST}
WHERE l.gpu_uuid IS NOT NULL OR c.silent AND c.hostname IN (SELECT hostname FROM card WHERE NOT silent)
ORDER BY state, since DESC NULLS LAST, 1, 2 LIMIT 200"""
    silent = f"""WITH {INVENTORY}
SELECT g.hostname AS host, extract(epoch FROM now() - max(g.newest))::float8 AS "last sample",
    count(DISTINCT g.gpu_uuid) AS "GPUs", coalesce(g.cluster, 'none') AS cluster, g.rack
FROM inventory g GROUP BY 1, 4, 5 HAVING coalesce(max(g.newest) < now() - INTERVAL '1 minute', true)
ORDER BY max(g.newest) NULLS FIRST LIMIT 200"""
    age = cell(style.FRESHNESS, units.Seconds)
    return [
        panels.override(panels.table(
            "Lost and silent GPUs",
            "Reported lost and not returned; and silent (no sample for five minutes, or one since an exporter of the "
            "host is down), of hosts that report otherwise "
            "(a host none of whose GPUs reports is beside this). None is good.",
            rows(missing)).span(14).no_value(style.NONE),
            {"/^(since|reason|rack|model)$/": {"mappings": [panels.unknown("transparent", "unknown")]},
             "/^state$/": {"custom.width": 70}, "/^last sample$/": age, **LINKED}),
        panels.override(panels.table(
            "Hosts late by over a minute",
            "Hosts none of whose GPUs has a sample younger than a minute, or ever had one.",
            rows(silent)).span(10).no_value(style.NONE),
            {"/^rack$/": {"mappings": [panels.unknown("transparent", "unknown")]}, "/^last sample$/": age,
             "/^host$/": HOST_LINK}),
    ]  # fmt: skip
