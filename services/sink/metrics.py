"""What the sink says of itself on /metrics. Every name carries its unit."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client import Counter as CounterMetric
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from services.sink.ladder import Rung
from services.sink.pgtime import Micros, to_unix
from services.sink.validate import Reason

_PREFIX: Final = "gpumon_sink_"
# Of a value nothing is known but its bucket: up to a minute, and of sizes, none is wider than a factor of 2.5.
_BELOW_GOAL: Final = tuple(tenth / 10 for tenth in range(1, 11))
"""Seconds: 0.1 to 1, the goal for scrape to commit, in tenths."""
_BACKLOG: Final = (20, 30, 60, 120, 300, 600, 1200, 3600, 7200, 21_600, 43_200, 86_400)
FRESHNESS_BUCKETS: Final = (0.05, *_BELOW_GOAL, 1.5, 2, 3, 5, 10, *_BACKLOG)
"""Seconds. Fine below the goal of one second, coarse where a backlog of hours is being worked off."""
_AGES: Final = (0.01, 0.02, 0.05, *sorted((*_BELOW_GOAL, 0.55)), 1.5, 2, 3, 5, 10, 20, 30, 60)
"""Seconds. Most batches of a quiet pipeline are a little older than BATCH_TIMEOUT (0.5): a bucket ends right above."""
_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30)
_ROWS: Final = (*(step * 10**power for power in range(6) for step in (1, 2, 5)), 10**6)
"""1, 2, 5, 10 ... to the largest BATCH_SIZE that is allowed."""
_BYTES: Final = tuple(1024 * 2**step for step in range(17))  # 1 KiB to 64 MiB


class WeightedHistogram(Collector):
    """A histogram that takes many equal values in one call: thousands of rows share one scrape's time."""

    def __init__(self, name: str, documentation: str, bounds: Iterable[float]) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, times: int) -> None:
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def collect(self) -> Iterator[HistogramMetricFamily]:
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        buckets = list(zip(names, accumulate(self._counts), strict=True))
        yield HistogramMetricFamily(self._name, self._documentation, buckets=buckets, sum_value=self._sum)


class SinkMetrics:
    """All series of one sink, in the registry given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> CounterMetric:
            return CounterMetric(_PREFIX + name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(_PREFIX + name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(_PREFIX + name, text, buckets=buckets, registry=registry)

        self.messages = counter("messages_total", "Messages read from Kafka.")
        self.rows_inserted = counter("rows_inserted_total", "Rows written to gpu_metrics.")
        self.rows_duplicate = counter("rows_duplicate_total", "Rows that were in gpu_metrics already.")
        self.gpu_events = counter("gpu_events_inserted_total", "Rows written to gpu_events and gpu_snapshots.")
        self.dead_letters = counter("dead_letters_total", "Messages sent to the dead letters.", "reason")
        self.batches = counter("batches_total", "Batches committed, by the way they took.", "path")
        self.retries = counter("retries_total", "Attempts that failed and were repeated.", "sqlstate")
        self.fenced = counter("fenced_total", "Batches dropped because another sink has the partition.")
        self.gap = counter("offset_gap_messages_total", "Messages the broker had no longer.", "topic", "partition")
        self.restarts = counter("offset_restarts_total", "Partitions begun anew, stored offset beyond their end.")
        self.rebalances = counter("rebalances_total", "Changes of the partitions assigned.", "kind")
        self.identities = counter("identities_registered_total", "GPU identities new or changed.")

        # From zero on: a series that begins at 1 has no increase, and the first failure would not be seen.
        for reason in Reason:
            self.dead_letters.labels(reason)
        for rung in Rung:
            self.batches.labels(rung)

        self.lag = gauge("lag_messages", "Messages in Kafka that are not in the database.", "topic", "partition")
        self.assigned = gauge("partitions_assigned", "Partitions this sink reads.")
        self.paused = gauge("paused", "1 while reading is paused because the database or Kafka is behind.")
        self.freshness_now = gauge("freshness_seconds_last", "Scrape to commit of the newest row of the last batch.")
        self.last_commit = gauge("last_commit_timestamp_seconds", "Unix time of the last commit in the database.")
        self.database_up = gauge("database_up", "1 if the last access to the database succeeded.")

        self.freshness = WeightedHistogram(
            _PREFIX + "freshness_seconds", "Scrape to commit in the database, per row.", FRESHNESS_BUCKETS
        )
        registry.register(self.freshness)
        self.batch_rows = histogram("batch_rows", "Rows in a batch.", _ROWS)
        self.batch_bytes = histogram("batch_bytes", "Size of a batch in COPY format.", _BYTES)
        self.batch_age = histogram("batch_age_seconds", "First message read to commit.", _AGES)
        self.decode_seconds = histogram("decode_seconds", "Decoding and mapping one poll's messages.", _SECONDS)
        self.seal_seconds = histogram("seal_seconds", "Formatting a batch for COPY.", _SECONDS)
        self.copy_seconds = histogram("copy_seconds", "Writing a batch's rows.", _SECONDS)
        self.commit_seconds = histogram("commit_seconds", "Committing a transaction.", _SECONDS)

    def forget(self, topic: str, partition: int) -> None:
        """A partition is no longer ours: its lag is another sink's to report."""
        self.lag.remove(topic, str(partition))

    def committed(self, now: float, times: Counter[Micros]) -> None:
        """A batch was committed at `now` (Unix seconds); `times` counts its rows by scrape time."""
        self.last_commit.set(now)
        for time, rows in times.items():
            self.freshness.observe(max(0.0, now - to_unix(time)), rows)
        if times:
            self.freshness_now.set(now - to_unix(max(times)))
