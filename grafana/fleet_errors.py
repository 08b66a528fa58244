"""Fleet, "Errors": XIDs, and by how much the counters of errors grew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Final

from grafana_foundation_sdk.builders import common
from grafana_foundation_sdk.models import common as options

from grafana import counted, panels, style
from grafana.fleet_gpus import BOARDS, LINKED, WHERE, WHO, once
from grafana.panels import AnyPanel, Overrides, cell
from grafana.queries import rows, series
from grafana.resolution import ERRORS, FROM, TO, Level, earlier, increases, increases_of, only, shown
from grafana.selection import GPU_NAME, chosen, in_fleet
from services.contract.catalogue import COUNTERS, Unit

ERROR_COUNTERS: Final = tuple(m.column for m in COUNTERS if m.unit is Unit.COUNT and not m.column.endswith("agg_total"))
"""Counters of errors; the aggregate ECC counters repeat the volatile ones."""
NAMES: Final = MappingProxyType({
    "ecc_dbe_vol_total": "ECC uncorrected",
    "uncorrectable_remapped_rows": "remapped rows, uncorrected",
    "retired_dbe": "retired pages, double bit",
    "ecc_sbe_vol_total": "ECC corrected",
    "correctable_remapped_rows": "remapped rows, corrected",
    "retired_sbe": "retired pages, single bit",
    "pcie_replay_counter": "PCIe replays",
    "nvlink_crc_flit_error_count": "NVLink CRC, flow control",
    "nvlink_crc_data_error_count": "NVLink CRC, data",
    "nvlink_replay_error_count": "NVLink replays",
    "nvlink_recovery_error_count": "NVLink recoveries",
})  # fmt: skip
"""What legends call them; a counter that is not here has its column's name."""
UNCORRECTED: Final = ("ecc_dbe_vol_total", "uncorrectable_remapped_rows", "retired_dbe")
"""Data was lost, or a row or page given up for it: each is one too many. Worst first."""
NVLINK: Final = tuple(x for x in ERROR_COUNTERS if x.startswith("nvlink_"))
LINK_ERRORS: Final = tuple(x for x in ERROR_COUNTERS if x.startswith("pcie_")) + NVLINK
CORRECTED: Final = tuple(x for x in ERROR_COUNTERS if x not in (*LINK_ERRORS, *UNCORRECTED))
GREW: Final = (
    "Only counters that grew are in it; where none did, one line of zeros says of which. No value: nothing counts them."
)
RESTARTS: Final = (
    "Counted from bucket to bucket, restarts of a counter included; from minutes up to half an hour, then hours, "
    "over a day days. The first and the last bar are the whole hour or day in which the range begins and ends. "
    "What MIG instances repeat of their GPU counts once."
)

XID_STEP: Final = f"greatest(({TO} - {FROM}) / 100, INTERVAL '1 minute')"
"""A hundredth of the range: bars of a dozen pixels."""


def errors() -> list[AnyPanel]:
    xids = f"""WITH value AS (
    SELECT time_bucket({XID_STEP}, e.time) AS time, 'XID ' || e.code AS metric, count(*)::float8 AS value
    FROM gpu_events e JOIN gpus g ON g.gpu_id = e.gpu_id
    WHERE e.kind = 'xid' AND $__timeFilter(e.time) AND {chosen()} GROUP BY 1, 2
)
SELECT time, metric, value FROM value
UNION ALL
{counted.width(XID_STEP)}
ORDER BY 1, 2"""
    return [
        panels.bars(
            "XIDs", "XID errors by code. docs/xids.md says what each means and what to do.",
            style.COUNT, series(xids)).span(6).no_value(style.NONE),
        _growth(
            "Uncorrected memory errors",
            "By how much the counters of uncorrectable ECC errors, and of pages and rows given up for them, grew.",
            UNCORRECTED,
        ),
        _growth(
            "Corrected memory errors",
            "By how much the counters of corrected ECC errors, and of pages and rows given up for them, grew.",
            CORRECTED,
        ),
        _growth(
            "Link errors", "By how much the counters of PCIe replays and NVLink errors grew.", LINK_ERRORS
        ),
        most_errors(),
        recent_xids(),
    ]  # fmt: skip


