"""Dashboard "Fleet": all GPUs at once; where to look first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import units

from grafana import panels, style
from grafana.fleet_errors import errors
from grafana.fleet_gpus import BOARDS, HOST_LINK, NEWEST, NOW, NOW_AND_BOARDS, once, with_board
from grafana.fleet_worst import hottest, lost, most_throttled
from grafana.frame import FLEET_UID, page, postgres_variable
from grafana.gaps import with_gaps
from grafana.panels import AnyPanel, Overrides, cell, steps
from grafana.queries import rows, series
from grafana.resolution import FLEET, Level, read
from grafana.selection import CLUSTER, HOSTS, IN_FLEET, MODEL, in_fleet
from services.contract.clocks_event import THROTTLING

SLOTS: Final = 16
"""GPUs of the largest single host (HGX with two baseboards); a host's hottest GPU has a column of its own anyway."""
WITHOUT_POWER: Final = (
    "CASE WHEN board_id IS NULL THEN count(*) FILTER (WHERE power IS NULL) ELSE (max(power) IS NULL)::int END"
)
"""How many GPUs have no power value; of a board in instances it is enough that one has. In a query as for `once`."""
_HELD: Final = f"count(*) FILTER (WHERE clocks_event_reasons & {THROTTLING} <> 0)"
THROTTLED: Final = f"CASE WHEN board_id IS NULL THEN {_HELD} ELSE sign({_HELD})::int END"
"""How many are held back; a board in instances once, since each of them may repeat its reasons."""

# --- now -------------------------------------------------------------------------------------------------------------


def counts() -> list[AnyPanel]:
    gpus = f"""SELECT count(*) AS "GPUs", count(DISTINCT hostname) AS hosts,
    count(*) FILTER (WHERE NOT silent) AS reporting, count(*) FILTER (WHERE silent) AS silent {NEWEST}"""
    now = f"""WITH {NOW_AND_BOARDS}, boards AS (
    SELECT max(gpu_temp) AS hottest, {once("power")} AS power, {WITHOUT_POWER} AS without,
        sum(gpu_util) AS total, count(gpu_util) AS n, count(clocks_event_reasons) AS told, {THROTTLED} AS throttled
    FROM now LEFT JOIN board USING (gpu_id) WHERE NOT silent GROUP BY board_id
)
SELECT max(hottest) AS hottest, sum(power) AS power, sum(without)::bigint AS "without power",
    sum(total) / nullif(sum(n), 0)::float8 AS utilisation,
    CASE WHEN sum(told) > 0 THEN sum(throttled)::bigint END AS throttled FROM boards"""
    age = f"""SELECT
    extract(epoch FROM percentile_disc(0.5) WITHIN GROUP (ORDER BY age) FILTER (WHERE age >= '0'))::float8 AS median,
    extract(epoch FROM max(age) FILTER (WHERE age >= '0'))::float8 AS oldest,
    CASE WHEN count(*) > 0 THEN greatest(extract(epoch FROM -min(age)), 0)::float8 END AS ahead
{NEWEST} WHERE NOT silent"""
    return [
        panels.override(panels.number(
            "GPUs", "GPUs and MIG instances of the inventory, how many report, and how many are silent: no sample for "
            "five minutes, or never one.",
            style.COUNT, rows(gpus)).span(8), {"/^silent$/": steps(style.ANY_IS_BAD)}),
        panels.override(panels.number(
            "Now", "Of the GPUs that report: highest temperature; power in all, a GPU in MIG instances counted once; "
            "how many have no power value, so that it is not in the sum; mean utilisation of GPUs and instances; how "
            "many GPUs throttle.",
            style.COUNT, rows(now)).span(10),
            {"/^hottest$/": {"unit": units.Celsius, **steps(style.TEMPERATURE)},
             "/^power$/": {"unit": units.Watt, "decimals": 2}, "/^utilisation$/": {"unit": units.Percent},
             "/^(without power|throttled)$/": steps(style.ANY_IS_NOTABLE)}),
        panels.override(panels.number(
            "Freshness", "Age of the newest sample of the GPUs that report: of the median GPU, and of the oldest; and "
            "by how much the newest is dated ahead of the database's clock. What is ahead has no age, and counts as "
            "reporting until its time is five minutes ago.",
            units.Seconds, rows(age), of=style.LATE).span(6).decimals(1), {"/^ahead$/": steps(style.AHEAD)}),
    ]  # fmt: skip


