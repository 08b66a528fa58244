"""A message that was read from Kafka.

The client library has one class for messages to be sent and messages read, so its types say that everything may be
missing. Of a message that was read, place and offset are always known; this protocol says so, and tests can make one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

from confluent_kafka import Consumer, KafkaError

Header = tuple[str, bytes | None]


class Message(Protocol):
    """What we use of `confluent_kafka.Message`."""

    def topic(self) -> str: ...

    def partition(self) -> int: ...

    def offset(self) -> int: ...

    def key(self) -> bytes | None: ...

    def value(self) -> bytes | None: ...

    def headers(self) -> Sequence[Header] | None: ...

    def error(self) -> KafkaError | None: ...


def consume(consumer: Consumer, most: int, timeout: float) -> list[Message]:
    """Up to `most` messages; waits `timeout` seconds for them. Errors come as messages with `error()`."""
    return cast("list[Message]", consumer.consume(most, timeout))
