"""Dashboard "Fleet": all GPUs at once; where to look first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import units

from grafana import panels, style
from grafana.fleet_attention import attention
from grafana.fleet_errors import errors
from grafana.fleet_gpus import BOARDS, CARDS, HOST_LINK, NOW, NOW_AND_BOARDS, once, with_board
from grafana.fleet_worst import hottest, lost, most_throttled
from grafana.frame import FLEET_UID, page, postgres_variable
from grafana.gaps import with_gaps
from grafana.panels import AnyPanel, Overrides, cell, steps
from grafana.presence import AND_LOST
from grafana.queries import POSTGRES, rows, series
from grafana.resolution import FLEET, Level, read
from grafana.selection import CLUSTER, HOSTS, MODEL
from services.contract.clocks_event import THROTTLING

SLOTS: Final = 16
"""GPUs of the largest single host (HGX with two baseboards); a host's hottest GPU has a column of its own anyway."""
NO_SLOT: Final = (
    dashboard.QueryVariable("no_slot").label("Columns without a GPU").datasource(POSTGRES)
    .description("Columns of the temperature map that no host of the inventory needs. Hidden.")
    .refresh(models.VariableRefresh.ON_DASHBOARD_LOAD).hide(models.VariableHide.HIDE_VARIABLE)
    .query(f"""SELECT string_agg(slot::text, ',' ORDER BY slot) FROM generate_series(0, {SLOTS - 1}) slot
WHERE slot > (SELECT max(gpu_index) FROM gpus) HAVING count(*) > 0""")
)  # fmt: skip
WITHOUT_EMPTY: Final = models.DataTransformerConfig(
    id_val="filterFieldsByName", options={"byVariable": True, "exclude": {"variable": "${no_slot}"}}
)
"""Leaves out the columns it names: columns of SQL are what they are, and a fleet of 8 would have 8 empty ones."""
MARK_UNKNOWN, MARK_SILENT, MARK_LOST = -997, -998, -999
"""What stands for a temperature in the map, of a GPU that has none: below absolute zero, so that it cannot be one. A
column is numbers, coloured by thresholds, or texts; words in it are values that are mapped."""
MARKS: Final = panels.text_map({
    str(MARK_UNKNOWN): ("?", style.GREY), str(MARK_SILENT): ("silent", style.RED), str(MARK_LOST): ("lost", style.RED),
})  # fmt: skip
WITHOUT_POWER: Final = (
    "CASE WHEN board_id IS NULL THEN count(*) FILTER (WHERE power IS NULL) ELSE (max(power) IS NULL)::int END"
)
"""How many GPUs have no power value; of a board in instances it is enough that one has. In a query as for `once`."""
_HELD: Final = f"count(*) FILTER (WHERE clocks_event_reasons & {THROTTLING} <> 0)"
THROTTLED: Final = f"CASE WHEN board_id IS NULL THEN {_HELD} ELSE sign({_HELD})::int END"
"""How many are held back; a board in instances once, since each of them may repeat its reasons."""

SMALL: Final = common.VizTextDisplayOptions().value_size(20).title_size(13)
"""px, of six numbers in a third of the page: Grafana's own choice goes down to 9 px."""

# --- now -------------------------------------------------------------------------------------------------------------


