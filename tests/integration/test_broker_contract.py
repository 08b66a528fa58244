"""What the pipeline relies on in a broker, on the embedded one and on Apache Kafka alike; then on Kafka alone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition

from services.embedded.broker import PARTITIONS, EmbeddedBroker
from tests.support.kafka_server import KafkaServer

WITHIN_SECONDS = 60.0
"""For whatever is waited for: a rebalance takes 3 s at most, a broker on a busy machine several times that."""


def unique(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:8]}"


def made_topic(bootstrap: str) -> str:
    """A new topic, created by asking for its metadata, as it works on both brokers."""
    topic = unique("contract")
    producer = Producer({"bootstrap.servers": bootstrap})
    deadline = time.monotonic() + WITHIN_SECONDS
    while not producer.list_topics(topic, timeout=10).topics[topic].partitions:
        assert time.monotonic() < deadline, f"{topic} did not appear"
    return topic


@pytest.fixture
def topic(broker: str) -> str:
    return made_topic(broker)


def produce(bootstrap: str, topic: str, count: int, *, start: int = 0) -> list[Message]:
    """Numbers as values, `gpu-<n mod 16>` as keys; returns the delivered messages. Fails on any delivery error."""
    delivered: list[Message] = []

    def on_delivery(error: KafkaError | None, message: Message) -> None:
        assert error is None, error
        delivered.append(message)

    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5})
    for number in range(start, start + count):
        headers: list[tuple[str, str | bytes | None]] = [("schema", b"1"), ("source", b"test")]
        key = f"gpu-{number % 16}"
        producer.produce(topic, str(number).encode(), key, headers=headers, on_delivery=on_delivery)
        producer.poll(0)
    assert producer.flush(WITHIN_SECONDS) == 0
    return delivered


@contextmanager
def consumer(bootstrap: str, group: str, protocol: str = "classic") -> Iterator[Consumer]:
    """A consumer as the sink has it: earliest, no auto-commit, cooperative."""
    settings: dict[str, str | int | bool] = {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "group.protocol": protocol,
    }
    if protocol == "classic":  # KIP-848 has these three on the broker
        settings |= {
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 500,
        }
    member = Consumer(settings)
    try:
        yield member
    finally:
        member.close()


@contextmanager
def reader(bootstrap: str, topic: str) -> Iterator[Consumer]:
    """A consumer of all partitions from their beginning, outside any group: nothing to wait for."""
    with consumer(bootstrap, unique("none")) as member:
        member.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(PARTITIONS)])
        yield member


def consume(member: Consumer, enough: Callable[[list[Message]], bool]) -> list[Message]:
    """Messages until there are enough of them; fails with what came instead."""
    messages: list[Message] = []
    deadline = time.monotonic() + WITHIN_SECONDS
    while not enough(messages):
        assert time.monotonic() < deadline, f"only {len(messages)} messages came"
        for message in member.consume(500, timeout=0.2):
            assert message.error() is None, message.error()
            messages.append(message)
    return messages


def numbers(messages: list[Message]) -> list[int]:
    return sorted(int(message.value() or b"-1") for message in messages)


def at_least(count: int) -> Callable[[list[Message]], bool]:
    return lambda messages: len(messages) >= count


# ---- both brokers -------------------------------------------------------------------------------------------------


def test_topic_appears_with_its_partitions_when_asked_for(broker: str, topic: str) -> None:
    metadata = Producer({"bootstrap.servers": broker}).list_topics(topic, timeout=10).topics[topic]
    assert metadata.error is None
    assert sorted(metadata.partitions) == list(range(PARTITIONS))


def test_every_message_arrives_once_with_key_headers_and_time(broker: str, topic: str) -> None:
    before = time.time() * 1000
    produce(broker, topic, 5000)
    with reader(broker, topic) as member:
        messages = consume(member, at_least(5000))
    assert numbers(messages) == list(range(5000))
    for message in messages:
        assert message.key() == f"gpu-{int(message.value() or b'') % 16}".encode()
        assert message.headers() == [("schema", b"1"), ("source", b"test")]
        assert before - 1 <= message.timestamp()[1] <= time.time() * 1000 + 1


def test_one_key_stays_in_one_partition_in_order(broker: str, topic: str) -> None:
    produce(broker, topic, 3000)
    with reader(broker, topic) as member:
        messages = consume(member, at_least(3000))
    for key in {message.key() for message in messages}:
        own = [message for message in messages if message.key() == key]
        assert len({message.partition() for message in own}) == 1
        assert [int(message.value() or b"") for message in own] == numbers(own)


def test_delivery_reports_give_partition_and_consecutive_offsets(broker: str, topic: str) -> None:
    delivered = produce(broker, topic, 1000)
    for partition in {message.partition() for message in delivered}:
        offsets = sorted(m.offset() for m in delivered if m.partition() == partition)  # type: ignore[type-var]  # int once delivered
        assert offsets == list(range(len(offsets)))


def test_high_watermark_counts_what_was_produced(broker: str, topic: str) -> None:
    produce(broker, topic, 1000)
    with consumer(broker, unique("g")) as member:
        marks = [member.get_watermark_offsets(TopicPartition(topic, n), timeout=10) for n in range(PARTITIONS)]
    assert all(mark is not None and mark[0] == 0 for mark in marks)
    assert sum(mark[1] for mark in marks if mark is not None) == 1000


def test_group_reads_again_what_it_did_not_commit_and_goes_on_after_what_it_did(broker: str, topic: str) -> None:
    group = unique("g")
    produce(broker, topic, 400)
    for commit in (False, True):
        with consumer(broker, group) as member:
            member.subscribe([topic])
            assert numbers(consume(member, at_least(400))) == list(range(400))
            if commit:
                member.commit(asynchronous=False)
    produce(broker, topic, 100, start=400)
    with consumer(broker, group) as member:
        member.subscribe([topic])
        assert numbers(consume(member, at_least(100))) == list(range(400, 500))


def test_offsets_committed_by_partition_are_read_back(broker: str, topic: str) -> None:
    group = unique("g")
    produce(broker, topic, 400)
    with consumer(broker, group) as member:
        member.commit(offsets=[TopicPartition(topic, 0, 7)], asynchronous=False)
    with consumer(broker, group) as member:
        committed = member.committed([TopicPartition(topic, n) for n in range(2)], timeout=10)
    assert committed[0].offset == 7
    assert committed[1].offset < 0


def test_offsets_kept_elsewhere_are_sought_on_assignment(broker: str, topic: str) -> None:
    """What the sink does: the database knows the next offset of each partition, the group's commits do not matter."""
    delivered = produce(broker, topic, 2000)
    next_offsets = {partition: 100 + partition for partition in range(PARTITIONS)}

    def on_assign(member: Consumer, partitions: list[TopicPartition]) -> None:
        for each in partitions:
            each.offset = next_offsets[each.partition]
        member.incremental_assign(partitions)

    expected = [m for m in delivered if (m.offset() or 0) >= next_offsets[m.partition() or 0]]
    with consumer(broker, unique("g")) as member:
        member.subscribe([topic], on_assign=on_assign)
        messages = consume(member, at_least(len(expected)))
    assert sorted((m.partition(), m.offset()) for m in messages) == sorted(
        (m.partition(), m.offset()) for m in expected
    )


