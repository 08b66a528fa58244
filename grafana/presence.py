"""Which GPUs there are now, whether each reports, and if not since when and why: one rule for words, tiles and tables.

A GPU that was told lost is lost from then on; one whose exporter was told down is so after a minute of silence; any
other is silent after five. Only one that reports has values "now".
"""

from __future__ import annotations

from typing import Final

from grafana import style
from grafana.fleet_gpus import AND_LOST, LOST, inventory
from grafana.frame import EVENTS
from grafana.resolution import SILENT

REPORTS: Final = "coalesce(p.state = 'reports', false)"
"""SQL over `presence p`: what its newest sample says is so now."""
SAMPLE_NOW: Final = """LEFT JOIN LATERAL (
    SELECT * FROM v_latest_gpu_metrics v WHERE p.state = 'reports' AND v.gpu_id = p.gpu_id OFFSET 0
) v ON true"""
"""Join after `presence p`: as `v` the newest sample of a GPU that reports, and nothing of any other. Not flattened, or
the view would put together the newest sample of every GPU of the fleet (27 ms of 1,000 instead of 2)."""
LATE: Final = "1 minute"
"""Silence from which an exporter that is down is why (six scrapes of 10 s): another of the host may still report the
GPU."""
LOST_STATE: Final = "lost"
DOWN_STATE: Final = "exporter down"
GONE: Final = "gone"
"""Of a GPU that is not in the inventory any more."""
STATES: Final = {
    "reports": ("reports", style.GREEN),
    "silent": ("silent", style.ORANGE),
    DOWN_STATE: (DOWN_STATE, style.RED),
    LOST_STATE: (LOST_STATE, style.RED),
    "never sampled": ("never sampled", style.GREY),
    GONE: (GONE, style.GREY),
}
"""State -> (text, colour)."""


_WHY: Final = "concat_ws(' ', coalesce(e.detail ->> 'detail', e.detail ->> 'reason'), '(' || e.source || ')')"
_OF_HOST: Final = (
    "(c.hostname IN (e.hostname, split_part(e.hostname, '.', 1)) OR split_part(c.hostname, '.', 1) = e.hostname)"
)
"""Of an exporter that was never read only the address is known, with or without its domain."""
_STATE: Final = f"""CASE WHEN l.lost_at IS NOT NULL THEN '{LOST_STATE}'
            WHEN d.down_at IS NOT NULL AND (c.own IS NULL OR now() - c.own > INTERVAL '{LATE}') THEN '{DOWN_STATE}'
            WHEN c.own IS NULL THEN 'never sampled'
            WHEN now() - c.own < INTERVAL '{SILENT}' THEN 'reports' ELSE 'silent' END"""


def presence(which: str) -> str:
    """CTEs `inventory`, of the GPUs of which `which` (over `gpus g`) holds, and `presence` (gpu_id, state, since, why).

    Down are exporters of its host that do not answer, and since they do not there is no sample: one it was not read
    from may be down for good. A GPU is lost with its board, whichever instance has a later sample.
    """
    return f"""{inventory(which)}, {LOST}, exporter AS MATERIALIZED (
    SELECT DISTINCT ON (e.source) e.source, e.kind, e.time, e.hostname, e.detail FROM {EVENTS} e
    WHERE e.kind IN ('target_down', 'target_up') ORDER BY e.source, e.time DESC
), presence AS (
    SELECT gpu_id, state, CASE state WHEN '{LOST_STATE}' THEN lost_at WHEN '{DOWN_STATE}' THEN down_at
            WHEN 'silent' THEN own END AS since,
        CASE state WHEN '{LOST_STATE}' THEN lost_why WHEN '{DOWN_STATE}' THEN down_why END AS why
    FROM (
        SELECT c.gpu_id, c.own, l.lost_at, l.reason AS lost_why, d.*, {_STATE} AS state
        FROM (SELECT gpu_id, gpu_uuid, hostname, newest AS own, board_newest AS newest FROM inventory) c
            {AND_LOST} LEFT JOIN LATERAL (
                SELECT min(e.time) AS down_at, string_agg({_WHY}, ', ' ORDER BY e.source) AS down_why FROM exporter e
                WHERE e.kind = 'target_down' AND e.time > coalesce(c.own, '-infinity') AND {_OF_HOST}
            ) d ON true
    ) told
)"""
