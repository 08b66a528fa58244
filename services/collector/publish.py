"""The way to Kafka: an idempotent producer, and for each batch a `Flight` that knows when all of it has arrived.

All calls come from one thread; delivery callbacks run inside `poll` of that thread.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from services.bus.clients import Config, producer_config
from services.collector.batch import Batch, Message
from services.collector.segment import Record
from services.settings import Settings

log = logging.getLogger("collector.publish")

MAX_OUTSTANDING: Final = 100_000
"""Messages in the producer at most (about 100 MB): 100 s of a collector with 10,000 GPUs at 10 s, ten times longer than
the delivery timeout. More means Kafka takes less than it is given: the rest goes to the spool."""
MAX_OUTSTANDING_KIB: Final = 256 * 1024
MAX_VALUE_BYTES: Final = 900_000
"""Kafka's default bound on a message is 1,048,588 bytes with key and headers (`message.max.bytes`)."""
REPORTS_WITHIN: Final = 5.0
"""Seconds for the reports of what was given up; they come in milliseconds, but not at once for what is in flight."""
QUIET: Final = 60.0
"""Seconds between two log lines about the same kind of error: librdkafka reports each attempt to connect."""
QUEUE_FULL: Final = "queue_full"
TOO_LARGE: Final = "event_too_large"
_PURGED: Final = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})  # noqa: SLF001  # librdkafka's local errors are named so


_FOR_GOOD: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD})
"""Sending again cannot help: the broker looked at the message and does not want it."""


class PublishError(Exception):
    """The producer cannot be made with these settings."""


class Flight:
    """A batch on its way. Done when nothing is pending."""

    __slots__ = ("acked", "batch", "errors", "failed", "pending", "reason", "rejected", "verdicts")

    def __init__(self, batch: Batch, errors: Counter[str]) -> None:
        self.batch = batch
        self.errors = errors
        self.pending = 0
        self.acked = 0
        self.failed: list[Message] = []
        """To be sent again, in order."""
        self.rejected: list[Message] = []
        """The bus will never take these."""
        self.verdicts: list[tuple[str, str]] = []
        """Of each of them: why, as the label of a metric, and in words."""
        self.reason = ""
        """The first error, by librdkafka's name."""

    def delivered(self, error: KafkaError | None, message: Any) -> None:
        """Called once for each message: a bound method per batch, so that no message needs a closure."""
        self.pending -= 1
        if error is None:
            self.acked += 1
        else:
            self._fail((message.topic(), message.key().decode(), message.value()), error)

    def _fail(self, message: Message, error: KafkaError) -> None:
        if error.code() in _PURGED:  # a consequence of the first failure, which is counted
            self.failed.append(message)
            return
        if error.code() in _FOR_GOOD:
            self.reject(message, error.name())
        else:
            self.refuse([message], error.name())

    def reject(self, message: Message, reason: str, detail: str = "") -> None:
        """What the bus will never take."""
        self.rejected.append(message)
        self.verdicts.append((reason, detail))
        self._note(reason)

    def refuse(self, messages: Iterable[Message], reason: str) -> None:
        """What is to be sent again."""
        self.failed.extend(messages)
        self._note(reason)

    def _note(self, reason: str) -> None:
        self.errors[reason] += 1
        self.reason = self.reason or reason


def collector_config(settings: Settings) -> Config:
    """The project's producer, bounded and quick to come back."""
    return producer_config(settings, "gpumon-collector") | {
        "acks": "all",
        "partitioner": "murmur2_random",  # as Java clients do: all producers put a GPU into the same partition
        "queue.buffering.max.messages": MAX_OUTSTANDING,
        "queue.buffering.max.kbytes": MAX_OUTSTANDING_KIB,
        "reconnect.backoff.max.ms": 1000,  # default 10 s: after an outage the spool would wait that long
        "socket.keepalive.enable": True,
        "log.connection.close": False,  # brokers close idle connections: not worth a line
    }


