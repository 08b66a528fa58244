"""What the panels of the fleet share: which GPUs, how they are now, and what a board is."""

from __future__ import annotations

from typing import Final

from grafana.frame import EVENTS, card_url, host_url
from grafana.panels import HIDDEN, Overrides, link
from grafana.resolution import SILENT, Level
from grafana.selection import GPU_NAME, IN_FLEET, chosen

GPU_LINK: Final = link("GPU detail", card_url("${__data.fields.host:percentencode}", "${__data.fields.gpu_id}"))
HOST_LINK: Final = link("Host", host_url("${__data.fields.host:percentencode}"))
WHO: Final = f"""g.hostname AS host, {GPU_NAME.format(at="g")} AS "GPU\""""
CARD_NAME: Final = "'GPU ' || coalesce(g.gpu_index::text, left(g.gpu_uuid, 12))"
"""SQL over `gpus g`: a board, whichever of its MIG instances the row is of."""
WHERE: Final = "g.model, coalesce(g.cluster, 'none') AS cluster, g.rack"
"""First and last columns of a table of GPUs: what it is about stands between, and is seen in half a page too."""
LINKED: Final[Overrides] = {"/^GPU$/": GPU_LINK, "/^host$/": HOST_LINK, "/^gpu_id$/": HIDDEN}


def inventory(which: str) -> str:
    """CTE: what there is now of the GPUs of which `which` (over `gpus g`) holds: `gpus` with `newest`, the time of the
    newest sample. `gpus` keeps for good what ever was, and two kinds of it are gone rather than silent, else they would
    be red for ever:

    - of a board in MIG instances what fell silent while the rest of the board went on: instances that a new partition
      took away, and the board itself where the exporter tells only its instances. (So the collector: what is gone while
      its GPU is there was reconfigured, not lost.) When the board falls silent, what was there last is silent, and
      nothing older.
    - a board at whose place (host, index) another was first seen after its newest sample: it was replaced.
    """
    return f"""inventory AS (
    SELECT * FROM (
        SELECT g.*, l.time AS newest, max(l.time) OVER (PARTITION BY g.gpu_uuid) AS board_newest,
            max(g.first_seen) OVER (PARTITION BY g.hostname, g.gpu_index) AS last_arrival
        FROM gpus g LEFT JOIN gpu_latest l USING (gpu_id)
    ) g WHERE {which}
        AND NOT coalesce(coalesce(newest, '-infinity') <= board_newest - INTERVAL '{SILENT}', false)
        AND NOT coalesce(gpu_index IS NOT NULL AND last_arrival > coalesce(board_newest, first_seen), false)
)"""


INVENTORY: Final = inventory(chosen())
CARDS: Final = f"""{INVENTORY}, card AS (
    SELECT gpu_uuid, hostname, max(newest) AS newest,
        coalesce(now() - max(newest) >= INTERVAL '{SILENT}', true) AS silent
    FROM inventory GROUP BY 1, 2
)"""
"""CTEs: the boards of the inventory. A board is silent as v_fleet_health_summary counts, and also where there never was
a sample."""
NOW: Final = f"""{INVENTORY}, now AS (
    SELECT g.gpu_id, g.gpu_uuid, g.instance_id, coalesce(g.cluster, 'none') AS cluster, g.datacenter, g.rack,
        g.hostname, g.gpu_index, g.model, g.newest, coalesce(now() - g.newest >= INTERVAL '{SILENT}', true) AS silent,
        v.gpu_temp, (g.properties ->> 'slowdown_temp')::float8 AS slowdown_temp, v.power_usage::float8 AS power,
        v.gpu_util, v.memory_percent, v.clocks_event_reasons, v.ecc_dbe_vol_total, v.retired_pending,
        v.row_remap_failure, v.row_remap_pending
    FROM inventory g LEFT JOIN v_latest_gpu_metrics v USING (gpu_id)
)"""
"""CTEs: the same of each GPU and MIG instance, with the newest sample's values."""
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
DOWN: Final = f"""down AS (
    SELECT * FROM (
        SELECT DISTINCT ON (e.source) e.kind, e.time AS down_at, e.hostname AS target_host,
            coalesce(e.detail ->> 'detail', e.detail ->> 'reason', 'refused') AS why
        FROM {EVENTS} e WHERE e.kind IN ('target_down', 'target_up') ORDER BY e.source, e.time DESC
    ) told WHERE kind = 'target_down'
)"""
"""CTE: exporters that are down. The event has the host of its GPUs, if the collector had ever read it; else the host of
its address is taken for that, with or without its domain."""

_BOARD: Final = """board AS NOT MATERIALIZED (
    SELECT gpu_id, board_id FROM gpus JOIN (
        SELECT gpu_uuid, min(gpu_id) AS board_id
        FROM gpus GROUP BY 1 HAVING count(instance_id) > 0
    ) cut USING (gpu_uuid)
)"""
BOARDS: Final = f"{IN_FLEET}, {_BOARD}"
"""CTEs `gpu` and `board`: of each GPU that is or was in MIG instances, and of these, which board it is. dcgm-exporter
repeats what is measured of the whole GPU (power, ECC and link errors, ...) with each instance, and then has no series
of the GPU itself (its issues 317, 353 and 561); our exporter and the mock do not."""
NOW_AND_BOARDS: Final = f"{NOW}, {_BOARD}"


def with_board(_: Level) -> str:
    """Samples of the fleet, with `board.board_id`, NULL where there are no instances."""
    return "JOIN gpu USING (gpu_id) LEFT JOIN board USING (gpu_id) WHERE true"


def once(column: str) -> str:
    """SQL: the sum over GPUs, a board counted once. In a query grouped by `board_id`, to be summed up after.

    Of a board in instances the highest of what it and they say: they repeat each other, and where a board was cut or
    made whole within a bucket, what one of them counted must not be hidden behind another's zero.
    """
    return f"CASE WHEN board_id IS NULL THEN sum({column}) ELSE max({column}) END"