def _growth(title: str, description: str, columns: Sequence[str]) -> AnyPanel:
    panel = panels.bars(title, f"{description} {GREW} {RESTARTS}", style.COUNT, series(_errors(columns))).span(6)
    legend = common.VizLegendOptions().show_legend(True).placement(options.LegendPlacement.BOTTOM)
    legend.display_mode(options.LegendDisplayMode.TABLE).calcs(["sum"]).sort_by("Total").sort_desc(True)
    # Where the only bar begins before the range Grafana sees zeros, and has the axis go to 100: one error is a pixel.
    return panel.legend(legend).axis_soft_max(5)


def most_errors() -> AnyPanel:
    """A board's row: what its counters grew by over the range. Rows without any growth are left out before they are
    grouped, which is nearly all of them."""
    ctes, increases = fleet_increases(ERROR_COUNTERS, in_fleet)
    boards = ", ".join(f"max({x}) AS {x}" for x in ERROR_COUNTERS)
    total = ", ".join(f"sum({x}) AS {x}" for x in ERROR_COUNTERS)
    shown = {NAMES.get(x, x): f"e.{x}" for x in (*UNCORRECTED, *CORRECTED, "pcie_replay_counter")}
    shown["NVLink"] = _sum_of_known([f"e.{x}" for x in NVLINK])
    values = ", ".join(f'{value} AS "{name}"' for name, value in shown.items())
    order = ", ".join(f'"{name}" DESC NULLS LAST' for name in shown)
    sql = f"""WITH {BOARDS}, {ctes}, sample AS MATERIALIZED (
{increases}
), grown AS (
    SELECT coalesce(board_id, gpu_id) AS gpu_id, time, {boards} FROM sample LEFT JOIN board USING (gpu_id)
    WHERE greatest({", ".join(ERROR_COUNTERS)}) > 0 GROUP BY 1, 2
), each AS (
    SELECT gpu_id, {total} FROM grown GROUP BY 1
), listed AS (
    SELECT {WHO}, {values}, {WHERE}, g.gpu_id FROM each e JOIN gpus g USING (gpu_id)
    ORDER BY {order} LIMIT 20
)
SELECT * FROM listed
UNION ALL
SELECT 'None', {", ".join("NULL" for _ in range(len(shown) + 5))}
WHERE NOT EXISTS (SELECT FROM listed) AND EXISTS (
    SELECT FROM sample WHERE coalesce({", ".join(ERROR_COUNTERS)}) IS NOT NULL)"""
    unknown = {"mappings": [panels.unknown("transparent", "")]}
    columns: Overrides = {
        "/.*/": {**unknown, "custom.wrapHeaderText": True},
        f"/^({'|'.join(shown)})$/": {"custom.width": 112},
        f"/^({'|'.join(NAMES[x] for x in UNCORRECTED)})$/": {**cell(style.ANY_IS_BAD, style.COUNT), **unknown},
        **LINKED,
    }
    panel = panels.table(
        "GPUs with most errors",
        "The twenty GPUs whose counters grew most within the time range: by uncorrected memory errors first, then "
        "corrected ones, then PCIe and NVLink. An empty cell: not known. None: what is counted did not grow. "
        + RESTARTS,
        rows(sql), style.COUNT)  # fmt: skip
    return panels.override(panel.span(24), columns)


def _sum_of_known(values: Sequence[str]) -> str:
    """SQL: NULL where none is known."""
    total = " + ".join(f"coalesce({value}, 0)" for value in values)
    return f"CASE WHEN coalesce({', '.join(values)}) IS NOT NULL THEN {total} END"


