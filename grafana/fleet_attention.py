"""Fleet, at the top: which GPUs need somebody now, why, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from grafana import panels, style
from grafana.fleet_gpus import CARD_NAME, LINKED, NOW
from grafana.frame import LOST_ACTION, among
from grafana.panels import AnyPanel, Overrides
from grafana.presence import AND_LOST, DOWN_STATE, same_host
from grafana.queries import rows
from services.contract.clocks_event import REASONS, THERMAL

CRITICAL: Final = "critical"
WARNING: Final = "warning"
"""By the alphabet the worse comes first: `min()` is the worst, and rows are ordered by it."""
XID_WINDOW: Final = "24 hours"
"""An XID older than that is history, not the state of a GPU; `gpumon top` says the same."""
NEVER_SEEN_WINDOW: Final = "7 days"
"""Of targets and GPUs the inventory has never had: nobody tells when they are taken out of the configuration."""


@dataclass(frozen=True, slots=True)
class Fact:
    """SQL over a board (`c`, see `_CARD`), its host (`h`) and what was told of its loss (`l`)."""

    holds: str
    severity: str
    reason: str
    action: str
    since: str = "NULL::timestamptz"


_HEAT: Final = "concat_ws(', ', " + ", ".join(
    f"CASE WHEN c.reasons & {bit} <> 0 THEN '{name}' END" for bit, name in REASONS.items() if bit & THERMAL
) + ")"  # fmt: skip
_EXPORTER: Final = "coalesce('; an exporter of its host is down: ' || c.why, '')"
FACTS: Final = (
    Fact("l.lost_at IS NOT NULL", CRITICAL, "'lost' || coalesce(': ' || l.reason, '')",
         LOST_ACTION, "l.lost_at"),
    Fact("l.lost_at IS NULL AND c.silent AND NOT h.silent", CRITICAL,
         f"CASE WHEN c.newest IS NULL THEN 'never had a sample' ELSE 'silent' END || ', while its host reports' || "
         f"{_EXPORTER}",
         "on the host: does nvidia-smi list it? If not, as if lost", "c.newest"),
    # 1: NVML's failureOccurred. The board has no spare row left for this bank; NVIDIA's criterion for an RMA.
    Fact("c.remap_failure > 0", CRITICAL, "'row remapping failed'", "drain, and replace the GPU (RMA)"),
    # 1 and more: the counter is NVML's volatile one, of the time since the driver was loaded or the GPU reset.
    Fact("c.dbe > 0", CRITICAL, "'uncorrectable ECC errors since the last reset: ' || c.dbe",
         "drain and reset the GPU; if it comes again, replace it"),
    # C; the board's own slowdown temperature (NVML), where it tells one: from there on it protects itself.
    Fact("c.temp >= c.slowdown_temp", CRITICAL, "c.temp || ' C, and it slows down at ' || c.slowdown_temp || ' C'",
         "take the load off; look after air and fan"),
    # 1: NVML's isPending. The row is replaced by a spare one at the next reset, and is in use until then.
    Fact("c.remap_pending > 0", WARNING, "'row remap pending'", "drain and reset the GPU"),
    # 1 and more pages (or 1 as a flag): in use until the next reset; boards before Ampere.
    Fact("c.retired_pending > 0", WARNING, "'pages pending retirement'", "drain; reset the GPU or reboot the host"),
    Fact(f"c.reasons & {THERMAL} <> 0", WARNING, f"'slowed down by heat (' || {_HEAT} || ')'",
         "look after air and fan"),
)  # fmt: skip
"""In the order in which the reasons of one board are said. What MIG instances repeat of their board counts once."""

_DOWN: Final = f"state = '{DOWN_STATE}'"
_CARD: Final = f"""card AS (
    SELECT gpu_uuid, hostname, (array_agg(gpu_id ORDER BY silent, instance_id NULLS FIRST))[1] AS gpu_id,
        max(newest) AS newest, bool_and(silent) AS silent, max(slowdown_temp) AS slowdown_temp,
        min(since) FILTER (WHERE {_DOWN}) AS down_at, string_agg(DISTINCT why, ', ') FILTER (WHERE {_DOWN}) AS why,
        max(gpu_temp) FILTER (WHERE NOT silent) AS temp,
        bit_or(clocks_event_reasons) FILTER (WHERE NOT silent) AS reasons,
        max(ecc_dbe_vol_total) FILTER (WHERE NOT silent) AS dbe,
        max(retired_pending) FILTER (WHERE NOT silent) AS retired_pending,
        max(row_remap_failure) FILTER (WHERE NOT silent) AS remap_failure,
        max(row_remap_pending) FILTER (WHERE NOT silent) AS remap_pending
    FROM now GROUP BY 1, 2
)"""
_RESET: Final = f"""reset AS (
    SELECT gpu_uuid, max(time) AS time FROM gpu_events
    WHERE kind IN ('gpu_returned', 'counter_reset') AND time > now() - INTERVAL '{XID_WINDOW}' GROUP BY 1
)"""
"""CTE: when a board was last reset or came back. What an XID asked for before that has been done; what it left behind
(remapped rows, errors that come again) is told by itself."""
_HOST: Final = f"""host AS MATERIALIZED (
    SELECT c.hostname, count(*) AS gpus, min(c.gpu_id) AS gpu_id, max(c.newest) AS newest, min(c.down_at) AS down_at,
        string_agg(DISTINCT c.why, ', ') AS why, bool_and(c.silent) AND bool_or(l.gpu_uuid IS NULL) AS silent
    FROM card c {AND_LOST} GROUP BY 1
)"""
"""CTE: silent where no GPU reports, and not all because they are lost."""
_OF_BOARDS: Final = f"""SELECT c.gpu_uuid, fact.* FROM card c JOIN host h USING (hostname)
    {AND_LOST}, LATERAL (VALUES
        {", ".join(
            f"({number}, {fact.holds}, '{fact.severity}', {fact.reason}, '{fact.action}', {fact.since})"
            for number, fact in enumerate(FACTS)
        )}
    ) fact (number, holds, severity, reason, action, since) WHERE fact.holds"""  # fmt: skip
_OF_XIDS: Final = f"""SELECT e.gpu_uuid, {len(FACTS)}, true, '{CRITICAL}',
    concat('XID ', e.code, coalesce(': ' || max(e.detail ->> 'meaning'), ''),
        CASE WHEN count(*) > 1 THEN ', ' || count(*) || ' times' END),
    coalesce(max(e.detail ->> 'immediate_action'), 'see docs/xids.md'), min(e.time)
