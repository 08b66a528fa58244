"""`gpumon sample` and `gpumon spool flush` by way of Kafka."""

from __future__ import annotations

import argparse
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from services.bus.topics import ensure, wait_for_cluster, wanted
from services.collector import spool_command
from services.host import sample
from services.ops.clock import SystemClock
from services.settings import load


def run(role: Any, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    role.add_arguments(parser)
    code: int = role.run(parser.parse_args(arguments), load())
    return code


@pytest.fixture
def topic(embedded_broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Topics of the test's own, set in the environment with one mock host and a spool of its own."""
    name = uuid.uuid4().hex[:8]
    given = {
        "KAFKA_BOOTSTRAP": embedded_broker,
        "KAFKA_TOPIC": f"raw-{name}",
        "KAFKA_TOPIC_EVENTS": f"events-{name}",
        "KAFKA_TOPIC_INVALID": f"invalid-{name}",
        "EXPORTER_SOURCE": "mock",
        "SPOOL_DIR": str(tmp_path / "spool"),
    }
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    admin = AdminClient({"bootstrap.servers": embedded_broker})
    ensure(admin, wait_for_cluster(admin, 30, SystemClock()), wanted(load()), 1)
    monkeypatch.chdir(tmp_path)
    return f"raw-{name}"


def received(bootstrap: str, topic: str, number: int) -> list[dict[str, Any]]:
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "enable.auto.commit": False})
    partitions = reader.list_topics(topic, timeout=30).topics[topic].partitions
    reader.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    try:
        return [json.loads(message.value() or b"") for message in reader.consume(number, 30)]
    finally:
        reader.close()


def identities(events: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(event["gpu"]["uuid"], event["time"]) for event in events}


def test_the_events_are_in_the_topic(embedded_broker: str, topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(sample, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["delivery"]["destination"] == "kafka"
    assert told["delivery"]["sent"] == len(told["events"]) > 0
    got = received(embedded_broker, topic, len(told["events"]))
    assert identities(got) == identities(told["events"])


def test_what_was_spooled_comes_with_the_flush(
    embedded_broker: str, topic: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "127.0.0.1:1")
    assert run(sample, "--json", "--timeout", "5") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["delivery"]["_spool_reason"] == "_MSG_TIMED_OUT"
    monkeypatch.setenv("KAFKA_BOOTSTRAP", embedded_broker)
    assert run(spool_command, "flush") == 0
    got = received(embedded_broker, topic, len(told["events"]))
    assert identities(got) == identities(told["events"])
