"""Batches, what is remembered of the newest sample, waiting times, and the histogram of equal values."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from services.bus.identity import TopicIdentity
from services.contract.row import COLUMNS
from services.sink.backoff import LONGEST, Backoff
from services.sink.batch import Batch, Partition, Refused, Span, newest, seal
from services.sink.latest import Latest
from services.sink.metrics import SinkMetrics
from services.sink.pgtime import from_unix
from services.sink.rows import Row
from services.sink.validate import Invalid, Reason
from tests.support.copy_parse import parse_copy
from tests.support.messages import FakeMessage

SPANS = {Partition(TopicIdentity("c", "raw", ""), 0): Span(0, 3)}


def row(time: int, gpu_id: int) -> Row:
    return (time, gpu_id, *(None,) * (len(COLUMNS) - 2))


def test_a_sealed_batch_holds_its_rows_as_copy_its_times_and_its_newest() -> None:
    rows = [row(20, 1), row(10, 2), row(10, 1), row(30, 2)]
    sealed = seal(Batch(rows=rows), SPANS)
    assert len(parse_copy(bytes(sealed.copy))) == 4
    assert sealed.times == Counter({10: 2, 20: 1, 30: 1})
    assert sealed.latest == {1: 20, 2: 30}, "a late row does not move a GPU back"
    assert sealed.spans == SPANS


def test_newest_of_nothing() -> None:
    assert newest([]) == {}


def test_rows_of_partitions_given_away_are_dropped_with_their_sources() -> None:
    messages = [FakeMessage(b"", partition_=number) for number in (0, 1, 0)]
    batch = Batch(
        rows=[row(1, 0), row(1, 1), row(2, 0)],
        sources=list(messages),
        refused=[Refused(messages[1], Invalid(Reason.RANGE, ""))],
        deferred=[messages[1], messages[2]],
    )
    batch.drop(lambda message: message.partition() == 1)
    assert [found[1] for found in batch.rows] == [0, 0]
    assert batch.sources == [messages[0], messages[2]]
    assert (batch.refused, batch.deferred) == ([], [messages[2]])
    assert len(batch) == 3


class Recorder:
    """Stands in for the connection."""

    def __init__(self) -> None:
        self.given: list[dict[str, Any]] = []

    def execute(self, _query: str, given: dict[str, Any]) -> None:
        self.given.append(given)


def test_latest_is_written_at_most_once_a_second_and_only_moves_forward() -> None:
    latest, connection = Latest(), Recorder()
    assert latest.due(100.0, {1: 5})
    latest.committed({1: 5}, 100.0)
    assert not latest.due(100.5, {1: 6})
    latest.committed({1: 6, 2: 9}, None)
    latest.committed({1: 4}, None)
    assert latest.pending
    assert latest.due(101.0, {})
    latest.write(connection, {2: 8, 3: 1})  # type: ignore[arg-type]  # a hand-made fake
    assert (connection.given[0]["ids"], connection.given[0]["times"]) == ([1, 2, 3], [6, 9, 1])
    latest.committed({2: 8, 3: 1}, 101.0)
    assert not latest.pending


def test_what_was_rolled_back_stays_pending() -> None:
    latest = Latest()
    latest.committed({1: 5}, None)
    latest.write(Recorder(), {1: 7})  # type: ignore[arg-type]  # a hand-made fake
    assert latest.pending


def test_waits_double_up_to_a_bound_and_differ() -> None:
    waits = [Backoff(random.Random(seed)) for seed in range(2)]
    series = [[backoff.next() for _ in range(12)] for backoff in waits]
    assert series[0] != series[1]
    for one in series:
        assert one[0] <= 0.1
        assert all(wait <= LONGEST for wait in one)
        assert one[-1] >= LONGEST / 2


def test_freshness_counts_every_row_of_a_scrape() -> None:
    registry = CollectorRegistry()
    metrics = SinkMetrics(registry)
    metrics.committed(1000.0, Counter({from_unix(999.55): 3, from_unix(998.0): 1}))
    text = generate_latest(registry).decode()
    assert 'gpumon_sink_freshness_seconds_bucket{le="0.4"} 0.0' in text
    assert 'gpumon_sink_freshness_seconds_bucket{le="0.5"} 3.0' in text
    assert 'gpumon_sink_freshness_seconds_bucket{le="2.0"} 4.0' in text
    assert "gpumon_sink_freshness_seconds_count 4.0" in text
    assert registry.get_sample_value("gpumon_sink_freshness_seconds_sum") == pytest.approx(3 * 0.45 + 2.0)
    assert registry.get_sample_value("gpumon_sink_freshness_seconds_last") == pytest.approx(0.45)


def test_lag_of_a_partition_given_away_is_no_longer_told() -> None:
    registry = CollectorRegistry()
    metrics = SinkMetrics(registry)
    metrics.lag.labels("raw", 3).set(5)
    metrics.forget("raw", 3)
    metrics.forget("raw", 4)
    assert registry.get_sample_value("gpumon_sink_lag_messages", {"topic": "raw", "partition": "3"}) is None
