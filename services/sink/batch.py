"""What goes into one transaction: rows, GPU events, refused messages, and the offsets they reach to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final

from services.bus.identity import TopicIdentity
from services.bus.message import Message
from services.contract.event import GpuEvent
from services.sink.copy_format import to_copy
from services.sink.pgtime import Micros
from services.sink.rows import Row
from services.sink.validate import Invalid

_TIME: Final = itemgetter(0)
_GPU_ID: Final = itemgetter(1)


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of one life of a topic: what an offset belongs to."""

    identity: TopicIdentity
    number: int


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets of a partition covered by a batch: from `first` (what the table must hold) up to `next`, exclusive."""

    first: int
    next: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that goes to the dead letters, and why."""

    message: Message
    verdict: Invalid


@dataclass(slots=True)
class Batch:
    """Being filled by the main loop. `rows` and `sources` run in parallel, as do `events` and `event_sources`."""

    rows: list[Row] = field(default_factory=list)
    sources: list[Message] = field(default_factory=list)
    events: list[GpuEvent] = field(default_factory=list)
    event_sources: list[Message] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    deferred: list[Message] = field(default_factory=list)
    """Messages of GPUs that have no gpu_id yet."""
    opened: float = 0.0
    """Monotonic seconds when the first message came in."""

    def __len__(self) -> int:
        """Messages held."""
        return len(self.rows) + len(self.events) + len(self.refused) + len(self.deferred)

    def drop(self, unwanted: Callable[[Message], bool]) -> None:
        """Forget messages of partitions that another sink has now."""
        kept = [(row, source) for row, source in zip(self.rows, self.sources, strict=True) if not unwanted(source)]
        self.rows, self.sources = [row for row, _ in kept], [source for _, source in kept]
        pairs = [(e, source) for e, source in zip(self.events, self.event_sources, strict=True) if not unwanted(source)]
        self.events, self.event_sources = [event for event, _ in pairs], [source for _, source in pairs]
        self.refused = [letter for letter in self.refused if not unwanted(letter.message)]
        self.deferred = [message for message in self.deferred if not unwanted(message)]


@dataclass(slots=True)
class Sealed:
    """A full batch, ready to be written: nothing in it changes but what the ladder finds."""

    batch: Batch
    spans: dict[Partition, Span]
    copy: bytearray
    """All rows in binary COPY format."""
    times: Counter[Micros]
    """Scrape time -> rows."""
    latest: dict[int, Micros]
    """gpu_id -> newest time."""
    letters_acknowledged: set[tuple[str, int, int]] = field(default_factory=set)
    """(topic, partition, offset) of the letters Kafka has: a second attempt does not send them again."""

    @property
    def rows(self) -> list[Row]:
        return self.batch.rows


def seal(batch: Batch, spans: dict[Partition, Span]) -> Sealed:
    """Format the rows and sum them up."""
    rows = batch.rows
    return Sealed(batch=batch, spans=spans, copy=to_copy(rows), times=Counter(map(_TIME, rows)), latest=newest(rows))


def newest(rows: list[Row]) -> dict[int, Micros]:
    """gpu_id -> newest time."""
    in_order = sorted(rows, key=_TIME)  # linear for rows that are, as most are, in a few ascending runs
    return dict(zip(map(_GPU_ID, in_order), map(_TIME, in_order), strict=True))
