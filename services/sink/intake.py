"""Steps 2 and 3 of the loop: messages of a poll -> rows, events and refusals in the batch being filled."""

from __future__ import annotations

from collections.abc import Sequence

from services.bus.message import Message
from services.ops.clock import Clock
from services.sink import happenings
from services.sink.batch import Batch, Refused
from services.sink.membership import Membership
from services.sink.metrics import SinkMetrics
from services.sink.rows import RowMapper
from services.sink.validate import Invalid


class Intake:
    """Belongs to the main loop."""

    def __init__(
        self, membership: Membership, mapper: RowMapper, metrics: SinkMetrics, clock: Clock, *, raw_topic: str
    ) -> None:
        self._membership = membership
        self._mapper = mapper
        self._metrics = metrics
        self._clock = clock
        self._raw_topic = raw_topic

    def take(self, messages: Sequence[Message], batch: Batch) -> None:
        """Everything that counts into `batch`. Raises KafkaException for errors that stay."""
        started = self._clock.monotonic()
        self._mapper.set_now(self._clock.time())
        self._take_quickly(messages, batch)
        self._metrics.messages.inc(len(messages))
        self._metrics.decode_seconds.observe(self._clock.monotonic() - started)

    def _take_quickly(self, messages: Sequence[Message], batch: Batch) -> None:
        """The expected: the next sample of a partition of ours, valid, of a known GPU. Written out in one loop, because
        every call in here is paid per event: 0.5 us, a tenth of the sink. All else goes to `_take_slowly`."""
        partitions, raw_topic = self._membership.assignment.by_topic[self._raw_topic], self._raw_topic
        to_row, rows, sources = self._mapper.row, batch.rows, batch.sources
        for message in messages:
            state = partitions.get(message.partition())
            if (
                state is None
                or message.offset() != state.position
                or message.error() is not None
                or message.topic() != raw_topic
            ):
                self._take_slowly(message, batch)
                continue
            state.position += 1
            try:
                row = to_row(message.key(), message.value())
            except Invalid as verdict:
                batch.refused.append(Refused(message, verdict))
                continue
            if row is None:
                batch.deferred.append(message)
            else:
                rows.append(row)
                sources.append(message)

    def _take_slowly(self, message: Message, batch: Batch) -> None:
        """Errors, gaps, messages of partitions that are not ours or not started, and GPU events."""
        if not self._membership.admit(message):
            return
        if message.topic() == self._raw_topic:
            take_sample(self._mapper, message, batch)
        else:
            take_event(self._mapper, message, batch)

    def take_deferred(self, batch: Batch) -> None:
        """Messages whose GPU had to be registered first."""
        deferred, batch.deferred = batch.deferred, []
        for message in deferred:
            take_sample(self._mapper, message, batch)


def take_sample(mapper: RowMapper, message: Message, batch: Batch) -> None:
    """A message of the raw topic into `batch`: a row, deferred until its GPU is registered, or refused."""
    try:
        row = mapper.row(message.key(), message.value())
    except Invalid as verdict:
        batch.refused.append(Refused(message, verdict))
        return
    if row is None:
        batch.deferred.append(message)
    else:
        batch.rows.append(row)
        batch.sources.append(message)


def take_event(mapper: RowMapper, message: Message, batch: Batch) -> None:
    """A message of the topic of GPU events into `batch`."""
    try:
        event = happenings.decode(message.value())
        mapper.check_event(event)
    except Invalid as verdict:
        batch.refused.append(Refused(message, verdict))
    else:
        batch.events.append(event)
        batch.event_sources.append(message)
