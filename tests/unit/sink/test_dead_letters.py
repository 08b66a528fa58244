"""Letters keep everything; replay is idempotent and does not loop."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from services.sink.batch import Refused
from services.sink.dead_letters import DeadLetter, DeadLetters, LettersNotAcknowledgedError, letter, to_headers
from services.sink.dlq_command import UnknownLetterError, choose, refusal_to_replay, to_json
from services.sink.letter_reader import Letters
from services.sink.validate import Invalid, Reason
from tests.support.messages import FakeMessage

BROKEN = FakeMessage(b"\xff not json", b"GPU-1", offset_=42, partition_=3, headers_=(("schema_version", b"1"),))
NOW = 1_795_316_410.25


def refused(message: FakeMessage = BROKEN, reason: Reason = Reason.NOT_JSON) -> DeadLetter:
    return letter(Refused(message, Invalid(reason, "bad: Ä", cause="DecodeError", sqlstate="22021")), NOW)


def stored(item: DeadLetter, offset: int = 0) -> FakeMessage:
    """As Kafka gives it back."""
    headers = tuple((n, v.encode() if isinstance(v, str) else v) for n, v in to_headers(item))
    return FakeMessage(item.value, item.key, "gpu-metrics-invalid", 0, offset, headers)


def marker(name: str) -> FakeMessage:
    return FakeMessage(None, None, "gpu-metrics-invalid", headers_=(("replayed", name.encode()),))


def test_a_letter_comes_back_as_it_was_written() -> None:
    item = refused()
    (back,) = Letters([stored(item)]).letters.values()
    assert back == item
    assert (back.value, back.key, back.headers) == (b"\xff not json", b"GPU-1", (("schema_version", b"1"),))
    assert (back.name, back.reason, back.sqlstate) == ("gpu-metrics-raw/3/42", "not_json", "22021")
    assert back.time == "2026-11-22T03:00:10.250+00:00"


def test_a_repeat_after_a_crash_is_one_letter_published_twice() -> None:
    letters = Letters([stored(refused(), 0), stored(refused(), 1)])
    assert len(letters.letters) == 1
    assert to_json(refused(), letters, value=True)["published"] == 2


def test_bytes_that_are_no_text_are_shown_as_hex() -> None:
    assert to_json(refused(), Letters([stored(refused())]), value=True)["value"] == "hex:ff206e6f74206a736f6e"


def test_choosing() -> None:
    ranged = refused(FakeMessage(b"{}", b"GPU-2", offset_=50), Reason.RANGE)
    letters = Letters([stored(refused()), stored(ranged)])
    assert choose(letters, [], None, None) == [refused(), ranged]
    assert choose(letters, [], "range", None) == [ranged]
    assert choose(letters, [], None, 1) == [refused()]
    assert choose(letters, [ranged.name], None, None) == [ranged]
    with pytest.raises(UnknownLetterError, match="gpu-metrics-raw/0/999"):
        choose(letters, ["gpu-metrics-raw/0/999"], None, None)


def test_a_letter_is_replayed_once_and_what_comes_back_is_not_replayed_again() -> None:
    item = refused()
    assert refusal_to_replay(item, Letters([stored(item)])) is None
    assert refusal_to_replay(item, Letters([stored(item), marker(item.name)])) == "replayed before"
    headers = (("replayed_from", item.name.encode()),)
    again = refused(FakeMessage(b"\xff not json", b"GPU-1", offset_=77, headers_=headers))
    assert again.replayed_from == item.name
    assert "refused again" in (refusal_to_replay(again, Letters([stored(again)])) or "")


def test_a_foreign_message_in_the_topic_is_listed_but_not_replayed() -> None:
    letters = Letters([FakeMessage(b"hello", None, "gpu-metrics-invalid")])
    (item,) = letters.letters.values()
    assert refusal_to_replay(item, letters) == "no dead letter of a sink"


class FakeProducer:
    """Answers on flush, as told."""

    def __init__(self, *, error: KafkaError | None = None, unanswered: int = 0, full: bool = False) -> None:
        self.sent: list[tuple[str, bytes | None]] = []
        self._waiting: list[Any] = []
        self._error, self._unanswered, self._full = error, unanswered, full

    def produce(self, topic: str, value: bytes | None, key: bytes | None, *, headers: Any, on_delivery: Any) -> None:
        if self._full:
            raise BufferError("Local: Queue full")
        self.sent.append((topic, value))
        self._waiting.append(on_delivery)

    def flush(self, _timeout: float) -> int:
        if not self._unanswered:
            for answer in self._waiting:
                answer(self._error, None)
            self._waiting.clear()
        return self._unanswered


def letters_to(producer: FakeProducer) -> DeadLetters:
    return DeadLetters(producer, "gpu-metrics-invalid", 1.0)  # type: ignore[arg-type]  # a hand-made fake


def test_publish_returns_when_kafka_has_them_and_does_not_send_twice() -> None:
    producer, acknowledged = FakeProducer(), set[tuple[str, int, int]]()
    for _ in range(2):
        letters_to(producer).publish([refused()], acknowledged)
    assert producer.sent == [("gpu-metrics-invalid", b"\xff not json")]
    assert acknowledged == {("gpu-metrics-raw", 3, 42)}


def test_a_letter_that_is_too_large_is_cut_instead_of_stopping_the_sink_for_good() -> None:
    class SmallTopic(FakeProducer):
        def produce(
            self, topic: str, value: bytes | None, key: bytes | None, *, headers: Any, on_delivery: Any
        ) -> None:
            if len(value or b"") > 1_000_000:
                raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
            super().produce(topic, value, key, headers=headers, on_delivery=on_delivery)

    producer, acknowledged = SmallTopic(), set[tuple[str, int, int]]()
    huge = refused(FakeMessage(b"x" * 2_000_000, b"GPU-1", offset_=9))
    letters_to(producer).publish([huge], acknowledged)
    ((_, value),) = producer.sent
    assert value is not None
    assert len(value) == 256 * 1024
    assert acknowledged == {huge.identity}


@pytest.mark.parametrize(
    "producer",
    [FakeProducer(error=KafkaError(KafkaError._MSG_TIMED_OUT)), FakeProducer(unanswered=1), FakeProducer(full=True)],
    ids=["refused", "unanswered", "queue full"],
)
def test_what_kafka_did_not_take_is_an_error_and_is_not_forgotten(producer: FakeProducer) -> None:
    acknowledged = set[tuple[str, int, int]]()
    with pytest.raises(LettersNotAcknowledgedError):
        letters_to(producer).publish([refused()], acknowledged)
    assert acknowledged == set()


def test_a_huge_key_is_cut_as_well() -> None:
    class SmallTopic(FakeProducer):
        def produce(
            self, topic: str, value: bytes | None, key: bytes | None, *, headers: Any, on_delivery: Any
        ) -> None:
            if len(value or b"") + len(key or b"") + sum(len(v or b"") for _, v in headers) > 1_000_000:
                raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
            super().produce(topic, value, key, headers=headers, on_delivery=on_delivery)

    acknowledged = set[tuple[str, int, int]]()
    huge = refused(FakeMessage(b"{}", b"\0" * 2_000_000, offset_=9, headers_=(("h", b"x" * 2_000_000),)))
    letters_to(SmallTopic()).publish([huge], acknowledged)
    assert acknowledged == {huge.identity}


def test_headers_of_another_program_do_not_hide_the_other_letters() -> None:
    foreign = FakeMessage(b"x", None, "gpu-metrics-invalid", headers_=(("source_partition", b"abc"),))
    odd_marker = FakeMessage(None, None, "gpu-metrics-invalid", headers_=(("replayed", b"\xff"),))
    letters = Letters([foreign, odd_marker, stored(refused())])
    assert refused().name in letters.letters
