"""Dashboard "Pipeline": exporter -> collector -> Kafka -> sink, from what each says of itself, by Prometheus."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.common import BarAlignment

from grafana import panels, style
from grafana.frame import PIPELINE_UID, page, prometheus_variable
from grafana.panels import AnyPanel, Overrides, cell
from grafana.queries import prom
from grafana.style import Thresholds

EVERY = "[$__rate_interval]"
BAR = "1m"
"""A bar is at least a minute wide: four scrapes of 15 s, below which an increase cannot be told."""

UP_OR_DOWN = panels.text_map({"1": ("up", style.GREEN), "0": ("down", style.RED)})


def _rate(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{EVERY}))"


def _grown(metric: str, by: str) -> str:
    """increase() does not see how a counter began: many appear with their first event. A series that is new while its
    process was there before counts from zero."""
    new = f"(({metric} unless {metric} offset $__interval) and on (job, instance) up offset $__interval == 1)"
    return f"sum by ({by}) ({new} or increase({metric}[$__interval]))"


def _bars(title: str, description: str, metric: str, by: str) -> AnyPanel:
    """How much a counter grew in each bar."""
    query = prom(_grown(metric, by), f"{{{{{by}}}}}")
    before = BarAlignment.BEFORE
    return panels.bars(title, description, style.COUNT, query, before).interval(BAR).no_value(style.NONE)


def _quantile(share: float, metric: str) -> str:
    return f"histogram_quantile({share}, {_rate(f'{metric}_bucket', 'le')})"


def _now(title: str, description: str, unit: str, expr: str, of: Thresholds) -> AnyPanel:
    return panels.number(title, description, unit, prom(expr, title, instant=True), of=of)


def health() -> list[AnyPanel]:
    return [
        _now("Targets down", "Exporters whose last scrape the collectors refused.", style.COUNT,
             "sum(1 - gpumon_collector_up)", style.ANY_IS_BAD),
        _now("Rows per second", "Samples of GPUs that the sinks write; a row has dozens of values.", style.COUNT,
             f"sum(rate(gpumon_sink_rows_inserted_total{EVERY}))", style.PLAIN),
        _now("Freshness", "Scrape to commit, of the newest row of the last batch; the worst sink that writes.",
             units.Seconds, f"max(gpumon_sink_freshness_seconds_last and on (job, instance) "
             f"rate(gpumon_sink_rows_inserted_total{EVERY}) > 0)", style.INGEST_FRESHNESS),
        _now("Lag", "Messages in Kafka that are not in the database.", style.COUNT,
             "sum(gpumon_sink_lag_messages)", style.PLAIN),
        _now("Dead letters", "Messages that could not be stored, within the time range; `gpumon dlq` shows them.",
             style.COUNT, "sum(increase(gpumon_sink_dead_letters_total[$__range]))", style.ANY_IS_BAD),
        panels.number(
            "Database", "Up: the last access of every sink succeeded.", "bool_yes_no",
            prom("min(gpumon_sink_database_up)", "Database", instant=True),
            of=style.UP).mappings([UP_OR_DOWN, panels.unknown()]),
    ]  # fmt: skip


def services() -> list[AnyPanel]:
    return [
        panels.states(
            "Services", "What Prometheus reaches: exporters, collectors, sinks, Grafana, itself.",
            prom("max by (job, instance) (up)", "{{job}} {{instance}}"), UP_OR_DOWN, per_page=12).span(12).height(9),
        panels.states(
            "Targets",
            "What the collectors read. Down: the scrape was refused (time-out, HTTP error, not a metrics page).",
            prom("max by (target) (gpumon_collector_up)", "{{target}}"), UP_OR_DOWN, per_page=12).span(12).height(9),
    ]  # fmt: skip


def collector() -> list[AnyPanel]:
    stale = prom("max by (target) (gpumon_collector_staleness_seconds)", "", instant=True)
    columns: Overrides = {
        "/^Value$/": {**cell(style.FRESHNESS, units.Seconds), "displayName": "since the last good scrape"},
        "/^Time$/": {"custom.hidden": True},
    }
    return [
        panels.lines("Values scraped", "Read from exporters, by collector.", units.CountsPerSecond,
                     prom(_rate("gpumon_collector_samples_scraped_total", "instance"), "{{instance}}")),
        panels.lines(
            "Events", "Accepted: Kafka (or the database) acknowledged, or synced to the spool.", units.CountsPerSecond,
            [prom(_rate(f"gpumon_collector_events_{what}_total", "instance"), what + " {{instance}}", ref)
             for ref, what in zip("ABC", ("accepted", "published", "spooled"), strict=True)]),
        _bars("Scrapes refused", "Nothing, or not all, of these scrapes was accepted; by reason.",
              "gpumon_collector_scrapes_refused_total", "reason"),
        _bars("Scrapes left out", "The scrape before still ran: the exporter is too slow for the interval.",
              "gpumon_collector_missed_ticks_total", "target"),
        panels.lines("Scrape duration", "From request to whole body; the slowest ten.", units.Seconds,
                     prom("topk(10, max by (target) (gpumon_collector_scrape_duration_seconds))", "{{target}}")),
        panels.override(panels.table("Staleness", "Since when a target has not been read.", stale), columns),
    ]  # fmt: skip


def delivery() -> list[AnyPanel]:
    return [
        panels.lines(
            "Waiting", "Outstanding: given to Kafka, not acknowledged. Waiting: not yet given to Kafka or the spool.",
            style.COUNT,
            [prom("sum by (instance) (gpumon_collector_events_outstanding)", "outstanding {{instance}}"),
             prom("sum by (instance) (gpumon_collector_events_waiting)", "waiting {{instance}}", "B")]),
        _bars("Delivery failures", "Messages that were not acknowledged; they go to the spool.",
              "gpumon_collector_delivery_failures_total", "reason"),
        panels.lines("Spool fill", "Share of SPOOL_MAX_BYTES. At 1 new samples are refused.", units.PercentUnit,
                     prom("max by (instance) (gpumon_collector_spool_bytes / gpumon_collector_spool_max_bytes)",
                          "{{instance}}"), of=style.SPOOL),
        panels.lines("Spool age", "Age of the oldest message on disk.", units.Seconds,
                     prom("max by (instance) (gpumon_collector_spool_oldest_seconds)", "{{instance}}")),
    ]  # fmt: skip


def sink() -> list[AnyPanel]:
    fresh = "gpumon_sink_freshness_seconds"
    return [
        panels.lines(
            "Rows written", "New rows, and rows that were there already (sent twice, stored once).",
            units.WritesPerSecond,
            [prom(_rate("gpumon_sink_rows_inserted_total", "instance"), "inserted {{instance}}"),
             prom(_rate("gpumon_sink_rows_duplicate_total", "instance"), "duplicate {{instance}}", "B")]),
        panels.lines(
            "Freshness of rows", "Scrape to commit in the database. The goal is one second.", units.Seconds,
            [prom(_quantile(0.5, fresh), "median"), prom(_quantile(0.99, fresh), "99 %", "B")],
            of=style.INGEST_FRESHNESS),
        panels.lines("Lag by partition", "Messages in Kafka that are not in the database.", style.COUNT,
                     prom("sum by (topic, partition) (gpumon_sink_lag_messages)", "{{topic}} {{partition}}")),
        _bars("Write path", "Batches by the way they took: COPY in one go, or the slower rungs below it.",
              "gpumon_sink_batches_total", "path"),
        panels.lines("Batch size", "Rows in a batch.", style.COUNT,
                     [prom(_quantile(0.5, "gpumon_sink_batch_rows"), "median"),
                      prom(_quantile(0.99, "gpumon_sink_batch_rows"), "99 %", "B")]),
        panels.lines(
            "Where the time goes", "99 % of the batches are within this: waiting for rows, writing, committing.",
            units.Seconds,
            [prom(_quantile(0.99, f"gpumon_sink_{what}_seconds"), label, ref) for ref, what, label in (
                ("A", "batch_age", "first message to commit"), ("B", "copy", "COPY"), ("C", "commit", "commit"))]),
        _bars("Retries", "Attempts that failed and were repeated, by PostgreSQL's SQLSTATE.",
              "gpumon_sink_retries_total", "sqlstate"),
        _bars("Dead letters by reason", "Why messages could not be stored.",
              "gpumon_sink_dead_letters_total", "reason"),
        panels.states(
            "Sinks", "Paused: reading waits because the database or Kafka is behind.",
            prom("max by (instance) (gpumon_sink_paused)", "{{instance}}"),
            panels.text_map({"0": ("reading", style.GREEN), "1": ("paused", style.ORANGE)})),
    ]  # fmt: skip


def exporters() -> list[AnyPanel]:
    return [
        panels.lines("Age of the reading", "How old the values are that `gpumon exporter` serves.", units.Seconds,
                     prom("max by (instance) (gpumon_exporter_reading_age_seconds)", "{{instance}}"),
                     of=style.FRESHNESS),
        panels.lines("Read duration", "How long reading all GPUs of the host takes.", units.Seconds,
                     prom("max by (instance) (gpumon_exporter_read_duration_seconds)", "{{instance}}")),
        _bars("Failed readings", "Readings that failed as a whole, by what the trouble was.",
              "gpumon_exporter_read_failures_total", "trouble"),
        panels.lines(
            "GPUs served", "GPUs in the newest reading, and GPUs that are lost.", style.COUNT,
            [prom("max by (instance) (gpumon_exporter_gpus)", "{{instance}}"),
             prom("max by (instance) (gpumon_exporter_gpus_lost)", "lost {{instance}}", "B")]),
        panels.lines("Mock: scrapes", "Expositions that the mock served.", units.RequestsPerSecond,
                     prom(_rate("gpumon_mock_scrapes_total", "instance"), "{{instance}}")),
        panels.lines("Mock: GPUs", "GPUs that are alive in the mock.", style.COUNT,
                     prom("sum by (instance) (gpumon_mock_gpus)", "{{instance}}")),
    ]  # fmt: skip


def build() -> models.Dashboard:
    sections: Sequence[tuple[str, Sequence[AnyPanel]]] = [
        ("", [*health(), *services()]),
        ("Collectors", collector()),
        ("Delivery and spool", delivery()),
        ("Sinks", sink()),
        ("Exporters", exporters()),
    ]
    return page(
        PIPELINE_UID,
        "Is telemetry arriving, how late, and what is in its way.",
        variables=[prometheus_variable()],
        sections=sections,
    )
