"""Dashboard "GPU detail": everything on one card, from what it is to what happened to it."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.models import dashboard as models

from grafana import panels, style, throttle
from grafana.frame import CARD_UID, event_annotations, page, postgres_variable
from grafana.gaps import bands, blank
from grafana.gpu_events import concerns, events
from grafana.gpu_extremes import extremes
from grafana.gpu_inventory import inventory
from grafana.gpu_metrics import metric_panels
from grafana.gpu_now import now, state
from grafana.panels import AnyPanel
from grafana.queries import rows, series
from grafana.resolution import USAGE, Level, read
from grafana.selection import CARD, HOST, ONE_GPU, of_card


def throttling() -> AnyPanel:
    def select(level: Level) -> str:
        when = f"m.{level.time} AS time, m.{level.time} AS until, INTERVAL '{level.gap}' AS gap"
        return f"{when}, {throttle.held(level)} AS throttling"

    sql = f"WITH {CARD}, sample AS (\n{read(select, of_card)}\n)\n{bands('throttling')}"
    return blank(panels.states("Throttling", throttle.DESCRIPTION, series(sql), throttle.mapping()))


# --- who used it -----------------------------------------------------------------------------------------------------


def _tenants() -> str:
    def select(level: Level) -> str:
        parts = ", ".join(f"{level.said(x)} AS {x}" for x in ("namespace", "pod", "container"))
        when = f"{level.begin} AS time, {level.end} AS until"
        return f"{when}, {parts}, {level.samples} AS samples, INTERVAL '{level.gap}' AS gap"

    return f"WITH {CARD}, sample AS (\n{read(select, of_card, USAGE)}\n)"


def tenants() -> list[AnyPanel]:
    who = "namespace, pod, container"
    # Islands: while the tenant stays, a row's number among all and among the tenant's go up together.
    stays = f"""{_tenants()}, stays AS (
    SELECT *, row_number() OVER (ORDER BY time) - row_number() OVER (PARTITION BY {who} ORDER BY time) AS stay
    FROM sample
)
SELECT {who}, min(time) AS "from", max(until) AS "to", sum(samples)::bigint AS samples
FROM stays WHERE pod IS NOT NULL GROUP BY {who}, stay ORDER BY 4 DESC LIMIT 500"""
    exact = (
        " Over six hours exact to the minute, which counts for the pod it ended with; over two days a pod that comes"
        " back within an hour is one with its first time in it; over a year to the day."
    )
    return [
        blank(panels.states(
            "Tenants", "The pod that held the GPU. Blank: none, or no sample." + exact,
            rows(_tenants() + "\n" + bands("pod")), None)),
        panels.table(
            "Tenants within the time range",
            "Who held the GPU, from the first sample to the last; a pod that came back is a row again." + exact,
            rows(stays), style.COUNT).span(24),
    ]  # fmt: skip


def build() -> models.Dashboard:
    sections: Sequence[tuple[str, Sequence[AnyPanel]]] = [
        ("", [state(), *now(), events()]),
        ("Metrics", [throttling(), *metric_panels(), extremes()]),
        ("Tenants", tenants()),
        ("Inventory", inventory()),
    ]
    chosen = "(SELECT * FROM gpus WHERE gpu_id::text IN (${gpu:sqlstring}) ORDER BY gpu_id LIMIT 1)"
    return page(
        CARD_UID,
        "One GPU: all its metrics, who used it, what happened to it, what it is.",
        variables=[postgres_variable(), HOST, ONE_GPU],
        sections=sections,
        annotations=event_annotations(concerns(chosen)),
    )