def test_seek_back_reads_a_partition_again(broker: str, topic: str) -> None:
    produce(broker, topic, 1000)
    with reader(broker, topic) as member:
        first = consume(member, at_least(1000))
        partition = first[0].partition()
        own = [m for m in first if m.partition() == partition]
        assert partition is not None
        member.seek(TopicPartition(topic, partition, OFFSET_BEGINNING))
        again = consume(member, at_least(len(own)))
    assert [m.value() for m in again] == [m.value() for m in own]


def test_paused_partitions_give_nothing_until_resumed(broker: str, topic: str) -> None:
    with reader(broker, topic) as member:
        produce(broker, topic, 100)
        consume(member, at_least(100))
        assigned = member.assignment()
        member.pause(assigned)
        produce(broker, topic, 100, start=100)
        assert member.consume(500, timeout=1.0) == []
        member.resume(assigned)
        assert numbers(consume(member, at_least(100))) == list(range(100, 200))


@pytest.mark.parametrize(
    "protocol",
    [
        "classic",
        pytest.param("consumer", marks=pytest.mark.long),
    ],  # KIP-848: several heartbeats of 5 s on either broker
)
def test_partitions_are_shared_and_given_back_in_a_rebalance(broker: str, topic: str, protocol: str) -> None:
    """Cooperative: nobody loses a partition that stays."""
    group = unique("g")
    with consumer(broker, group, protocol) as a, consumer(broker, group, protocol) as b:
        for member in (a, b):
            member.subscribe([topic])
        poll_until([a, b], lambda: [len(m.assignment()) for m in (a, b)] == [2, 2])
        assert sorted(p.partition for m in (a, b) for p in m.assignment()) == list(range(PARTITIONS))
        b.unsubscribe()
        poll_until([a], lambda: len(a.assignment()) == PARTITIONS)
        produce(broker, topic, 400)
        assert numbers(consume(a, at_least(400))) == list(range(400))


