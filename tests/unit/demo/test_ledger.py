"""Whose events the demo counts."""

from __future__ import annotations

from dataclasses import dataclass

from confluent_kafka import KafkaError

from services.demo.ledger import Tally

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
