"""The sink as a member of its consumer group: which partitions it has, where they start, whether they are paused.

New partitions are assigned paused, at offset 0. (An offset that must be asked for, such as the end, may be answered
late and override what is sought in the meantime: that skipped messages.) The loop then looks their offsets up (this may
take as long as an outage of the database and must not block a rebalance), seeks, and resumes them. Messages that slip
through before that are dropped by `Assignment.take`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from services.bus.identity import identify, watermarks
from services.bus.message import Message, consume
from services.ops.clock import Clock
from services.sink import offsets
from services.sink.assignment import Assignment, Place, Start, starting_point
from services.sink.batch import Partition, Span
from services.sink.metrics import SinkMetrics
from services.sink.offsets import Fenced
from services.sink.writer import Writer

log = logging.getLogger("sink")

WATERMARK_WITHIN: Final = 10.0
"""Seconds the broker has to say which offset is its oldest; asked only when messages are missing."""
LEAVE_WITHIN: Final = 10.0
"""Seconds. While it joins a group whose broker is gone, the client's close() waits as long as a session lasts, and the
group will notice by then anyway. Shorter than a service manager's patience."""
RETRY_AFTER: Final = 0.5
"""Seconds until partitions whose start failed are tried again."""
_PASSING: Final = frozenset({KafkaError._PARTITION_EOF})  # noqa: SLF001 - librdkafka's names begin so
_BEYOND: Final = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})  # noqa: SLF001
_REFUSED: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED})


def failed_for_good(error: KafkaError) -> bool:
    """The client that reports this does nothing any more; a new one may. (A message's error has the code only.)"""
    return bool(error.fatal()) or error.code() == KafkaError._FATAL  # noqa: SLF001 - librdkafka's names begin so


class WaitFor(Protocol):
    def __call__(self, future: Future[Any], /) -> Any:
        """The future's result; Kafka is polled meanwhile."""


