"""The partitions this sink reads, where each stands, and where each begins. Pure: the loop does the asking.

Three offsets of a partition: `position` is the next message to take, `handed_over` is where the last sealed batch
ended (the table will hold it when that batch is committed), `committed` is what the table holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from services.sink.batch import Partition, Span

Place = tuple[str, int]
"""(topic, partition number)."""

NOWHERE: Final = -1
"""Position of a partition that is not started: no message has this offset."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a partition begins."""

    offset: int
    lost: int = 0
    """Messages between the stored offset and the first the broker still has."""
    beyond_end: bool = False
    """The stored offset is past the end: the log is not the one it was counted in. Begun anew."""


def starting_point(stored: int | None, low: int, high: int) -> Start:
    """`stored`: the table's offset, None if it has none; `low` and `high`: first offset kept, and the next to come."""
    if stored is None:
        return Start(low)
    if stored > high:
        return Start(low, beyond_end=True)
    if stored < low:
        return Start(low, lost=low - stored)
    return Start(stored)


@dataclass(slots=True)
class Owned:
    """A partition of ours. Not `started` until its offset is known and sought; messages before that are dropped."""

    partition: Partition | None = None
    started: bool = False
    position: int = NOWHERE
    handed_over: int = 0
    committed: int = 0
    told_kafka: int = -1


@dataclass(slots=True)
class Assignment:
    """State of what is assigned to this sink, by place and, for the hot path, by topic and number: the same objects."""

    owned: dict[Place, Owned] = field(default_factory=dict)
    by_topic: dict[str, dict[int, Owned]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, places: Iterable[Place]) -> None:
        for topic, number in places:
            self.owned[topic, number] = self.by_topic[topic][number] = Owned()

    def remove(self, places: Iterable[Place]) -> None:
        for topic, number in places:
            self.owned.pop((topic, number), None)
            self.by_topic[topic].pop(number, None)

    def waiting(self) -> list[Place]:
        """Places that must be started."""
        return [place for place, state in self.owned.items() if not state.started]

    def started(self) -> list[Place]:
        return [place for place, state in self.owned.items() if state.started]

    def start(self, place: Place, partition: Partition, offset: int) -> None:
        state = self.owned.get(place)
        if state is not None:
            state.partition, state.started = partition, True
            state.position = state.handed_over = state.committed = offset
            state.told_kafka = -1

    def restart(self, place: Place) -> None:
        """Its offset must be looked up again."""
        state = self.owned.get(place)
        if state is not None:
            state.started, state.position = False, NOWHERE

    def restart_all(self) -> None:
        for place in self.owned:
            self.restart(place)

    def take(self, place: Place, offset: int) -> int | None:
        """Move past the message at `offset`. Messages missing before it; None: not to be taken (not ours, not started,
        or taken before)."""
        state = self.owned.get(place)
        if state is None or not state.started or offset < state.position:
            return None
        missing = offset - state.position
        state.position = offset + 1
        return missing

    def rewind(self, place: Place, offset: int) -> None:
        """What was taken last is to come again: the next message taken is the one at `offset`."""
        self.owned[place].position = offset

    def seal(self) -> dict[Partition, Span]:
        """What has been taken since the last call; it belongs to the batch that is handed over now."""
        spans: dict[Partition, Span] = {}
        for state in self.owned.values():
            if state.started and state.partition is not None and state.position != state.handed_over:
                spans[state.partition] = Span(state.handed_over, state.position)
                state.handed_over = state.position
        return spans

    def commit(self, spans: dict[Partition, Span]) -> None:
        """The batch with `spans` is in the database."""
        for partition, span in spans.items():
            state = self.owned.get((partition.identity.topic, partition.number))
            if state is not None and state.partition == partition:
                state.committed = span.next

    def uncommitted_to_kafka(self) -> dict[Place, int]:
        """What the table holds and Kafka was not told; it counts as told with this call."""
        news: dict[Place, int] = {}
        for place, state in self.owned.items():
            if state.started and state.committed != state.told_kafka:
                news[place] = state.told_kafka = state.committed
        return news