def poll_until(members: list[Consumer], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"assignments {[len(m.assignment()) for m in members]}"
        for member in members:
            member.consume(1, timeout=0.1)


# ---- the embedded broker's process --------------------------------------------------------------------------------


def test_embedded_broker_has_the_asked_topics_and_ends_with_its_parent() -> None:
    with EmbeddedBroker(["one", "two"]) as started:
        topics = Producer({"bootstrap.servers": started.bootstrap}).list_topics(timeout=10).topics
        assert {"one", "two"} <= set(topics)
        running = started.running
    assert running
    assert not started.running


@pytest.mark.parametrize("end", ["sigterm", "stdin"])
def test_broker_role_ends_on_sigterm_and_at_the_end_of_stdin(end: str) -> None:
    command = [sys.executable, "-m", "services", "broker", "--topics", "a"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as role:
        assert role.stdin is not None
        assert role.stdout is not None
        assert ":" in json.loads(role.stdout.readline())["bootstrap"]
        if end == "sigterm":
            role.send_signal(signal.SIGTERM)
        else:
            role.stdin.close()
        assert role.wait(timeout=30) == 0


# ---- Kafka only ---------------------------------------------------------------------------------------------------


@pytest.mark.kafka
@pytest.mark.parametrize("end", [pytest.param("stopped", marks=pytest.mark.long), "killed"])
def test_restart_of_kafka_keeps_messages_and_committed_offsets(kafka_server: KafkaServer, end: str) -> None:
    bootstrap, group = kafka_server.bootstrap, unique("g")
    topic = made_topic(bootstrap)
    produce(bootstrap, topic, 3000)
    with consumer(bootstrap, group) as member:
        member.subscribe([topic])
        first = consume(member, at_least(1000))
        member.commit(asynchronous=False)
    if end == "stopped":
        kafka_server.stop()
    else:
        kafka_server.kill()
    kafka_server.start()
    assert kafka_server.bootstrap == bootstrap
    with consumer(bootstrap, group) as member:
        member.subscribe([topic])
        second = consume(member, at_least(3000 - len(first)))
    assert numbers(first + second) == list(range(3000))


@pytest.mark.kafka
def test_producer_rides_out_a_frozen_kafka_without_loss_or_repeat(kafka_server: KafkaServer) -> None:
    topic = made_topic(kafka_server.bootstrap)
    produce(kafka_server.bootstrap, topic, 100)
    reports: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": kafka_server.bootstrap, "enable.idempotence": True})
    producer.list_topics(topic, timeout=10)
    kafka_server.pause()
    for number in range(100, 600):
        producer.produce(topic, str(number).encode(), on_delivery=lambda error, _message: reports.append(error))
    assert producer.flush(1.0) > 0
    kafka_server.resume()
    assert producer.flush(WITHIN_SECONDS) == 0
    assert reports == [None] * 500
    with reader(kafka_server.bootstrap, topic) as member:
        assert numbers(consume(member, at_least(600))) == list(range(600))