class Publisher:
    """Owns the producer; makes a new one after a fatal error. `errors` counts failures by librdkafka's name."""

    name: Final = "Kafka"

    def __init__(self, config: Config) -> None:
        self.errors: Counter[str] = Counter()
        self._config = {**config, "error_cb": self._on_error, "logger": logging.getLogger("collector.librdkafka")}
        self._fatal = False
        self._said: dict[str, float] = {}
        self._producer = self._make()

    def _make(self) -> Producer:
        try:
            return Producer(self._config)
        except (KafkaException, ValueError) as error:
            raise PublishError(f"the Kafka producer cannot be made: {error}") from None

    def _on_error(self, error: KafkaError) -> None:
        self._fatal = self._fatal or error.fatal()
        now = time.monotonic()
        if now - self._said.get(error.name(), -QUIET) >= QUIET:
            self._said[error.name()] = now
            log.warning("Kafka: %s", error.str(), extra={"error": error.name(), "fatal": error.fatal()})

    @property
    def outstanding(self) -> int:
        """Messages given to the producer and not yet reported."""
        return len(self._producer)

    def send(self, batch: Batch) -> Flight:
        """Give all messages to the producer. A full queue is not waited for: the rest is `failed` at once."""
        flight = Flight(batch, self.errors)
        produce, delivered = self._producer.produce, flight.delivered
        headers: Any = batch.headers  # the client asks for an invariant list of a wider type
        for at, (topic, key, value) in enumerate(batch.messages):
            try:
                produce(topic, value, key, on_delivery=delivered, headers=headers)
            except (BufferError, KafkaException) as error:
                if not self._rejected(flight, batch.messages[at], error):
                    flight.refuse(batch.messages[at:], self._refusal(error))
                    break
            else:
                flight.pending += 1
        return flight

    def send_records(self, records: Iterable[Record]) -> Flight:
        """The same for what was spooled: each record has headers of its own."""
        flight = Flight(Batch("spool", [], []), self.errors)
        produce, delivered = self._producer.produce, flight.delivered
        for record in records:
            headers: Any = record.headers
            try:
                produce(record.topic, record.value, record.key, on_delivery=delivered, headers=headers)
            except (BufferError, KafkaException) as error:
                message = (record.topic, record.key, record.value)
                if not self._rejected(flight, message, error):
                    flight.refuse([message], self._refusal(error))
                    break
            else:
                flight.pending += 1
        return flight

    def _rejected(self, flight: Flight, message: Message, error: BufferError | KafkaException) -> bool:
        """Whether the client itself knows that Kafka will never take this message."""
        if isinstance(error, BufferError) or error.args[0].code() not in _FOR_GOOD:
            return False
        flight.reject(message, error.args[0].name())
        return True

    def poll(self, timeout: float = 0.0) -> None:
        """Serve delivery reports, waiting up to `timeout` seconds for the first."""
        self._serve(self._producer.poll, timeout)

    def _serve(self, call: Callable[[float], int], timeout: float) -> None:
        """The client raises fatal errors here; what was sent then fails too, and `abandon` makes a new producer."""
        try:
            call(timeout)
        except KafkaException as error:
            self._refusal(error)
            if not self._fatal:
                raise

    def flush(self, timeout: float) -> None:
        """Wait up to `timeout` seconds until all is reported."""
        self._serve(self._producer.flush, timeout)

    def abandon(self, *, in_flight: bool) -> None:
        """Give up what is queued (and, with `in_flight`, what was sent and not answered): all is reported as failed.

        In-flight messages may have arrived: sending them again can make repeats, which the table removes.
        """
        self._producer.purge(in_queue=True, in_flight=in_flight, blocking=True)
        if in_flight:
            self.flush(REPORTS_WITHIN)
        self.poll()
        if self._fatal:
            log.error("the Kafka producer failed for good: making a new one")
            self._fatal = False
            self._producer = self._make()

    def _refusal(self, error: BufferError | KafkaException) -> str:
        """Why the producer did not take a message."""
        if isinstance(error, BufferError):
            return QUEUE_FULL
        cause: KafkaError = error.args[0]
        self._fatal = self._fatal or cause.fatal() or cause.code() == KafkaError._FATAL  # noqa: SLF001  # as above
        return str(cause.name())
