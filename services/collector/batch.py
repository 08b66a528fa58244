"""What one scrape puts on the bus: a batch of messages that is accepted or refused as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from services.contract.event import HEADER_SCHEMA_VERSION, HEADER_SOURCE, SCHEMA_VERSION, Event, GpuEvent, encode

Message = tuple[str, str, bytes]
"""(topic, key, value). A plain tuple: one is made per GPU and scrape."""
Headers = list[tuple[str, bytes]]


class Batch:
    """The messages of one scrape, encoded; all carry the same headers."""

    __slots__ = ("headers", "messages", "source")

    def __init__(self, source: str, messages: list[Message], headers: Headers | None = None) -> None:
        self.source = source
        self.messages = messages
        self.headers = headers_of(source) if headers is None else headers

    def __len__(self) -> int:
        return len(self.messages)


Arrived = Callable[[Batch], None]
"""Is told of each batch that the bus took straight, without the spool."""
_VERSION: Final = str(SCHEMA_VERSION).encode()


def headers_of(source: str) -> Headers:
    return [(HEADER_SCHEMA_VERSION, _VERSION), (HEADER_SOURCE, source.encode())]


def encode_scrape(
    events: Iterable[Event], happenings: Iterable[GpuEvent], topic: str, topic_events: str, source: str
) -> list[Message]:
    """Messages in order, samples first. Key = GPU UUID, so that a GPU keeps to one partition; of a target, its name."""
    messages: list[Message] = [(topic, event.gpu.uuid, encode(event)) for event in events]
    messages += [(topic_events, event.gpu_uuid or source, encode(event)) for event in happenings]
    return messages
