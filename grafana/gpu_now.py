"""The head of "GPU detail": whether the GPU reports and if not why, what it is, its newest values."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.models import units

from grafana import panels, style, throttle
from grafana.frame import card_url, host_url
from grafana.gpu_events import BLANK
from grafana.panels import HIDDEN, AnyPanel, Overrides, link, steps
from grafana.presence import GONE, REPORTS, SAMPLE_NOW, STATES, presence
from grafana.queries import rows, series
from grafana.selection import CARD, GPU_NAME
from services.contract.clocks_event import THROTTLING

_BOARD: Final = "g.gpu_uuid = (SELECT gpu_uuid FROM gpu)"
_SIBLING: Final = """sibling AS (
    SELECT g.gpu_id, g.instance_id, p.gpu_id IS NOT NULL AS there, p.state = 'reports' AS reports
    FROM gpus g LEFT JOIN presence p USING (gpu_id) WHERE g.gpu_uuid = (SELECT gpu_uuid FROM gpu)
)"""


def state() -> AnyPanel:
    """One row, of now, whatever the time range."""
    sql = f"""WITH {CARD}, {presence(_BOARD)}, {_SIBLING}
SELECT coalesce(p.state, '{GONE}') AS state, p.since, p.why, g.model, {_mig()} AS "MIG",
    g.hostname AS host, {GPU_NAME.format(at="g")} AS "GPU",
    CASE WHEN {REPORTS} THEN {_or_none("concat_ws('/', v.namespace, v.pod)")} END AS tenant,
    v.clocks_event_reasons & {THROTTLING} AS throttled,
    CASE WHEN {REPORTS} THEN {_or_none("concat_ws(': ', upper(v.status_tag), v.status_memo)")} END AS status,
    (SELECT s.gpu_id FROM sibling s WHERE (s.instance_id IS NULL) <> (g.instance_id IS NULL)
        ORDER BY there DESC, gpu_id LIMIT 1) AS relative
FROM gpu g LEFT JOIN presence p ON p.gpu_id = g.gpu_id {SAMPLE_NOW}"""
    panel = panels.table(
        "State",
        "Now, whatever the time range: whether it reports, else since when it does not and why; who holds it, what "
        "holds its clocks back, what the host is doing. Gone: a new partition took the MIG instance away, the board "
        "is told only by its instances, or another board is at its place. A click on MIG leads from an instance to its "
        "board and back.",
        rows(sql),
    )
    return panels.override(panel.span(24).height(4), _columns())


def _or_none(words: str) -> str:
    return f"coalesce(nullif({words}, ''), 'none')"


def _mig() -> str:
    """Of an instance its profile, of a board how many it has."""
    return """CASE WHEN g.instance_id IS NOT NULL THEN concat_ws(' ', g.instance_profile, 'of GPU', g.gpu_index)
        ELSE (SELECT CASE WHEN count(*) > 0 THEN count(*) FILTER (WHERE s.reports) || ' of ' || count(*) || ' report'
            END FROM sibling s WHERE s.instance_id IS NOT NULL AND s.there) END"""


def _columns() -> Overrides:
    relative = card_url("${__data.fields.host:percentencode}", "${__data.fields.relative}")
    coloured = {"type": "color-background", "mode": "basic"}
    return {
        "/^state$/": {"mappings": [panels.text_map(STATES)], "custom.cellOptions": coloured, "custom.width": 120},
        "/^(since|why|MIG)$/": BLANK,
        "/^why$/": {"custom.width": 260},
        "/^host$/": link("Host", host_url("${__data.fields.host:percentencode}")),
        "/^MIG$/": {**link("Its board, or its first instance", relative), "custom.width": 145},
        "/^throttled$/": {
            "mappings": [throttle.mapping(), panels.unknown()],
            "custom.cellOptions": {"type": "color-text"},
            "custom.align": "left",  # numbers are on the right, and these are shown as words, cut at their begin
            "custom.width": 190,
        },
        "/^status$/": {"custom.width": 160},
        "/^relative$/": HIDDEN,
    }


_NOW: Final = {
    "GPU temperature": ("gpu_temp", "v.gpu_temp"),
    "Memory temperature": ("memory_temp", "v.memory_temp"),
    "Power": ("power_usage", "v.power_usage"),
    "GPU utilisation": ("gpu_util", "v.gpu_util"),
    "Memory used": ("fb_used", "v.memory_percent"),
    "SM clock": ("sm_clock", "v.sm_clock"),
    "Graphics engine active": ("gr_engine_active", "100 * v.gr_engine_active"),
}
"""Tile -> metric, and its value."""


def now() -> list[AnyPanel]:
    """A tile for each metric of the board, with or without a value; of an instance, and of activity, for each value."""
    tiles = ", ".join(
        f"({place}, '{name}', '{metric}', ({value})::float8)"
        for place, (name, (metric, value)) in enumerate(_NOW.items())
    )
    values = f"""WITH {CARD}, {presence(_BOARD)}
SELECT coalesce(v.time, now()) AS time, tile.name AS metric, CASE WHEN {REPORTS} THEN tile.value END AS value
FROM v_latest_gpu_metrics v JOIN gpu ON gpu.gpu_id = v.gpu_id LEFT JOIN presence p ON p.gpu_id = v.gpu_id,
    LATERAL (VALUES {tiles}) tile (place, name, metric, value)
WHERE tile.value IS NOT NULL OR v.instance_id IS NULL AND tile.metric <> 'gr_engine_active'
    AND gpu.missing ->> tile.metric IS DISTINCT FROM 'unsupported'
ORDER BY 1, tile.place"""
    age = f"""WITH {CARD} SELECT extract(epoch FROM v.age)::float8 AS age
FROM v_latest_gpu_metrics v WHERE v.gpu_id = (SELECT gpu_id FROM gpu)"""
    kinds: Overrides = {
        "/temperature$/": {"unit": units.Celsius, **steps(style.TEMPERATURE)},
        "/^Power$/": {"unit": units.Watt},
        "/^(GPU utilisation|Memory used|Graphics engine active)$/": {"unit": units.Percent, "decimals": 0},
        "/^SM clock$/": {"unit": style.unit("sm_clock"), "decimals": 2},
    }
    newest = panels.number(
        "Now",
        "The newest sample; nothing where it is older than five minutes, or the GPU is lost or its exporter down "
        "since. Of a MIG instance what it has a value of.",
        "none",
        series(values),
    )
    return [
        panels.override(newest.span(20), kinds),
        panels.number("Age", "Time since the newest sample.", units.Seconds, rows(age), of=style.FRESHNESS).span(4),
    ]
