"""Dead letters: messages that can never become rows, kept in a topic of their own with the reason in headers.

Value and key are the original bytes; the original headers are kept under `original.`. Identity of a letter: source
topic, partition and offset. It is published before the offsets that pass over it are committed in the database, so a
crash in between publishes it again; readers recognise the repeat by its identity.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from typing import Final

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer

from services.sink.batch import Refused

log = logging.getLogger("sink")

ORIGINAL: Final = "original."
"""Prefix of the headers the refused message had."""
REPLAYED_FROM: Final = "replayed_from"
"""Header of a replayed message: `topic/partition/offset` of its first refusal. It stays through further refusals."""
REPLAYED: Final = "replayed"
"""Header of a marker in the topic of dead letters: the identity that was replayed. The marker has no value."""

TRUNCATED_BYTES: Final = 256 * 1024
"""Of a value that is too large for the topic of dead letters; the topic's usual limit is 1 MiB."""
TRUNCATED_KEY_BYTES: Final = 1024
"""Of its key: a GPU's UUID has 40."""

Identity = tuple[str, int, int]
"""(source topic, partition, offset)."""


class LettersNotAcknowledgedError(Exception):
    """Kafka did not take a dead letter. Nothing is lost: the batch is not committed, and tried again."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A letter as read back from its topic, or as it is about to be written."""

    reason: str
    error_class: str
    message: str
    sqlstate: str
    source_topic: str
    source_partition: int
    source_offset: int
    time: str
    """When it was refused, UTC."""
    key: bytes | None
    value: bytes | None
    replayed_from: str = ""
    headers: tuple[tuple[str, bytes], ...] = ()
    """The original message's."""

    @property
    def identity(self) -> Identity:
        return self.source_topic, self.source_partition, self.source_offset

    @property
    def name(self) -> str:
        """Identity as people and the command line write it."""
        return f"{self.source_topic}/{self.source_partition}/{self.source_offset}"


TEXT_HEADERS: Final = ("reason", "error_class", "message", "sqlstate", "source_topic", "time", REPLAYED_FROM)
NUMBER_HEADERS: Final = ("source_partition", "source_offset")


def letter(refused: Refused, now: float) -> DeadLetter:
    """The letter for a refused message; `now` in Unix seconds."""
    message, verdict = refused.message, refused.verdict
    headers = tuple((name, value or b"") for name, value in message.headers() or ())
    origin = dict(headers).get(REPLAYED_FROM, b"").decode(errors="replace")
    return DeadLetter(
        reason=verdict.reason,
        error_class=verdict.cause,
        message=verdict.message,
        sqlstate=verdict.sqlstate,
        source_topic=message.topic(),
        source_partition=message.partition(),
        source_offset=message.offset(),
        time=dt.datetime.fromtimestamp(now, dt.UTC).isoformat(timespec="milliseconds"),
        key=message.key(),
        value=message.value(),
        replayed_from=origin,
        headers=headers,
    )


def to_headers(item: DeadLetter) -> list[tuple[str, str | bytes | None]]:
    """Kafka headers of a letter."""
    named = [(name, str(getattr(item, name))) for name in (*TEXT_HEADERS, *NUMBER_HEADERS)]
    kept = [(ORIGINAL + name, value) for name, value in item.headers]
    return [*((name, value) for name, value in named if value), *kept]


def truncated(item: DeadLetter) -> DeadLetter:
    """The beginning of a letter that Kafka does not take whole: better than a sink that stops at it for good."""
    value, key = item.value or b"", item.key or b""
    cut = value[:TRUNCATED_BYTES]
    note = f"{item.message} (value of {len(value)} bytes cut to {len(cut)}, key of {len(key)}, headers left out)"
    return msgspec.structs.replace(
        item, value=cut, key=item.key and key[:TRUNCATED_KEY_BYTES], headers=(), message=note
    )


def _is_small(item: DeadLetter) -> bool:
    """Nothing is left that could be cut."""
    fits = len(item.value or b"") <= TRUNCATED_BYTES and len(item.key or b"") <= TRUNCATED_KEY_BYTES
    return fits and not item.headers


class DeadLetters:
    """The producer's side. `publish` returns when Kafka has acknowledged every letter."""

    def __init__(self, producer: Producer, topic: str, timeout: float) -> None:
        """`timeout`: seconds to wait for acknowledgements in one attempt."""
        self._producer = producer
        self._topic = topic
        self._timeout = timeout

    def publish(self, letters: Sequence[DeadLetter], acknowledged: set[Identity]) -> None:
        """Send those not in `acknowledged` and add them to it. Raises LettersNotAcknowledgedError."""
        failures: list[str] = []
        for item in letters:
            if item.identity not in acknowledged:
                self._send(item, acknowledged, failures)
        left = self._producer.flush(self._timeout)
        if left or failures:
            detail = failures[0] if failures else f"{left} unanswered after {self._timeout:g} s"
            raise LettersNotAcknowledgedError(f"dead letters to {self._topic} not acknowledged: {detail}")

    def _send(self, item: DeadLetter, acknowledged: set[Identity], failures: list[str]) -> None:
        def delivered(error: KafkaError | None, _message: object) -> None:
            if error is None:
                acknowledged.add(item.identity)
            elif error.code() == KafkaError.MSG_SIZE_TOO_LARGE and not _is_small(item):
                self._send(truncated(item), acknowledged, failures)
            else:
                failures.append(error.str())

        try:
            self._producer.produce(self._topic, item.value, item.key, headers=to_headers(item), on_delivery=delivered)
        except BufferError:
            self._producer.flush(self._timeout)
            failures.append("the producer's queue was full")
        except KafkaException as error:
            delivered(error.args[0], None)
