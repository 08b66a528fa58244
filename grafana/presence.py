"""Which GPUs there are now, whether each reports, and if not since when and why: one rule for words, tiles and tables.

A GPU that was told lost is lost from then on; one whose exporter was told down is so after a minute of silence; any
other is silent after five. Only one that reports has values "now".
"""

from __future__ import annotations

from typing import Final

from grafana import style
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

LOST: Final = """lost AS (
    SELECT * FROM (
        SELECT DISTINCT ON (e.gpu_uuid) e.gpu_uuid, e.kind, e.time AS lost_at, e.detail ->> 'reason' AS reason
        FROM gpu_events e WHERE e.kind IN ('gpu_lost', 'gpu_returned') AND e.gpu_uuid IS NOT NULL
        ORDER BY e.gpu_uuid, e.time DESC
    ) told WHERE kind = 'gpu_lost'
)"""
"""CTE: boards that were told lost and have not been told back. One with a later sample is there all the same: another
exporter reads it."""
AND_LOST: Final = "LEFT JOIN lost l ON l.gpu_uuid = c.gpu_uuid AND l.lost_at >= coalesce(c.newest, '-infinity')"
"""Join of a relation `c` (gpu_uuid, newest): `l` where the board is lost."""
DOWN: Final = f"""down AS MATERIALIZED (
    SELECT * FROM (
        SELECT DISTINCT ON (e.source) e.source, e.kind, e.time AS down_at, e.hostname AS target_host,
            coalesce(e.detail ->> 'detail', e.detail ->> 'reason') AS why
        FROM {EVENTS} e WHERE e.kind IN ('target_down', 'target_up') ORDER BY e.source, e.time DESC
    ) told WHERE kind = 'target_down'
)"""
"""CTE: exporters that are down. The event has the host of its GPUs, if the collector had ever read it; else the host of
its address is taken for that, with or without its domain."""


def inventory(which: str) -> str:
    """CTE: what there is now of the GPUs of which `which` (over `gpus g`) holds: `gpus` with `newest`, the time of the
    newest sample. `gpus` keeps for good what ever was, and two kinds of it are gone rather than silent, else they would
    be red for ever:

    - of a board in MIG instances what fell silent while the rest of the board went on: instances that a new partition
      took away, and the board itself where the exporter tells only its instances. (So the collector: what is gone while
      its GPU is there was reconfigured, not lost.) When the board falls silent, what was there last is silent, and
      nothing older.
    - a board at whose place another is: one first seen there after its newest sample (place: host and index), or one
      heard at its PCI address when it had been silent for long (of boards known before, which moved or came back). Not
      by the index alone: where a GPU is lost, the driver gives its index to the next.
    """
    return f"""inventory AS (
    SELECT * FROM (
        SELECT g.*, l.time AS newest, max(l.time) OVER (PARTITION BY g.gpu_uuid) AS board_newest,
            max(g.first_seen) OVER (PARTITION BY g.hostname, g.gpu_index) AS last_arrival,
            max(l.time) OVER (PARTITION BY g.hostname, g.pci_bus_id) AS place_newest
        FROM gpus g LEFT JOIN gpu_latest l USING (gpu_id)
    ) g WHERE {which}
        AND NOT coalesce(coalesce(newest, '-infinity') <= board_newest - INTERVAL '{SILENT}', false)
        AND NOT coalesce(pci_bus_id IS NOT NULL
            AND coalesce(board_newest, first_seen) <= place_newest - INTERVAL '{SILENT}', false)
        AND NOT coalesce(gpu_index IS NOT NULL AND last_arrival > coalesce(board_newest, first_seen), false)
)"""


def same_host(known: str, told: str) -> str:
    """SQL: of an exporter that was never read only the address is known, with or without its domain."""
    return f"({known} IN ({told}, split_part({told}, '.', 1)) OR split_part({known}, '.', 1) = {told})"


_STATE: Final = f"""CASE WHEN l.lost_at IS NOT NULL THEN '{LOST_STATE}'
            WHEN d.down_at IS NOT NULL AND (c.own IS NULL OR now() - c.own > INTERVAL '{LATE}') THEN '{DOWN_STATE}'
            WHEN c.own IS NULL THEN 'never sampled'
            WHEN now() - c.own < INTERVAL '{SILENT}' THEN 'reports' ELSE 'silent' END"""


def presence(which: str) -> str:
    """CTEs `inventory`, of the GPUs of which `which` (over `gpus g`) holds, `lost`, `down`, and `presence` (gpu_id,
    state, since, why).

    Down are exporters of its host that do not answer, and since they do not there is no sample: one it was not read
    from may be down for good. A GPU is lost with its board, whichever instance has a later sample.
    """
    return f"""{inventory(which)}, {LOST}, {DOWN}, presence AS MATERIALIZED (
    SELECT gpu_id, state, CASE state WHEN '{LOST_STATE}' THEN lost_at WHEN '{DOWN_STATE}' THEN down_at
            WHEN 'silent' THEN own END AS since,
        CASE state WHEN '{LOST_STATE}' THEN lost_why WHEN '{DOWN_STATE}' THEN down_why END AS why
    FROM (
        SELECT c.gpu_id, c.own, l.lost_at, l.reason AS lost_why, d.*, {_STATE} AS state
        FROM (
            SELECT gpu_id, gpu_uuid, hostname, first_seen, newest AS own, board_newest AS newest FROM inventory
        ) c
            {AND_LOST} LEFT JOIN LATERAL (
                SELECT min(e.down_at) AS down_at,
                    string_agg(concat_ws(' ', e.why, '(' || e.source || ')'), ', ' ORDER BY e.source) AS down_why
                FROM down e WHERE e.down_at > coalesce(c.own, c.first_seen)
                    AND {same_host("c.hostname", "e.target_host")}
            ) d ON true
    ) told
)"""