def map_of_hosts() -> AnyPanel:
    """A row for each host, a column for each GPU."""
    slots = ", ".join(f'max(temp) FILTER (WHERE gpu_index = {slot}) AS "{slot}"' for slot in range(SLOTS))
    sql = f"""WITH {NOW}
SELECT cluster, rack, hostname AS host, count(*) AS "GPUs", count(*) FILTER (WHERE silent) AS silent,
    max(temp) AS hottest, {slots}
FROM (SELECT *, CASE WHEN NOT silent THEN gpu_temp END AS temp FROM now) g GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
    columns: Overrides = {
        "/^(\\d+|hottest)$/": cell(style.TEMPERATURE, units.Celsius),
        "/^\\d+$/": {"custom.width": 62, "mappings": [panels.unknown("transparent", "")]},
        "/^silent$/": cell(style.ANY_IS_BAD, style.COUNT),
        "/^host$/": HOST_LINK,
    }
    panel = panels.table(
        "Temperature map",
        "Cluster, rack, host, and the temperature of GPU 0, 1, 2, ... now. An empty cell: no such GPU, or silent "
        "for five minutes, or never heard of.",
        rows(sql), style.COUNT)  # fmt: skip
    return panels.override(panel.span(24).height(12), columns)


def by_model() -> AnyPanel:
    sql = f"""WITH {NOW_AND_BOARDS}, heard AS (
    SELECT cluster, datacenter, model, max(gpu_temp) AS hottest, sum(gpu_temp) AS heat, count(gpu_temp) AS warm,
        {once("power")} AS power, {WITHOUT_POWER} AS without, sum(gpu_util) AS total, count(gpu_util) AS n,
        sum(memory_percent) AS memory, count(memory_percent) AS m
    FROM now LEFT JOIN board USING (gpu_id) WHERE NOT silent GROUP BY 1, 2, 3, board_id
)
SELECT k.cluster, k.datacenter, k.model, k."GPUs", k.hosts, k.silent,
    sum(heat) / nullif(sum(warm), 0)::float8 AS "mean temperature", max(hottest) AS "highest temperature",
    sum(power) AS power, sum(without)::bigint AS "without power", sum(total) / nullif(sum(n), 0)::float8 AS utilisation,
    sum(h.memory) / nullif(sum(m), 0) AS memory
FROM (
    SELECT cluster, datacenter, model, count(*) AS "GPUs", count(DISTINCT hostname) AS hosts,
        count(*) FILTER (WHERE silent) AS silent FROM now GROUP BY 1, 2, 3
) k LEFT JOIN heard h ON (k.cluster, k.datacenter, k.model) IS NOT DISTINCT FROM (h.cluster, h.datacenter, h.model)
GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3"""
    columns: Overrides = {
        "/temperature$/": {**cell(style.TEMPERATURE, units.Celsius), "decimals": 0},
        "/^power$/": {"unit": units.Watt, "decimals": 2},
        "/^(utilisation|memory)$/": {"unit": units.Percent, "decimals": 0},
        "/^silent$/": cell(style.ANY_IS_BAD, style.COUNT),
        "/^without power$/": cell(style.ANY_IS_NOTABLE, style.COUNT),
    }
    panel = panels.table(
        "Clusters and models",
        "What there is, and how it does now. Silent GPUs count as GPUs only; GPUs without a power value are not in the "
        "sum of power, a GPU in MIG instances is in it once.",
        rows(sql),
        style.COUNT,
    )
    return panels.override(panel.span(24), columns)


# --- over time -------------------------------------------------------------------------------------------------------


def _place(level: Level) -> str:
    return f"m.{level.time} AS time, gpu.cluster, INTERVAL '{level.gap}' AS gap"


def _watts(level: Level) -> str:
    return f"{_place(level)}, {level.average('power_usage')} AS watts, m.gpu_id, board.board_id"


def over_time() -> list[AnyPanel]:
    power = f"""WITH {BOARDS}, each AS (
{read(_watts, with_board, FLEET)}
), boards AS (
SELECT time, cluster, {once("watts")} AS watts, max(gap) AS gap FROM each GROUP BY 1, 2, board_id
), sample AS (
SELECT time, coalesce(cluster, 'none') AS metric, sum(watts) AS value, max(gap) AS gap FROM boards GROUP BY 1, 2
)
{with_gaps(("value",), "metric")}"""
    reporting = f"""WITH {IN_FLEET}, each AS (
{read(_place, in_fleet, FLEET)}
), sample AS (
SELECT time, coalesce(cluster, 'none') AS metric, count(*) AS value, max(gap) AS gap FROM each GROUP BY 1, 2
)
{with_gaps(("value",), "metric")}"""
    level = (
        " Up to an hour every minute is read, up to two every other minute, up to two days every hour, up to a week "
        "every third hour, longer: days, and of today hours. The running hour is not in it; what is now is at the top."
    )
    return [
        panels.areas(
            "Power by cluster",
            "Mean power of each bucket, added up over the GPUs that report power: one that reports none is left out, "
            "a GPU in MIG instances counts once." + level,
            units.Watt,
            series(power),
        ).no_value(style.NOT_YET),
        panels.areas(
            "GPUs reporting",
            "GPUs and MIG instances with a sample in each bucket." + level,
            style.COUNT,
            series(reporting),
        ).no_value(style.NOT_YET),
    ]


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