def recent_xids() -> AnyPanel:
    sql = f"""SELECT e.time, e.hostname AS host, {GPU_NAME.format(at="g")} AS "GPU", e.code AS "XID",
    e.detail ->> 'meaning' AS meaning, e.detail ->> 'severity' AS severity,
    e.detail ->> 'immediate_action' AS "do now", g.gpu_id
FROM gpu_events e JOIN gpus g ON g.gpu_id = e.gpu_id
WHERE e.kind = 'xid' AND $__timeFilter(e.time) AND {chosen()} ORDER BY e.time DESC LIMIT 100"""
    panel = panels.table(
        "Recent XIDs", "The newest hundred XIDs within the time range, and what to do. docs/xids.md has all.", rows(sql)
    )
    return panels.override(panel.span(24).no_value(style.NONE), {"/^severity$/": panels.severity(), **LINKED})


def _errors(columns: Sequence[str]) -> str:
    """Zeros, which nearly all are, are added up apart: a board's place in the fleet is asked only of what grew."""
    ctes, increases = fleet_increases(columns, in_fleet)
    boards = ", ".join(f"{once(x)} AS {x}" for x in columns)
    grown = ", ".join(f"sum({x}) AS {x}" for x in columns)
    return f"""WITH {BOARDS}, {ctes}, sample AS MATERIALIZED (
{increases}
), boards AS (
    SELECT time, {boards} FROM sample LEFT JOIN board USING (gpu_id)
    WHERE greatest({", ".join(columns)}) > 0 GROUP BY time, board_id
    UNION ALL SELECT time, {grown} FROM sample WHERE coalesce(greatest({", ".join(columns)}), 0) <= 0 GROUP BY time
), fleet AS (
    SELECT time, {grown} FROM boards GROUP BY 1
){counted.bars({NAMES.get(x, x): x for x in columns}, "fleet", ERRORS, grown=True)}"""


# --- increases, the newest two buckets from what they ended with -----------------------------------------------------
#
# No aggregate has stored the bucket in which the range ends, and perhaps not the one before. For 1,000 GPUs putting
# them together from 60,000 and more minutes takes longer than everything else. But an increase is what a counter
# ended with less what it ended with in the bucket before, so two samples are enough:
#
#     ... before | last: its end is the last minute (of a day: the last hour) | running: its end is the newest sample
#
# That holds for a GPU of which there is nothing that only its samples would tell (`plain`): no restart of a counter was
# written down since, and each counter is known at all three ends or at none. Of the others, usually a handful, the
# samples are read. (A counter that is known in between only, at none of the ends, stays unknown here.)


def fleet_increases(columns: Sequence[str], join: Callable[[Level], str]) -> tuple[str, str]:
    """CTEs, and the query that reads them. Gives what `increases` does: columns time, gpu_id, gap, and `columns`."""
    minutes, *longer = ERRORS
    ctes, parts = [], [increases(columns, join, (minutes,))]
    for index, level in enumerate(longer):
        within = f"{only(level)} AND {shown(ERRORS, index + 1)}"
        finer, is_shown = ERRORS[index], shown(ERRORS, index + 1)
        ctes += [_end(columns, level, finer, join, within), _newest(columns, level, finer, join, is_shown)]
        parts.append(increases_of(columns, level, f"({_buckets(columns, level, join, within)}) m"))
    return ", ".join(ctes), "\nUNION ALL\n".join(parts)


def _end(columns: Sequence[str], level: Level, finer: Level, join: Callable[[Level], str], within: str) -> str:
    """CTE: what the two buckets before the running one ended with."""
    lasts = ", ".join(f"m.last_{x}" for x in columns)
    return f"""{level.step}_end AS MATERIALIZED (
    SELECT m.gpu_id, m.bucket, {lasts}, {_unknown("m.last_", columns)} AS unknown FROM {finer.relation} m {join(finer)}
        AND m.bucket IN ({_before(level, finer)}, {_last(level, finer)}) AND {within}
)"""


