"""What the roles say of themselves: read from their /metrics, added up, shown as a line."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from services.demo.process import RoleProcess


@dataclass(frozen=True, slots=True)
class Readings:
    """Samples of one /metrics answer."""

    samples: tuple[Sample, ...] = ()

    @classmethod
    def parse(cls, text: str | None) -> Readings:
        """Empty when the service did not answer."""
        families = text_string_to_metric_families(text) if text else ()
        return cls(tuple(sample for family in families for sample in family.samples))

    def total(self, name: str, **labels: str) -> float:
        """Sum over all series of `name` that carry `labels`; 0 when there is none yet."""
        return sum(s.value for s in self._named(name) if labels.items() <= s.labels.items())

    def count(self, name: str, value: float) -> int:
        """Series of `name` that have this value."""
        return sum(s.value == value for s in self._named(name))

    def quantile(self, name: str, q: float) -> float | None:
        """Quantile of a histogram as Prometheus' histogram_quantile() gives it; None without observations."""
        buckets: dict[float, float] = {}
        for sample in self._named(f"{name}_bucket"):
            bound = float(sample.labels["le"])
            buckets[bound] = buckets.get(bound, 0.0) + sample.value
        return histogram_quantile(buckets, q)

    def _named(self, name: str) -> Iterable[Sample]:
        return (s for s in self.samples if s.name == name)


def histogram_quantile(buckets: Mapping[float, float], q: float) -> float | None:
    """Linear interpolation inside the bucket that holds the rank; the last finite bound when it is above all."""
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] == 0:
        return None
    rank = q * buckets[bounds[-1]]
    lower, below = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            if math.isinf(bound):
                return lower
            inside = buckets[bound] - below
            return lower + (bound - lower) * ((rank - below) / inside if inside else 1.0)
        lower, below = bound, buckets[bound]
    return lower


@dataclass(frozen=True, slots=True)
class Progress:
    """One look at the pipeline."""

    at: float
    """Monotonic seconds."""
    scraped: float = 0
    """Exposition samples read by the collector."""
    targets: float = 0
    targets_down: float = 0
    """Whose last scrape failed."""
    rows: float = 0
    duplicates: float = 0
    dead: float = 0
    evicted: float = 0
    """Messages the broker had dropped before the sink read them."""
    spooled: float = 0
    lag: float | None = None
    freshness_p50: float | None = None
    """Seconds from scrape to commit since the start."""
    freshness_p99: float | None = None

    def line(self, before: Progress) -> str:
        """One line for the terminal: rates since `before`, totals, lag, freshness."""
        seconds = max(self.at - before.at, 1e-9)
        lag = "?" if self.lag is None else f"{self.lag:.0f}"
        return (
            f"{(self.scraped - before.scraped) / seconds:9.0f} samples/s "
            f"{(self.rows - before.rows) / seconds:7.0f} rows/s {self.rows:9.0f} rows  "
            f"lag {lag:>5}  freshness p50 {_seconds(self.freshness_p50)} p99 {_seconds(self.freshness_p99)}"
            + (f"  spooled {self.spooled:.0f}" if self.spooled else "")
            + (f"  dead letters {self.dead:.0f}" if self.dead else "")
            + (f"  targets down {self.targets_down:.0f} of {self.targets:.0f}" if self.targets_down else "")
        )


def look(roles: Mapping[str, RoleProcess], previous: Progress | None = None) -> Progress:
    """Ask collector and sink. One that has stopped keeps its last figures (`previous`)."""
    before = previous or Progress(at=time.monotonic())
    return _of_sink(_readings(roles["sink"]), _of_collector(_readings(roles["collector"]), before))


def _readings(role: RoleProcess) -> Readings:
    return Readings.parse(role.get("/metrics"))


def _of_collector(says: Readings, before: Progress) -> Progress:
    if not says.samples:
        return before
    return replace(
        before,
        scraped=says.total("gpumon_collector_samples_scraped_total"),
        targets=says.total("gpumon_collector_targets"),
        targets_down=says.count("gpumon_collector_up", 0),
        spooled=says.total("gpumon_collector_spool_records"),
    )


def _of_sink(says: Readings, before: Progress) -> Progress:
    now = replace(before, at=time.monotonic())
    if not says.samples:
        return now
    return replace(
        now,
        rows=says.total("gpumon_sink_rows_inserted_total"),
        duplicates=says.total("gpumon_sink_rows_duplicate_total"),
        dead=says.total("gpumon_sink_dead_letters_total"),
        evicted=says.total("gpumon_sink_offset_gap_messages_total"),
        lag=says.total("gpumon_sink_lag_messages"),
        freshness_p50=says.quantile("gpumon_sink_freshness_seconds", 0.5),
        freshness_p99=says.quantile("gpumon_sink_freshness_seconds", 0.99),
    )


def _seconds(value: float | None) -> str:
    return "    ?" if value is None else f"{value:4.2f}s"