FROM gpu_events e JOIN card USING (gpu_uuid)
LEFT JOIN reset ON reset.gpu_uuid = e.gpu_uuid AND reset.time >= e.time
WHERE reset.gpu_uuid IS NULL AND e.time > now() - INTERVAL '{XID_WINDOW}' AND e.kind = 'xid'
    AND e.detail ->> 'severity' = '{CRITICAL}'
GROUP BY e.gpu_uuid, e.code"""
_OF_HOSTS: Final = f"""SELECT '{CRITICAL}', h.hostname,
    CASE WHEN h.gpus = 1 THEN {CARD_NAME} ELSE 'all ' || h.gpus || ' GPUs' END,
    coalesce('exporter down: ' || h.why, 'silent: no GPU of the host, and no exporter is said to be down'),
    CASE WHEN h.why IS NULL THEN 'is the collector running? Does the host answer?'
        ELSE 'start the exporter; does the host answer?' END,
    coalesce(h.down_at, h.newest), coalesce(g.cluster, 'none'), g.rack, g.model, h.gpu_id
FROM host h JOIN gpus g USING (gpu_id)
WHERE h.silent"""
_NOT_IN_INVENTORY: Final = f"""SELECT '{CRITICAL}', u.hostname, '-', u.reason, u.action, u.since, NULL, NULL, NULL, NULL
FROM (
    SELECT d.target_host AS hostname, 'exporter down, and never read: ' || coalesce(d.why, 'refused') AS reason,
        'start the exporter, or take it out of the targets' AS action, d.down_at AS since
    FROM down d WHERE d.down_at > now() - INTERVAL '{NEVER_SEEN_WINDOW}'
        AND NOT EXISTS (SELECT FROM gpus g WHERE {same_host("g.hostname", "d.target_host")})
    UNION ALL
    SELECT e.hostname,
        concat_ws(': ', 'lost before it was ever seen', e.detail ->> 'pci_bus_id', e.detail ->> 'reason'),
        '{LOST_ACTION}', e.time
    FROM gpu_events e WHERE e.time > now() - INTERVAL '{NEVER_SEEN_WINDOW}' AND e.kind = 'gpu_lost'
        AND NOT EXISTS (SELECT FROM gpus g WHERE g.gpu_uuid = e.gpu_uuid) AND NOT EXISTS (
            SELECT FROM gpu_events back WHERE back.kind = 'gpu_returned' AND back.time >= e.time
                AND back.hostname = e.hostname
                AND (back.detail ->> 'lost_at')::timestamptz BETWEEN e.time - INTERVAL '1 second' AND e.time)
) u WHERE {among("'none'", "cluster")} AND {among("u.hostname", "host")} AND {among("'none'", "model")}"""


_WRAPPED: Final = {"custom.cellOptions": {"type": "auto", "wrapText": True}}


def attention() -> AnyPanel:
    sql = f"""WITH {NOW}, {_CARD}, {_HOST}, {_RESET}, fact AS (
{_OF_BOARDS}
UNION ALL
{_OF_XIDS}
), todo AS (
SELECT gpu_uuid, string_agg(action, '; ' ORDER BY number) AS actions FROM (
    SELECT f.gpu_uuid, f.action, min(f.number) AS number FROM fact f
    WHERE (f.gpu_uuid, f.severity) IN (SELECT gpu_uuid, min(severity) FROM fact GROUP BY 1) GROUP BY 1, 2
) f GROUP BY 1
), listed AS (
SELECT min(f.severity) AS severity, c.hostname AS host, {CARD_NAME} AS "GPU",
    string_agg(f.reason, '; ' ORDER BY f.severity, f.number) AS reason, t.actions AS "do now", min(f.since) AS since,
    coalesce(g.cluster, 'none') AS cluster, g.rack, g.model, c.gpu_id
FROM fact f JOIN todo t USING (gpu_uuid) JOIN card c USING (gpu_uuid) JOIN gpus g USING (gpu_id)
GROUP BY f.gpu_uuid, c.hostname, c.gpu_id, g.gpu_id, t.actions
UNION ALL
{_OF_HOSTS}
UNION ALL
{_NOT_IN_INVENTORY}
)
SELECT * FROM listed ORDER BY severity, since DESC NULLS FIRST, host, "GPU" LIMIT 200"""
    columns: Overrides = {
        "/^(since|rack|cluster|model)$/": {"mappings": [panels.unknown("transparent", "unknown")]},
        "/^severity$/": panels.severity(),
        "/^reason$/": {**_WRAPPED, "custom.width": 360},
        "/^do now$/": {**_WRAPPED, "custom.width": 290},
        **LINKED,
    }
    panel = panels.table(
        "Need attention",
        "What is so now, whatever the time range: lost; silent for five minutes (one, since its exporter is down) "
        "while its host reports; a host none of whose GPUs has a sample for five minutes, or for one since its "
        "exporter is down; critical XIDs of the last 24 hours, up to the reset or return after them; "
        "row remapping failed or pending; pages pending retirement; uncorrectable ECC errors since the driver was "
        "loaded or the GPU reset; at or above the board's own slowdown temperature; slowed down by heat. A GPU in MIG "
        "instances has one row. Since: the earliest of what is known. None is good.",
        rows(sql),
    )
    return panels.override(panel.span(24).height(10).no_value(style.NONE), columns)
