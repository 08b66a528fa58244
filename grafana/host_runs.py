"""What the operator said the host was doing, and what was measured then: two tables of "Host"."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from grafana_foundation_sdk.models import units

from grafana import panels, samples, style
from grafana.frame import HOST_UID, KEEP_SOURCE
from grafana.panels import HIDDEN, AnyPanel, Overrides, Properties, cell, link
from grafana.queries import rows
from grafana.resolution import FROM, PER_GPU, SILENT, TO, earlier, only, shown

WHAT_TO_DO: Final = 'None within the time range. To have one: gpumon status set bench "fan=25%", on the host'
THEN: Final = (
    f"/d/{HOST_UID}?{KEEP_SOURCE}&var-host=${{host:percentencode}}"
    "&from=${__data.fields.begin_ms}&to=${__data.fields.end_ms}"
)
"""This dashboard at the time of a row."""
LOOK_BACK: Final = SILENT
"""What a sample said so long before a change was still so."""
FILTER: Final[Properties] = {"custom.filterable": True}
STATUS: Final[Properties] = {"mappings": [panels.statuses()], "custom.cellOptions": {"type": "color-text"}}
COLUMNS: Final[Overrides] = {
    "/.*/": {"noValue": style.NO_VALUE},  # else an empty cell reads what a table without rows reads
    "/^(status|memo|GPU)$/": FILTER,
    "/^(before|status)$/": STATUS,
    "/^(duration|lasted)$/": {"unit": units.Seconds, "custom.width": 95},
    "/^(begin|end)_ms$/": HIDDEN,
}


def ends(begin: str, end: str) -> str:
    """SQL: two columns for `THEN`, ms since 1970; a minute before and after, to see what was around."""
    return (
        f"floor(extract(epoch FROM {begin} - INTERVAL '1 minute') * 1000)::bigint AS begin_ms, "
        f"ceil(extract(epoch FROM {end} + INTERVAL '1 minute') * 1000)::bigint AS end_ms"
    )


def sampled_before() -> str:
    """SQL: what the newest sample before `changes.time` was told the host was doing, at most five minutes before. Of
    minutes the one of the change is left out: it ended with the new status."""
    ladder = (PER_GPU[0], replace(PER_GPU[1], upto=None, dropped=False))
    branches = "\n        UNION ALL\n".join(
        f"""        SELECT m.{level.time} AS time, {level.last("status_tag")} AS tag FROM {level.relation} m JOIN stay h
            ON h.gpu_id = m.gpu_id AND (h.earliest OR m.{level.time} >= h.valid_from)
            AND (h.valid_to IS NULL OR m.{level.time} < h.valid_to)
        WHERE m.gpu_id BETWEEN (SELECT min(gpu_id) FROM stay) AND (SELECT max(gpu_id) FROM stay)
            AND m.{level.time} >= {earlier(FROM, LOOK_BACK)} AND {only(level)} AND {shown(ladder, index)}
            AND m.{level.time} >= {moment} - INTERVAL '{LOOK_BACK}' AND m.{level.time} < {moment}"""
        for index, level in enumerate(ladder)
        for moment in ("changes.time" if level.raw else "time_bucket(INTERVAL '1 minute', changes.time)",)
    )
    return f"(SELECT tag FROM (\n{branches}\n    ) said WHERE tag IS NOT NULL ORDER BY time DESC LIMIT 1)"


def status_changes() -> AnyPanel:
    # The last change before the range is the first row's "before", of the very first a sample: what the collector found
    # when it started no event tells. After the newest, the tag holds until now.
    sql = f"""WITH stay AS MATERIALIZED (
    SELECT gpu_id, earliest, valid_from, valid_to FROM gpu_history WHERE hostname IN (${{host:sqlstring}})
)
SELECT time, CASE WHEN number > 1 THEN before ELSE {sampled_before()} END AS before,
    status, memo, extract(epoch FROM until - time)::float8 AS lasted, {ends("time", "until")}
FROM (
    SELECT e.time, row_number() OVER w AS number, lag(e.detail ->> 'tag') OVER w AS before,
        e.detail ->> 'tag' AS status, e.detail ->> 'memo' AS memo,
        lead(e.time, 1, least(now(), {TO})) OVER w AS until
    FROM gpu_events e WHERE e.kind = 'status' AND e.hostname IN (${{host:sqlstring}}) AND e.time <= {TO}
    WINDOW w AS (ORDER BY e.time)
) changes WHERE time >= {FROM} ORDER BY time DESC LIMIT 100"""
    panel = panels.table(
        "Recent Status Changes",
        "When the operator changed the status, to what, and how long it held. A click on status or memo shows that "
        "time.",
        rows(sql),
    ).no_value(WHAT_TO_DO)
    return panels.override(panel.span(24), {**COLUMNS, "/^(status|memo)$/": link("This time", THEN)})


def runs() -> AnyPanel:
    sql = f"""{samples.runs()}SELECT tag AS status, memo, name AS "GPU", begin AS "from", until AS "to",
    extract(epoch FROM until - begin)::float8 AS duration, start AS "start temperature", peak AS "peak temperature",
    peak - start AS rise, mean AS "average temperature", watts AS "average power", samples, {ends("begin", "until")}
FROM (SELECT *, CASE WHEN whole THEN at_begin END AS start FROM run) measured ORDER BY begin DESC, name"""
    columns: Overrides = {
        **COLUMNS,
        "/temperature$/": {**cell(style.TEMPERATURE, units.Celsius), "decimals": 1, "custom.width": 148},
        "/^average temperature$/": {"custom.width": 168},
        "/^rise$/": {"unit": units.Kelvin, "decimals": 1, "custom.width": 80},
        "/power$/": {"unit": units.Watt, "decimals": 0, "custom.width": 120},
        "/^samples$/": {"custom.width": 95},
        "/^memo$/": link("This run", THEN),
    }
    panel = panels.table(
        "Runs by memo",
        'What was measured under each memo (`gpumon status set bench "fan=25%"`): compare runs by it. For last week\'s '
        "run widen the time range; the funnel in a column's head leaves the runs that matter; a click on a memo shows "
        "the time of that run. A memo used again is a row again. Rise: peak less start, in kelvin (a difference of one "
        "is one of 1 C). A run that began before the time range is shown from there on, and its start temperature is "
        "unknown; so is that of every run over two days, where averages of an hour are read." + samples.LAST_WORD,
        rows(sql),
    ).no_value(WHAT_TO_DO)
    return panels.override(panel.span(24).height(10), columns)
