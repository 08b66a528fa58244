"""What the collector says of itself on `/metrics`, read from its parts at the moment it is asked."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.collector.deliver import Bus, Deliverer
from services.collector.file_sd import TargetFiles
from services.collector.pool import Pool
from services.collector.spool import Spool
from services.collector.worker import Seen, Shared

_PREFIX = "gpumon_collector_"

_TARGET_GAUGES: tuple[tuple[str, str, Callable[[Seen], float | None]], ...] = (
    ("up", "1: the last scrape was read; 0: it was refused", lambda s: None if s.up is None else float(s.up)),
    ("scrape_duration_seconds", "from request to whole body, last scrape", lambda s: s.duration),
    ("read_duration_seconds", "reading and encoding the body, last scrape", lambda s: s.read_seconds),
    ("scrape_samples", "samples in the last scrape", lambda s: float(s.samples)),
    (
        "staleness_seconds",
        "since the last scrape that was read",
        lambda s: None if s.last_success is None else max(0.0, time.time() - s.last_success),
    ),
)
_TARGET_COUNTERS: tuple[tuple[str, str, Callable[[Seen], float]], ...] = (
    ("scrapes", "scrapes begun", lambda s: s.scrapes),
    ("missed_ticks", "scrapes left out because the one before still ran", lambda s: s.missed),
)


class CollectorMetrics(Collector):
    """Nothing is counted twice: the families are made from the counts that the parts keep."""

    def __init__(
        self,
        *,
        pool: Pool,
        shared: Shared,
        deliverer: Deliverer,
        bus: Bus,
        spool: Spool,
        files: TargetFiles,
    ) -> None:
        self._pool = pool
        self._shared = shared
        self._deliverer = deliverer
        self._bus = bus
        self._spool = spool
        self._files = files

    def collect(self) -> Iterator[Metric]:
        yield from self._targets()
        yield from self._scrapes()
        yield from self._delivery()
        yield from self._spooling()

    def _targets(self) -> Iterator[Metric]:
        workers = self._pool.workers
        yield _gauge("targets", "targets of this collector", len(workers))
        yield _gauge("target_files_failed", "target files whose last good list is in use", len(self._files.problems))
        for name, text, of in _TARGET_GAUGES:
            gauge = GaugeMetricFamily(_PREFIX + name, text, labels=["target"])
            for worker in workers:
                value = of(worker.seen)
                if value is not None:
                    gauge.add_metric([worker.target.source], value)
            yield gauge
        for name, text, count in _TARGET_COUNTERS:
            counter = CounterMetricFamily(_PREFIX + name, text, labels=["target"])
            for worker in workers:
                counter.add_metric([worker.target.source], count(worker.seen))
            yield counter

    def _scrapes(self) -> Iterator[Metric]:
        refused = Counter(self._shared.refused) + Counter(self._deliverer.counts.scrapes_refused)
        yield _by_reason("scrapes_refused", "scrapes of which nothing, or not all, was accepted", refused.items())
        yield _counter("samples_scraped", "samples read", self._shared.samples)
        yield _counter("samples_not_gpu", "samples left out: not of a GPU", self._shared.non_gpu)
        yield _counter("series_cut", "series left out: too many lost GPUs or XIDs in one scrape", self._shared.cut)
        counts = Counter(self._shared.snapshots)
        yield _counter("snapshots_published", "documents of GPUs published", counts.pop("published", 0))
        yield _by_reason("snapshots_failed", "attempts to fetch or publish them that failed", counts.items())
        yield _counter("scrapes_on_plan", "scrapes that carry their planned time", self._shared.on_plan)

    def _delivery(self) -> Iterator[Metric]:
        counts = self._deliverer.counts
        yield _counter(
            "events_accepted",
            "acknowledged by the bus (Kafka, or the database) or synced to the spool",
            counts.accepted,
        )
        yield _counter("events_published", "acknowledged by the bus, straight or from the spool", counts.published)
        yield _counter("events_spooled", "synced to the spool", counts.spooled)
        yield _counter("events_flushed", "acknowledged by the bus from the spool", counts.flushed)
        yield _by_reason("events_refused", "taken neither by the bus nor by the spool", counts.refused.items())
        yield _by_reason("delivery_failures", "messages the bus did not acknowledge", self._bus.errors.items())
        yield _gauge("events_outstanding", "given to the bus and not yet acknowledged", self._bus.outstanding)
        yield _gauge("events_waiting", "scraped and not yet given to the bus or the spool", self._deliverer.waiting)

    def _spooling(self) -> Iterator[Metric]:
        spool = self._spool
        yield _gauge("spool_bytes", "on disk", spool.bytes)
        yield _gauge("spool_max_bytes", "SPOOL_MAX_BYTES", spool.max_bytes)
        yield _gauge("spool_records", "messages waiting on disk", spool.records)
        yield _gauge("spool_oldest_seconds", "age of the oldest of them", spool.oldest_age)
        yield _gauge("spool_full", "1: the last write did not fit", float(spool.full))


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(_PREFIX + name, text, value=value)


def _by_reason(name: str, text: str, counts: Iterable[tuple[str, int]]) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, text, labels=["reason"])
    for reason, count in sorted(counts):
        family.add_metric([reason], count)
    return family
