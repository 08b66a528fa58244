"""Whose events the demo counts."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar, cast

import pytest
from confluent_kafka import KafkaError

from services.bus.message import Message
from services.demo import ledger
from services.demo.ledger import Ledger, Tally
from services.demo.pipeline import Pipeline
from services.demo.process import RoleFailedError
from services.settings import load
from tests.support.processes import wait_until

TOPIC, INVALID = "gpu-metrics-raw", "gpu-metrics-invalid"


@dataclass(frozen=True)
class Read:
    """A message as the client hands it over."""

    at: int
    uuid: bytes | None
    of: str = TOPIC
    problem: KafkaError | None = None

    def topic(self) -> str:
        return self.of

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes | None:
        return self.uuid

    def value(self) -> bytes | None:
        return None

    def headers(self) -> None:
        return None

    def error(self) -> KafkaError | None:
        return self.problem


def test_only_our_own_gpus_count_by_topic() -> None:
    tally = Tally(frozenset({"GPU-1", "GPU-2"}), {})
    keys = [b"GPU-1", b"GPU-2", b"GPU-of-others", None, b"GPU-1"]
    for offset, key in enumerate(keys):
        tally.add(Read(offset, key))
    tally.add(Read(0, b"GPU-2", INVALID))
    tally.add(Read(1, b"GPU-of-others", INVALID))
    assert tally.of_own == {TOPIC: 3, INVALID: 1}


def test_strangers_messages_are_read_as_well_to_the_end() -> None:
    tally = Tally(frozenset({"GPU-1"}), {(TOPIC, 0): 7})
    assert tally.has_reached({(TOPIC, 0): 7})
    assert not tally.has_reached({(TOPIC, 0): 9})
    tally.add(Read(8, b"GPU-of-others"))
    assert tally.has_reached({(TOPIC, 0): 9})
    assert not tally.has_reached({(TOPIC, 0): 9, (INVALID, 0): 1})
    assert tally.has_reached({(TOPIC, 0): 9, (INVALID, 0): 0})


def test_an_error_of_the_connection_is_no_message() -> None:
    tally = Tally(frozenset({"GPU-1"}), {})
    tally.add(Read(5, b"GPU-1", problem=KafkaError(KafkaError._TRANSPORT)))
    assert (tally.of_own, tally.next) == ({}, {})


class Client:
    """In the place of librdkafka's consumer."""

    open: ClassVar[list[Client]] = []

    def __init__(self, _: object) -> None:
        self.open.append(self)

    def assign(self, _: object) -> None: ...

    def consume(self, _most: int, _timeout: float) -> list[Message]:
        return []

    def close(self) -> None:
        self.open.remove(self)


def test_closed_it_leaves_no_client_and_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that stays says on stderr for ever that the broker is gone."""
    monkeypatch.setattr(ledger, "Consumer", Client)
    monkeypatch.setattr(Ledger, "_count", lambda *_: 0)
    monkeypatch.setattr(Ledger, "_end_offsets", lambda *_: {})
    pipeline = SimpleNamespace(dsn="", bootstrap="", gpu_uuids=frozenset)
    book = Ledger(cast("Pipeline", pipeline), load())
    book.open()
    wait_until(lambda: len(Client.open) == 2, within=10, what="the reader's client")
    book.close()
    assert Client.open == []
    assert "ledger" not in {thread.name for thread in threading.enumerate()}


def test_the_wait_for_the_sink_ends_with_the_part_that_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> None:
        raise RoleFailedError("the embedded TimescaleDB has ended")

    monkeypatch.setattr(ledger, "Consumer", Client)
    monkeypatch.setattr(Ledger, "_end_offsets", lambda *_: {(TOPIC, 0): 5})
    monkeypatch.setattr(Ledger, "_written", lambda *_: False)
    book = Ledger(cast("Pipeline", SimpleNamespace(dsn="", bootstrap="", gpu_uuids=frozenset)), load())
    with closing(book), pytest.raises(RoleFailedError, match="TimescaleDB"):
        book.drain(30, check)
