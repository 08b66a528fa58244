"""Reading the topic of dead letters from its beginning to its present end, without a group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from services.bus.message import Message, consume
from services.ops.clock import Clock
from services.sink.dead_letters import NUMBER_HEADERS, ORIGINAL, REPLAYED, TEXT_HEADERS, DeadLetter

METADATA_TIMEOUT: Final = 10.0
"""Seconds."""
POLL: Final = 0.2
"""Seconds to collect messages into one round."""
SILENCE: Final = 30.0
"""Seconds without a message or an end of partition after which the broker is given up."""


class NoLettersTopicError(Exception):
    """The topic does not exist."""


class Letters:
    """What the topic holds: letters in order, each identity once, and which were replayed."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self.letters: dict[str, DeadLetter] = {}
        """Name -> letter, as refused first."""
        self.times: dict[str, int] = {}
        """Name -> how often it was published: more than once is the repeat after a crash."""
        self.replayed: set[str] = set()
        """Names that were replayed."""
        for message in messages:
            self._add(message)

    def _add(self, message: Message) -> None:
        headers = {name: value or b"" for name, value in message.headers() or ()}
        if REPLAYED in headers:
            self.replayed.add(headers[REPLAYED].decode(errors="replace"))
            return
        letter = parse(message, headers)
        self.letters.setdefault(letter.name, letter)
        self.times[letter.name] = self.times.get(letter.name, 0) + 1


def parse(message: Message, headers: dict[str, bytes]) -> DeadLetter:
    """The letter in `message`. Headers that are missing (another program wrote to the topic) stay empty."""
    fields: dict[str, Any] = {name: headers.get(name, b"").decode(errors="replace") for name in TEXT_HEADERS}
    fields |= {name: _number(headers.get(name)) for name in NUMBER_HEADERS}
    kept = tuple((n.removeprefix(ORIGINAL), v or b"") for n, v in message.headers() or () if n.startswith(ORIGINAL))
    return DeadLetter(key=message.key(), value=message.value(), headers=kept, **fields)


def _number(text: bytes | None) -> int:
    """-1 where another program wrote something else."""
    return int(text) if text is not None and text.isdigit() and len(text) < 20 else -1


def read_all(consumer: Consumer, topic: str, clock: Clock) -> Iterator[Message]:
    """Every message up to the end of each partition. Raises NoLettersTopicError, KafkaException."""
    partitions = consumer.list_topics(topic, timeout=METADATA_TIMEOUT).topics[topic].partitions
    if not partitions:
        raise NoLettersTopicError(f"there is no topic {topic}: run `gpumon topics`")
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
    open_ends = set(partitions)
    heard = clock.monotonic()
    while open_ends:
        messages = consume(consumer, 1000, POLL)
        if messages:
            heard = clock.monotonic()
        elif clock.monotonic() - heard > SILENCE:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"no answer within {SILENCE:g} s"))  # noqa: SLF001
        for message in messages:
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's names begin so
                open_ends.discard(message.partition())
            else:
                raise KafkaException(error)