def counts() -> list[AnyPanel]:
    gpus = f"""WITH {CARDS}
SELECT count(*) AS "GPUs", count(DISTINCT c.hostname) AS hosts,
    count(*) FILTER (WHERE NOT c.silent AND l.gpu_uuid IS NULL) AS reporting,
    count(*) FILTER (WHERE c.silent AND l.gpu_uuid IS NULL) AS silent, count(l.gpu_uuid) AS lost,
    (SELECT count(instance_id) FROM inventory) AS "MIG"
FROM card c {AND_LOST}"""
    now = f"""WITH {NOW_AND_BOARDS}, boards AS (
    SELECT max(gpu_temp) AS hottest, {once("power")} AS power, {WITHOUT_POWER} AS without,
        sum(gpu_util) AS total, count(gpu_util) AS n, count(clocks_event_reasons) AS told, {THROTTLED} AS throttled
    FROM now LEFT JOIN board USING (gpu_id) WHERE NOT silent GROUP BY board_id
)
SELECT max(hottest) AS hottest, sum(power) AS power, sum(without)::bigint AS "without power",
    sum(total) / nullif(sum(n), 0)::float8 AS utilisation,
    CASE WHEN sum(told) > 0 THEN sum(throttled)::bigint END AS throttled FROM boards"""
    age = f"""WITH {CARDS}
SELECT
    extract(epoch FROM percentile_disc(0.5) WITHIN GROUP (ORDER BY age) FILTER (WHERE age >= '0'))::float8 AS median,
    extract(epoch FROM max(age) FILTER (WHERE age >= '0'))::float8 AS oldest,
    CASE WHEN count(*) > 0 THEN greatest(extract(epoch FROM -min(age)), 0)::float8 END AS ahead
FROM (SELECT now() - newest AS age FROM card WHERE NOT silent) newest"""
    return [
        panels.override(panels.number(
            "GPUs", "GPUs of the inventory, how many report, how many are silent (no sample for five minutes, or "
            "one since their exporter is down, or never one), and how many were reported lost, and are not back. A GPU "
            "in MIG instances is one; what a new partition took away, and a board whose place "
            "another has, are not counted. MIG: instances.",
            style.COUNT, rows(gpus)).span(9).text(SMALL), {"/^(silent|lost)$/": steps(style.ANY_IS_BAD)}),
        panels.override(panels.number(
            "Now", "Of the GPUs that report: highest temperature; power in all, a GPU in MIG instances counted once; "
            "how many have no power value, so that it is not in the sum; mean utilisation of GPUs and instances; how "
            "many GPUs throttle.",
            style.COUNT, rows(now)).span(9).text(SMALL),
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
    slots = ", ".join(f'max(shown) FILTER (WHERE gpu_index = {slot}) AS "{slot}"' for slot in range(SLOTS))
    sql = f"""WITH {NOW}, card AS (
    SELECT cluster, rack, hostname, gpu_uuid, min(gpu_index) AS gpu_index, count(instance_id) AS instances,
        bool_and(silent) AS silent, max(newest) AS newest, max(gpu_temp) FILTER (WHERE NOT silent) AS temp
    FROM now GROUP BY 1, 2, 3, 4
)
SELECT cluster, rack, hostname AS host, count(*) AS "GPUs", nullif(sum(instances), 0)::bigint AS "MIG",
    count(*) FILTER (WHERE shown IN ({MARK_LOST}, {MARK_SILENT})) AS silent, max(temp) AS hottest, {slots}
FROM (
    SELECT c.*, CASE WHEN l.gpu_uuid IS NOT NULL THEN {MARK_LOST} WHEN c.silent THEN {MARK_SILENT}
        ELSE coalesce(c.temp, {MARK_UNKNOWN}) END AS shown
    FROM card c {AND_LOST}
) c GROUP BY 1, 2, 3
ORDER BY bool_or(shown IN ({MARK_LOST}, {MARK_SILENT})) DESC, max(temp) DESC NULLS LAST, 1, 2, 3"""
    columns: Overrides = {
        "/^(\\d+|hottest)$/": cell(style.TEMPERATURE, units.Celsius),
        "/^\\d+$/": {"custom.width": 56, "mappings": [MARKS, panels.unknown("transparent", "")]},
        "/^(rack|GPUs|MIG|silent|hottest)$/": {"custom.width": 68},
        "/^(rack|MIG)$/": {"mappings": [panels.unknown("transparent", "")]},
        "/^silent$/": {**cell(style.ANY_IS_BAD, style.COUNT), "custom.width": 68},
        "/^host$/": HOST_LINK,
    }
    panel = panels.table(
        "Temperature map",
        "Cluster, rack, host, and the temperature of GPU 0, 1, 2, ... now; hosts with a silent or lost GPU first, then "
        "the hottest. Silent: no sample for five minutes, or one since its exporter is down, or never one. Lost: "
        "reported gone, and not back; it counts as silent here. ?: reports, but no temperature. An empty cell: no "
        "such GPU. MIG: how many instances its GPUs are cut into.",
        rows(sql), style.COUNT)  # fmt: skip
    return panels.override(panel.span(24).height(10).with_transformation(WITHOUT_EMPTY), columns)


def by_model() -> AnyPanel:
    sql = f"""WITH {NOW_AND_BOARDS}, heard AS (
    SELECT cluster, datacenter, model, max(gpu_temp) AS hottest, sum(gpu_temp) AS heat, count(gpu_temp) AS warm,
        {once("power")} AS power, {WITHOUT_POWER} AS without, sum(gpu_util) AS total, count(gpu_util) AS n,
        sum(memory_percent) AS memory, count(memory_percent) AS m
    FROM now LEFT JOIN board USING (gpu_id) WHERE NOT silent GROUP BY 1, 2, 3, board_id
)
SELECT k.cluster, k.datacenter, k.model, k."GPUs", k."MIG", k.hosts, k.silent,
    sum(heat) / nullif(sum(warm), 0)::float8 AS mean, max(hottest) AS hottest,
    sum(power) AS power, sum(without)::bigint AS "without power", sum(total) / nullif(sum(n), 0)::float8 AS utilisation,
    sum(h.memory) / nullif(sum(m), 0) AS memory
FROM (
    SELECT cluster, datacenter, model, count(*) AS "GPUs", nullif(sum(instances), 0)::bigint AS "MIG",
        count(DISTINCT hostname) AS hosts, count(*) FILTER (WHERE silent) AS silent
    FROM (
        SELECT cluster, datacenter, model, hostname, gpu_uuid, count(instance_id) AS instances,
            bool_and(silent) AS silent
        FROM now GROUP BY 1, 2, 3, 4, 5
    ) card GROUP BY 1, 2, 3
) k LEFT JOIN heard h ON (k.cluster, k.datacenter, k.model) IS NOT DISTINCT FROM (h.cluster, h.datacenter, h.model)
GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3"""
    columns: Overrides = {
        "/.*/": {"custom.wrapHeaderText": True},
        "/^(mean|hottest)$/": {**cell(style.TEMPERATURE, units.Celsius), "decimals": 0},
        "/^power$/": {"unit": units.Watt, "decimals": 2},
        "/^(utilisation|memory)$/": {"unit": units.Percent, "decimals": 0},
        "/^MIG$/": {"mappings": [panels.unknown("transparent", "")], "custom.width": 85},
        "/^silent$/": cell(style.ANY_IS_BAD, style.COUNT),
        "/^without power$/": cell(style.ANY_IS_NOTABLE, style.COUNT),
    }
    panel = panels.table(
        "Clusters and models",
        "What there is, and how it does now: mean and highest temperature of the GPUs, and so on. MIG: how many "
        "instances GPUs are cut into. Silent GPUs, lost ones among them, count as GPUs only; GPUs without a power "
        "value are not in the sum of power, a GPU in MIG instances is in it once.",
        rows(sql),
        style.COUNT,
    )
    return panels.override(panel.span(24), columns)


# --- over time -------------------------------------------------------------------------------------------------------


def _place(level: Level) -> str:
    return f"m.{level.time} AS time, gpu.cluster, INTERVAL '{level.gap}' AS gap"


def _placed(level: Level) -> str:
    return f"{_place(level)}, board.board_id"


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
    reporting = f"""WITH {BOARDS}, each AS (
{read(_placed, with_board, FLEET)}
), sample AS (
SELECT time, coalesce(cluster, 'none') AS metric, max(gap) AS gap,
    count(*) FILTER (WHERE board_id IS NULL) + count(DISTINCT board_id) FILTER (WHERE board_id IS NOT NULL) AS value
FROM each GROUP BY 1, 2
)
{with_gaps(("value",), "metric")}"""
    level = (
        " Over six hours it ends with the last whole hour; what is now is at the top. Up to an hour every minute is "
        "read, up to two every other, up to six every sixth minute, up to two days every hour, up to a week every "
        "third hour, longer: days, and of today hours."
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
            "GPUs with a sample in each bucket; a GPU in MIG instances is one." + level,
            style.COUNT,
            series(reporting),
        ).no_value(style.NOT_YET),
    ]


def build() -> models.Dashboard:
    sections: Sequence[tuple[str, Sequence[AnyPanel]]] = [
        ("", [*counts(), attention(), map_of_hosts()]),
        ("Worst first", [hottest(), most_throttled(), *lost()]),
        ("Over time", over_time()),
        ("Errors", errors()),
        ("Inventory", [by_model()]),
    ]
    return page(
        FLEET_UID,
        "All GPUs: temperature, throttling, power, errors, and who is missing.",
        variables=[postgres_variable(), CLUSTER, HOSTS, MODEL, NO_SLOT],
        sections=sections,
        since="now-2h",
    )