def _newest(columns: Sequence[str], level: Level, finer: Level, join: Callable[[Level], str], is_shown: str) -> str:
    """CTE: newest samples in the last and the running bucket, and whether they and `_end` will do. Of a range that ends
    in the past they say nothing. CASE keeps the planner from comparing each GPU with each."""
    names, step = ", ".join(f"m.{x}" for x in columns), level.step
    ends = f"(SELECT e.gpu_id, e.bucket, e.unknown FROM {step}_end e)"
    return f"""{step}_newest AS MATERIALIZED (
    SELECT *, CASE
        WHEN n.time >= {level.ago(f"-1 {step}")} OR n.gpu_id IN (SELECT e.gpu_id FROM gpu_events e
            WHERE e.kind = 'counter_reset' AND e.time >= {level.ago(f"1 {step}")} AND e.gpu_id IS NOT NULL) THEN false
        WHEN n.time >= {level.running} AND (n.gpu_id, {_last(level, finer)}, n.unknown) NOT IN {ends} THEN false
        ELSE (n.gpu_id, {_before(level, finer)}, n.unknown) IN {ends} END AS plain
    FROM (
        SELECT m.gpu_id, m.time, {names}, {_unknown("m.", columns)} AS unknown
        FROM v_latest_gpu_metrics m {join(level)} AND m.time >= {level.ago(f"1 {step}")}
            AND m.time <= CASE WHEN {is_shown} THEN 'infinity'::timestamptz ELSE '-infinity' END
    ) n
)"""


def _last(level: Level, finer: Level) -> str:
    """The last minute (of a day: hour) of the last bucket."""
    return level.ago(f"1 {finer.step}")


def _before(level: Level, finer: Level) -> str:
    """That of the bucket before it."""
    return level.ago(f"1 {level.step} 1 {finer.step}")


def _buckets(columns: Sequence[str], level: Level, join: Callable[[Level], str], within: str) -> str:
    """All buckets of a level: those before the last two; of these the ends; and as samples where that will not do.

    Of the ten before the range only the last is read, which is enough but for a GPU that was silent in it: a quarter
    of all there is to read for a day of hours, half for a week of days.
    """
    full = ", ".join(f"m.first_{x}, m.last_{x}, m.resets_{x}" for x in columns)
    last, newest = (", ".join(f"NULL, m.{end}{x}, NULL" for x in columns) for end in ("last_", ""))
    step, running, begin = level.step, level.running, level.ago(f"1 {level.step}")
    before = earlier(level.first, f"1 {level.step}")
    return f"""
    SELECT m.bucket, m.gpu_id, {full} FROM {level.relation} m {join(level)}
        AND {level.since_before()} AND m.bucket < {begin} AND {within} AND (m.bucket >= {before}
        OR m.gpu_id NOT IN (SELECT m.gpu_id FROM {level.relation} m
            WHERE m.bucket >= {before} AND m.bucket < {level.first}))
    UNION ALL SELECT {begin}, m.gpu_id, {last} FROM {step}_end m JOIN {step}_newest n USING (gpu_id)
        WHERE n.plain AND n.time >= {running} AND m.bucket >= {begin}
    UNION ALL SELECT CASE WHEN m.time < {running} THEN {begin} ELSE {running} END, m.gpu_id, {newest}
        FROM {step}_newest m WHERE m.plain
    UNION ALL SELECT m.bucket, m.gpu_id, {full} FROM {level.relation} m
        WHERE m.bucket >= {begin} AND {within}
        AND m.gpu_id = ANY (ARRAY(SELECT n.gpu_id FROM {step}_newest n WHERE NOT n.plain))
"""


def _unknown(prefix: str, columns: Sequence[str]) -> str:
    """Which of the counters have no value: an array of booleans."""
    return f"ARRAY[{', '.join(f'{prefix}{x} IS NULL' for x in columns)}]"
