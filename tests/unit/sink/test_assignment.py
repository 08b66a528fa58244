"""Where partitions start, what is taken, what a batch covers."""

from __future__ import annotations

import pytest

from services.bus.identity import TopicIdentity
from services.sink.assignment import Assignment, Start, starting_point
from services.sink.batch import Partition, Span

RAW = TopicIdentity("cluster", "raw", "id")
PLACE = ("raw", 3)
PARTITION = Partition(RAW, 3)


@pytest.mark.parametrize(
    ("stored", "low", "high", "start"),
    [
        (None, 0, 0, Start(0)),
        (None, 50, 90, Start(50)),
        (60, 50, 90, Start(60)),
        (90, 50, 90, Start(90)),
        (40, 50, 90, Start(50, lost=10)),
        (91, 50, 90, Start(50, beyond_end=True)),
        (700, 0, 0, Start(0, beyond_end=True)),
    ],
)
def test_starting_point(stored: int | None, low: int, high: int, start: Start) -> None:
    assert starting_point(stored, low, high) == start


def started(offset: int = 10) -> Assignment:
    assignment = Assignment()
    assignment.add([PLACE])
    assignment.start(PLACE, PARTITION, offset)
    return assignment


def test_messages_are_taken_in_order_and_gaps_are_noticed() -> None:
    assignment = started(10)
    assert [assignment.take(PLACE, offset) for offset in (10, 11, 15, 16)] == [0, 0, 3, 0]


def test_what_was_taken_before_or_is_not_ours_is_not_taken() -> None:
    assignment = started(10)
    assert assignment.take(PLACE, 9) is None
    assert assignment.take(("raw", 4), 0) is None
    assignment.add([("raw", 5)])
    assert assignment.take(("raw", 5), 0) is None, "its offset is not known yet"


def test_a_batch_covers_what_was_taken_since_the_last() -> None:
    assignment = started(10)
    assert assignment.seal() == {}
    assignment.take(PLACE, 10)
    assignment.take(PLACE, 11)
    assert assignment.seal() == {PARTITION: Span(10, 12)}
    assert assignment.seal() == {}
    assignment.take(PLACE, 14)
    assert assignment.seal() == {PARTITION: Span(12, 15)}, "a span has no holes: what was lost is passed over"


def test_a_partition_given_away_and_back_starts_afresh() -> None:
    assignment = started(10)
    assignment.take(PLACE, 10)
    assignment.remove([PLACE])
    assert assignment.seal() == {}
    assignment.add([PLACE])
    assert assignment.waiting() == [PLACE]
    assert assignment.take(PLACE, 11) is None


def test_starting_a_partition_that_was_taken_away_meanwhile_does_nothing() -> None:
    assignment = Assignment()
    assignment.start(PLACE, PARTITION, 5)
    assert assignment.owned == {}


def test_kafka_is_told_only_what_the_table_holds_and_once() -> None:
    assignment = started(10)
    assert assignment.uncommitted_to_kafka() == {PLACE: 10}
    assignment.take(PLACE, 10)
    spans = assignment.seal()
    assert assignment.uncommitted_to_kafka() == {}
    assignment.commit(spans)
    assert assignment.uncommitted_to_kafka() == {PLACE: 11}
    assert assignment.uncommitted_to_kafka() == {}


def test_a_commit_of_another_life_of_the_topic_does_not_count() -> None:
    assignment = started(10)
    older = Partition(TopicIdentity("former cluster", "raw", "id"), 3)
    assignment.commit({older: Span(0, 700)})
    assert assignment.owned[PLACE].committed == 10