class Membership:
    """Wraps the consumer's group side. All methods belong to the main loop's thread."""

    def __init__(
        self,
        *,
        consumer: Consumer,
        admin: AdminClient,
        topics: Sequence[str],
        group: str,
        writer: Writer,
        metrics: SinkMetrics,
        clock: Clock,
    ) -> None:
        self.assignment = Assignment()
        self._consumer = consumer
        self._admin = admin
        self._topics = list(topics)
        self._group = group
        self._writer = writer
        self._metrics = metrics
        self._clock = clock
        self._paused = False
        self._joined = False
        self._next_start = 0.0
        self._poll = 0
        self._said = ""
        self._sought: dict[Place, tuple[int, int]] = {}
        self._finish_in_flight: Callable[[], None]
        self._drop: Callable[[frozenset[Place]], None]

    def join(self, *, finish_in_flight: Callable[[], None], drop: Callable[[frozenset[Place]], None]) -> None:
        """Subscribe. The callbacks run inside polls, while partitions are taken away."""
        self._finish_in_flight = finish_in_flight
        self._drop = drop
        self._consumer.subscribe(
            self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def leave(self) -> None:
        """Leave the group, or go without a word where no broker answers."""
        closing = threading.Thread(target=self._consumer.close, name="leave", daemon=True)
        closing.start()
        closing.join(LEAVE_WITHIN)
        if closing.is_alive():
            log.warning("no broker answers: gone from the group without telling it")

    def problem(self) -> str | None:
        """For /readyz: None when every partition given to us is being read."""
        if not self._joined:
            return "not a member of the consumer group yet"
        waiting = self.assignment.waiting()
        return f"{len(waiting)} partitions wait for their offsets" if waiting else None

    # Rebalances

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._joined = True
        self._count("assigned", partitions)
        self.assignment.add((each.topic, each.partition) for each in partitions)
        consumer.incremental_assign([TopicPartition(each.topic, each.partition, 0) for each in partitions])
        if partitions:
            consumer.pause(partitions)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._count("revoked", partitions)
        if partitions:
            self._finish_in_flight()
        self._give_away(consumer, partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._count("lost", partitions)
        self._give_away(consumer, partitions)

    def _give_away(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        places = frozenset((each.topic, each.partition) for each in partitions)
        self._drop(places)
        self.assignment.remove(places)
        for topic, number in places:
            self._metrics.forget(topic, number)
        self._metrics.assigned.set(len(self.assignment.owned))
        consumer.incremental_unassign(partitions)

    def _count(self, kind: str, partitions: list[TopicPartition]) -> None:
        self._metrics.rebalances.labels(kind).inc()
        names = ",".join(f"{each.topic}/{each.partition}" for each in sorted(partitions)) or "none"
        log.info("partitions %s", kind, extra={"partitions": names})

    # Where partitions start

    def waiting(self) -> bool:
        """Is there a partition to start, and is it time to try?"""
        return bool(self.assignment.waiting()) and self._clock.monotonic() >= self._next_start

    def start(self, wait_for: WaitFor) -> None:
        """Look offsets up, seek, resume. What fails is tried again later. Raises what the writer could not repeat."""
        places = self.assignment.waiting()
        self._next_start = self._clock.monotonic() + RETRY_AFTER
        try:
            identities = identify(self._admin, sorted({topic for topic, _ in places}))
            partitions = [Partition(identities[topic], number) for topic, number in places]
            ends = watermarks(self._admin, places)
            stored = wait_for(self._writer.run(lambda c: offsets.load(c, self._group, partitions)))
            for place, partition in zip(places, partitions, strict=True):
                self._start_one(place, partition, stored.get(partition), ends[place], wait_for)
            self._said = ""
        except KafkaException as error:
            self._say_once(f"partitions cannot start yet: {error.args[0].str()}", len(places))
        except Fenced as reason:
            log.warning("looking offsets up again: %s", reason)
        self._metrics.assigned.set(len(self.assignment.owned))

    def _say_once(self, trouble: str, waiting: int) -> None:
        """One line per change of state, not one per attempt."""
        if trouble != self._said:
            log.warning(trouble, extra={"waiting": waiting})
            self._said = trouble

    def _start_one(
        self, place: Place, partition: Partition, stored: int | None, ends: tuple[int, int], wait_for: WaitFor
    ) -> None:
        topic, number = place
        start = starting_point(stored, *ends)
        self._tell(place, start, stored, *ends)
        if stored != start.offset:
            wait_for(self._writer.run(lambda c: offsets.begin(c, self._group, partition, start.offset, stored)))
        if place not in self.assignment.owned:
            return  # taken away while we waited
        self._go_to(TopicPartition(topic, number, start.offset))
        self.assignment.start(place, partition, start.offset)
        if not self._paused:
            self._consumer.resume([TopicPartition(topic, number)])

    def _go_to(self, target: TopicPartition) -> None:
        """Seek; a partition whose topic was deleted and made again cannot be sought until it is assigned anew."""
        try:
            self._consumer.seek(target)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._STATE:  # noqa: SLF001 - librdkafka's names begin so
                raise
            self._consumer.incremental_unassign([target])
            self._consumer.incremental_assign([target])

    def _tell(self, place: Place, start: Start, stored: int | None, low: int, high: int) -> None:
        topic, number = place
        facts = {"topic": topic, "partition": number, "stored": stored, "low": low, "high": high}
        if start.beyond_end:
            log.error("stored offset is beyond the end of the log: begun anew (repeats are recognised)", extra=facts)
            self._metrics.restarts.inc()
        elif start.lost:
            log.error("messages LOST: the broker no longer has them", extra=facts | {"messages": start.lost})
            self._metrics.gap.labels(topic, number).inc(start.lost)
        elif stored is None and low > 0:
            log.warning("begun at the oldest message kept; older ones are gone", extra=facts)
        else:
            log.info("partition starts", extra=facts)

    # Messages

    def begin_poll(self) -> None:
        """Messages admitted from here on were read after every seek made before."""
        self._poll += 1

    def admit(self, message: Message) -> bool:
        """Is this a message to be decoded? Notes gaps and errors. Raises KafkaException for errors that stay."""
        error = message.error()
        if error is not None:
            self._on_error(message, error)
            return False
        place = (message.topic(), message.partition())
        missing = self.assignment.take(place, message.offset())
        if missing:
            if self._read_again(place, message.offset() - missing):
                return False
            facts = {"topic": message.topic(), "partition": message.partition(), "before": message.offset()}
            log.error("messages LOST: the broker no longer has them", extra=facts | {"messages": missing})
            self._metrics.gap.labels(message.topic(), message.partition()).inc(missing)
        return missing is not None

    def _read_again(self, place: Place, expected: int) -> bool:
        """Did the client skip messages the broker still has? Then go back to `expected`, once: what is missing again
        after that is a hole in the log."""
        sought = self._sought.pop(place, None)
        if sought is not None and sought[0] == expected and sought[1] != self._poll:
            return False
        if sought is None:
            low, _ = self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=WATERMARK_WITHIN)
            if low > expected:
                return False
            log.warning("messages were skipped and are read again", extra={"place": place, "expected": expected})
            self._consumer.seek(TopicPartition(*place, expected))
        self._sought[place] = (expected, self._poll)
        self.assignment.rewind(place, expected)
        return True

    def _on_error(self, message: Message, error: KafkaError) -> None:
        code = error.code()
        if code in _BEYOND:
            self.assignment.restart((message.topic(), message.partition()))
            log.warning("position is not in the log, looking it up again", extra={"partition": message.partition()})
        elif failed_for_good(error) or code in _REFUSED:
            raise KafkaException(error)
        elif code not in _PASSING:
            log.warning("Kafka: %s", error.str(), extra={"code": error.name()})

    # Back-pressure

    def pause(self) -> None:
        """Stop fetching; stay in the group by polling."""
        self._paused = True
        self._metrics.paused.set(1)
        self._consumer.pause(_topic_partitions(self.assignment.started()))

    def resume(self) -> None:
        self._paused = False
        self._metrics.paused.set(0)
        self._consumer.resume(_topic_partitions(self.assignment.started()))

    def poll_paused(self) -> None:
        """Serve rebalances and errors. A message that comes nevertheless is not taken, so it is sought again."""
        for message in consume(self._consumer, 1, 0):
            place = (message.topic(), message.partition())
            state = self.assignment.owned.get(place)
            if (error := message.error()) is not None:
                self._on_error(message, error)
            elif state is not None and state.started and message.offset() >= state.position:
                self._consumer.seek(TopicPartition(message.topic(), message.partition(), state.position))

    # Afterwards

    def committed(self, spans: dict[Partition, Span]) -> None:
        """A batch is in the database."""
        self.assignment.commit(spans)

    def commit_to_kafka(self, *, asynchronous: bool) -> None:
        """Tell Kafka what the database holds, for lag tools. Raises KafkaException if synchronous and refused."""
        given = self.assignment.uncommitted_to_kafka()
        places = [TopicPartition(topic, number, offset) for (topic, number), offset in given.items()]
        if places and asynchronous:
            self._consumer.commit(offsets=places, asynchronous=True)
        elif places:
            self._consumer.commit(offsets=places, asynchronous=False)

    def report_lag(self) -> None:
        """From what the last fetches said of the end of the log; no request."""
        for (topic, number), state in self.assignment.owned.items():
            _, high = self._consumer.get_watermark_offsets(TopicPartition(topic, number), cached=True)
            if state.started and high >= 0:
                self._metrics.lag.labels(topic, number).set(max(0, high - state.committed))


def _topic_partitions(places: Sequence[Place]) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for topic, number in places]
