"""What the panels of the fleet share: which GPUs, how they are now, and what a board is."""

from __future__ import annotations

from typing import Final

from grafana.frame import card_url, host_url
from grafana.panels import HIDDEN, Overrides, link
from grafana.presence import inventory, presence
from grafana.resolution import Level
from grafana.selection import GPU_NAME, IN_FLEET, chosen

GPU_LINK: Final = link("GPU detail", card_url("${__data.fields.host:percentencode}", "${__data.fields.gpu_id}"))
HOST_LINK: Final = link("Host", host_url("${__data.fields.host:percentencode}"))
WHO: Final = f"""g.hostname AS host, {GPU_NAME.format(at="g")} AS "GPU\""""
CARD_NAME: Final = "'GPU ' || coalesce(g.gpu_index::text, left(g.gpu_uuid, 12))"
"""SQL over `gpus g`: a board, whichever of its MIG instances the row is of."""
WHERE: Final = "g.model, coalesce(g.cluster, 'none') AS cluster, g.rack"
"""First and last columns of a table of GPUs: what it is about stands between, and is seen in half a page too."""
LINKED: Final[Overrides] = {"/^GPU$/": GPU_LINK, "/^host$/": HOST_LINK, "/^gpu_id$/": HIDDEN}

INVENTORY: Final = inventory(chosen())
CARDS: Final = f"""{presence(chosen())}, card AS (
    SELECT i.gpu_uuid, i.hostname, max(i.newest) AS newest, bool_and(p.state <> 'reports') AS silent
    FROM inventory i JOIN presence p USING (gpu_id) GROUP BY 1, 2
)"""
"""CTEs: the boards of the inventory. Silent: it does not report, lost or not (`AND_LOST` tells)."""
NOW: Final = f"""{presence(chosen())}, now AS MATERIALIZED (
    SELECT g.gpu_id, g.gpu_uuid, g.instance_id, coalesce(g.cluster, 'none') AS cluster, g.datacenter, g.rack,
        g.hostname, g.gpu_index, g.model, g.newest, p.state, p.since, p.why, p.state <> 'reports' AS silent,
        v.gpu_temp, (g.properties ->> 'slowdown_temp')::float8 AS slowdown_temp, v.power_usage::float8 AS power,
        v.gpu_util, v.memory_percent, v.clocks_event_reasons, v.ecc_dbe_vol_total, v.retired_pending,
        v.row_remap_failure, v.row_remap_pending
    FROM inventory g JOIN presence p USING (gpu_id) LEFT JOIN v_latest_gpu_metrics v USING (gpu_id)
)"""
"""CTEs: the same of each GPU and MIG instance, with the newest sample's values. Materialized: of those that report
the planner expects five, and would put together the newest samples of all for each of them (6 s of 1,000 GPUs)."""

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
