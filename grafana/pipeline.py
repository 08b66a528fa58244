"""Dashboard "Pipeline": exporter -> collector -> Kafka -> sink, from what each says of itself, by Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.common import BarAlignment

from grafana import panels, style
from grafana.frame import PIPELINE_UID, page, prometheus_variable
from grafana.panels import AnyPanel, Overrides, cell
from grafana.queries import Query, prom
from grafana.style import Thresholds

EVERY = "[$__rate_interval]"
BAR = "1m"
"""A bar is at least a minute wide: four scrapes of 15 s, below which an increase cannot be told."""

UP_OR_DOWN = panels.text_map({"1": ("up", style.GREEN), "0": ("down", style.RED)})


NO_EXPORTER: Final = "No gpumon exporter is scraped"
NO_MOCK: Final = "No mock is scraped"
OF_EXPORTER: Final = "Only `gpumon exporter` tells it: dcgm-exporter and the mock do not."
OF_MOCK: Final = "Only the mock tells it."
ESTIMATED: Final = (
    "The mean is exact. 99 % (and the median) are estimated from the buckets of a histogram: mostly too high, by up to "
    "the width of a bucket, which may be half of the value."
)
ALIVE: Final = {
    "collector": "gpumon_collector_targets",
    "sink": "gpumon_sink_partitions_assigned",
    "exporter": "gpumon_exporter_gpus_lost",
}
"""Role -> what it tells in every scrape: where that is not there, the role was not scraped."""


def _lines(
    title: str, description: str, unit: str, query: Query | Sequence[Query], of: Thresholds | None = None
) -> timeseries.Panel:
    """Prometheus answers for the same times for all series: a null is always a gap, however short."""
    return panels.lines(title, description, unit, query, of=of).span_nulls(False)


def _last(metric: str) -> str:
    """A gauge over time. Bare, Prometheus repeats a sample for five minutes where it was away itself."""
    return f"last_over_time({metric}{EVERY})"


def _rate(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{EVERY}))"


def _grown(metric: str, by: str) -> str:
    """increase() does not see how a counter began: many appear with their first event. A series that is new while its
    process was there before counts from zero."""
    new = f"(({metric} unless {metric} offset $__interval) and on (job, instance) up offset $__interval == 1)"
    return f"sum by ({by}) ({new} or increase({metric}[$__interval]))"


def _bars(title: str, description: str, metric: str, by: str) -> timeseries.Panel:
    """How much a counter grew in each bar. Many counters appear with their first event: where there is none, "none" is
    zero as long as the role was scraped, and nothing where it was not."""
    role = metric.split("_")[1]
    none = f'label_replace(0 * max(last_over_time({ALIVE[role]}[$__interval])), "{by}", "none", "", "")'
    query = prom(f"{_grown(metric, by)} or on () {none}", f"{{{{{by}}}}}")
    panel = (
        panels.bars(title, description, style.COUNT, query, BarAlignment.BEFORE)
        .interval(BAR)
        .axis_soft_max(1)
        .span_nulls(False)
    )
    return panels.override(panel, {"/^none$/": panels.fixed(style.GREY)})


def _mean(metric: str) -> str:
    return f"sum(rate({metric}_sum{EVERY})) / sum(rate({metric}_count{EVERY}))"


def _quantile(share: float, metric: str) -> str:
    return f"histogram_quantile({share}, {_rate(f'{metric}_bucket', 'le')})"


def _spread(metric: str) -> list[Query]:
    return [
        prom(_mean(metric), "mean"),
        prom(_quantile(0.5, metric), "median", "B"),
        prom(_quantile(0.99, metric), "99 %", "C"),
    ]


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
            prom(f"max by (job, instance) ({_last('up')})", "{{job}} {{instance}}"),
            UP_OR_DOWN, per_page=12).span(12).height(9),
        panels.states(
            "Targets",
            "What the collectors read. Down: the scrape was refused (time-out, HTTP error, not a metrics page).",
            prom(f"max by (target) ({_last('gpumon_collector_up')})", "{{target}}"),
            UP_OR_DOWN, per_page=12).span(12).height(9),
    ]  # fmt: skip


def collector() -> list[AnyPanel]:
    stale = prom("max by (target) (gpumon_collector_staleness_seconds)", "", instant=True)
    columns: Overrides = {
        "/^Value$/": {**cell(style.FRESHNESS, units.Seconds), "displayName": "since the last good scrape"},
        "/^Time$/": {"custom.hidden": True},
    }
    return [
        _lines("Values scraped", "Read from exporters, by collector.", units.CountsPerSecond,
               prom(_rate("gpumon_collector_samples_scraped_total", "instance"), "{{instance}}")),
        _lines(
            "Events", "Accepted: Kafka (or the database) acknowledged, or synced to the spool.", units.CountsPerSecond,
            [prom(_rate(f"gpumon_collector_events_{what}_total", "instance"), what + " {{instance}}", ref)
             for ref, what in zip("ABC", ("accepted", "published", "spooled"), strict=True)]),
        _bars("Scrapes refused", "Nothing, or not all, of these scrapes was accepted; by reason.",
              "gpumon_collector_scrapes_refused_total", "reason"),
        _bars("Scrapes left out", "The scrape before still ran: the exporter is too slow for the interval.",
              "gpumon_collector_missed_ticks_total", "target"),
        _lines("Scrape duration", "From request to whole body; the slowest ten.", units.Seconds,
               prom(f"topk(10, max by (target) ({_last('gpumon_collector_scrape_duration_seconds')}))", "{{target}}")),
        panels.override(panels.table("Staleness", "Since when a target has not been read.", stale), columns),
    ]  # fmt: skip


def delivery() -> list[AnyPanel]:
    return [
        _lines(
            "Waiting", "Outstanding: given to Kafka, not acknowledged. Waiting: not yet given to Kafka or the spool.",
            style.COUNT,
            [prom(f"sum by (instance) ({_last('gpumon_collector_events_outstanding')})", "outstanding {{instance}}"),
             prom(f"sum by (instance) ({_last('gpumon_collector_events_waiting')})", "waiting {{instance}}", "B")]),
        _bars("Delivery failures", "Messages that were not acknowledged; they go to the spool.",
              "gpumon_collector_delivery_failures_total", "reason"),
        _lines("Spool fill", "Share of SPOOL_MAX_BYTES. At 1 new samples are refused.", units.PercentUnit,
               prom(f"max by (instance) ({_last('gpumon_collector_spool_bytes')}"
                    f" / {_last('gpumon_collector_spool_max_bytes')})", "{{instance}}"), of=style.SPOOL),
        _lines("Spool age", "Age of the oldest message on disk.", units.Seconds,
               prom(f"max by (instance) ({_last('gpumon_collector_spool_oldest_seconds')})", "{{instance}}")),
    ]  # fmt: skip


def sink() -> list[AnyPanel]:
    steps = [("gpumon_sink_batch_age_seconds", "first message to commit"), ("gpumon_sink_copy_seconds", "COPY"),
             ("gpumon_sink_commit_seconds", "commit")]  # fmt: skip
    return [
        _lines(
            "Rows written", "New rows, and rows that were there already (sent twice, stored once).",
            units.WritesPerSecond,
            [prom(_rate("gpumon_sink_rows_inserted_total", "instance"), "inserted {{instance}}"),
             prom(_rate("gpumon_sink_rows_duplicate_total", "instance"), "duplicate {{instance}}", "B")]),
        _lines(
            "Freshness of rows", f"Scrape to commit in the database. The goal is one second. {ESTIMATED}",
            units.Seconds, _spread("gpumon_sink_freshness_seconds"), of=style.INGEST_FRESHNESS),
        _lines("Lag by partition", "Messages in Kafka that are not in the database.", style.COUNT,
               prom(f"sum by (topic, partition) ({_last('gpumon_sink_lag_messages')})", "{{topic}} {{partition}}")),
        _bars("Write path", "Batches by the way they took: COPY in one go, or the slower rungs below it.",
              "gpumon_sink_batches_total", "path"),
        _lines("Batch size", f"Rows in a batch. {ESTIMATED}", style.COUNT, _spread("gpumon_sink_batch_rows")),
        _lines(
            "Where the time goes", f"Of a batch: waiting for rows, writing, committing. {ESTIMATED}", units.Seconds,
            [*(prom(_mean(metric), f"{step}, mean", ref) for ref, (metric, step) in zip("ABC", steps, strict=True)),
             *(prom(_quantile(0.99, metric), f"{step}, 99 %", ref)
               for ref, (metric, step) in zip("DEF", steps, strict=True))]),
        _bars("Retries", "Attempts that failed and were repeated, by PostgreSQL's SQLSTATE.",
              "gpumon_sink_retries_total", "sqlstate"),
        _bars("Dead letters by reason", "Why messages could not be stored.",
              "gpumon_sink_dead_letters_total", "reason"),
        panels.states(
            "Sinks", "Paused: reading waits because the database or Kafka is behind.",
            prom(f"max by (instance) ({_last('gpumon_sink_paused')})", "{{instance}}"),
            panels.text_map({"0": ("reading", style.GREEN), "1": ("paused", style.ORANGE)})),
    ]  # fmt: skip


def exporters() -> list[AnyPanel]:
    return [
        _lines("Age of the reading", f"How old the values are that `gpumon exporter` serves. {OF_EXPORTER}",
               units.Seconds,
               prom(f"max by (instance) ({_last('gpumon_exporter_reading_age_seconds')})", "{{instance}}"),
               of=style.FRESHNESS).no_value(NO_EXPORTER),
        _lines("Read duration", f"How long reading all GPUs of the host takes. {OF_EXPORTER}", units.Seconds,
               prom(f"max by (instance) ({_last('gpumon_exporter_read_duration_seconds')})", "{{instance}}"),
               ).no_value(NO_EXPORTER),
        _bars("Failed readings", f"Readings that failed as a whole, by what the trouble was. {OF_EXPORTER}",
              "gpumon_exporter_read_failures_total", "trouble").no_value(NO_EXPORTER),
        _lines(
            "GPUs served", f"GPUs in the newest reading, and GPUs that are lost. {OF_EXPORTER}", style.COUNT,
            [prom(f"max by (instance) ({_last('gpumon_exporter_gpus')})", "{{instance}}"),
             prom(f"max by (instance) ({_last('gpumon_exporter_gpus_lost')})", "lost {{instance}}", "B")],
        ).no_value(NO_EXPORTER),
        _lines("Mock: scrapes", f"Expositions that the mock served. {OF_MOCK}", units.RequestsPerSecond,
               prom(_rate("gpumon_mock_scrapes_total", "instance"), "{{instance}}")).no_value(NO_MOCK),
        _lines("Mock: GPUs", f"GPUs that are alive in the mock. {OF_MOCK}", style.COUNT,
               prom(f"sum by (instance) ({_last('gpumon_mock_gpus')})", "{{instance}}")).no_value(NO_MOCK),
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
