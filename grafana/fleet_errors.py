"""Fleet, "Errors": XIDs, and by how much the counters of errors grew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from grafana import panels, style
from grafana.fleet_gpus import BOARDS, LINKED, once, with_board
from grafana.panels import AnyPanel, rows, series
from grafana.resolution import ERRORS, FROM, TO, Level, counted, earlier, increases, shown
from grafana.selection import GPU_NAME, chosen
from services.contract.catalogue import COUNTERS, Unit

ERROR_COUNTERS: Final = tuple(m.column for m in COUNTERS if m.unit is Unit.COUNT and not m.column.endswith("agg_total"))
"""Counters of errors; the aggregate ECC counters repeat the volatile ones."""
LINK_ERRORS: Final = tuple(x for x in ERROR_COUNTERS if x.startswith(("pcie_", "nvlink_")))
MEMORY_ERRORS: Final = tuple(x for x in ERROR_COUNTERS if x not in LINK_ERRORS)
RESTARTS: Final = (
    "Counted from bucket to bucket, restarts of a counter included; from minutes up to half an hour, then hours, "
    "over a day days. The first and the last bar are the whole hour or day in which the range begins and ends. "
    "What MIG instances repeat of their GPU counts once."
)
Join = Callable[[Level], str]


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
    boards = ", ".join(f"{once(x)} AS {x}" for x in columns)
    grown = ", ".join(f"sum({x}) AS {x}" for x in columns)
    ctes, samples = fleet_increases(columns, "speaker", with_board)
    return f"""WITH {BOARDS}, {ctes}, each AS (
{samples}
), sample AS (
SELECT time, {boards} FROM each GROUP BY time, speaker
)
SELECT time, {grown} FROM sample GROUP BY 1 ORDER BY 1"""


# --- increases, the newest buckets from what they ended with ---------------------------------------------------------
#
# What `increases` gives, but the bucket in which the range ends and the one before are not put together from their
# samples: no aggregate has stored them yet, and for 1,000 GPUs that takes longer than everything else. An increase is
# what a counter ended with less what it ended with in the bucket before, so the newest sample and the last one of the
# bucket before are enough:
#
#   ... | stored: first, last, resets | `closing`: its last minute (or hour) | `newest`: v_latest_gpu_metrics
#       |                           before                               running                            now
#
# That holds for a GPU of which nothing was told that only its samples know (`plain`): no restart of a counter since,
# and each counter known or unknown at all three ends alike. Of the others, usually a handful, the samples are read.


def fleet_increases(columns: Sequence[str], carried: str, join: Join) -> tuple[str, str]:
    """CTEs, and a query of them: columns time, gpu_id, `carried`, one for each of `columns`, as in `increases`."""
    minutes, *longer = ERRORS
    names = ", ".join(columns)
    parts = [increases(columns, f"m.gpu_id, {carried}", join, ERRORS, only=0)]
    ctes = []
    for index, (level, finer) in enumerate(zip(longer, ERRORS, strict=False), start=1):
        ctes.append(_ends(columns, level, finer, join, shown(ERRORS, index)))
        parts.append(counted(columns, f"m.gpu_id, {carried}", f"FROM {_all(columns, level, carried, join, index)} m", level))
    selects = (f"SELECT time, gpu_id, {carried}, {names} FROM (\n{part}\n) {name}" for part, name in zip(parts, "mhd", strict=True))
    return ",\n".join(ctes), "\nUNION ALL\n".join(selects)
