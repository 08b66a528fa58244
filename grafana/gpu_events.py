"""What happened to one GPU, its board and its host."""

from __future__ import annotations

from typing import Final

from grafana import panels, style
from grafana.frame import DO_NOW, EVENTS, WORDS, told
from grafana.panels import AnyPanel, Properties
from grafana.presence import same_host
from grafana.queries import rows
from grafana.selection import CARD

_RESTARTED: Final = "(SELECT string_agg(key, ', ' ORDER BY key) FROM jsonb_object_keys(e.detail) key)"
BLANK: Final[Properties] = {"noValue": ""}
"""A column in which nothing is to be said of some rows; the panel's own word would be in each of its cells."""
_WORDS: Final = {
    **{kind: (what, more) for kind, (_, what, more) in WORDS.items()},
    "status": ("'Status ' || upper(e.detail ->> 'tag')", "e.detail ->> 'memo'"),
    "counter_reset": ("'Counters restarted'", _RESTARTED),
}


def concerns(gpu: str) -> str:
    """SQL over `EVENTS e`: it happened to the GPU of the relation `gpu`, to the board its instance is of, or to the
    host it was in then."""
    return f"""(e.gpu_id IN (
    SELECT board.gpu_id FROM {gpu} chosen JOIN gpus board ON board.gpu_uuid = chosen.gpu_uuid
        AND (board.gpu_id = chosen.gpu_id OR board.instance_id IS NULL)
) OR e.kind IN ('status', 'target_down', 'target_up') AND e.gpu_id IS NULL AND EXISTS (
    SELECT FROM {gpu} chosen JOIN gpu_history h USING (gpu_id)
    WHERE {same_host("h.hostname", "e.hostname")}
        AND (h.earliest OR e.time >= h.valid_from) AND (h.valid_to IS NULL OR e.time < h.valid_to)
))"""


def events() -> AnyPanel:
    """Where a kind of event has nothing to say in a column, nothing is there: not "None", nor "No value"."""
    sql = f"""WITH {CARD}
SELECT e.time, coalesce({told(0, _WORDS)}, e.kind) AS event, {told(1, _WORDS)} AS what,
    e.detail ->> 'severity' AS severity, {DO_NOW} AS "do now", e.detail ->> 'process' AS process,
    CASE WHEN e.kind <> 'status' THEN e.status_tag END AS status,
    CASE WHEN e.kind <> 'status' THEN e.status_memo END AS memo
FROM {EVENTS} e WHERE {concerns("gpu")} AND $__timeFilter(e.time) ORDER BY e.time DESC LIMIT 500"""
    panel = panels.table(
        "Events",
        "XIDs, lost and returned, counters that restarted; of the host its status, and exporters that did not answer. "
        "Of a MIG instance also those of its board. docs/xids.md has all XIDs.",
        rows(sql),
    ).no_value(style.NONE)
    return panels.override(
        panel.span(24).height(6),
        {
            "/^(what|severity|do now|process|status|memo)$/": BLANK,
            "/^severity$/": panels.severity(),
            "/^event$/": {"custom.width": 160},
            "/^what$/": {"custom.width": 340},
            "/^do now$/": {"custom.width": 320},  # `LOST_ACTION` whole
        },
    )
