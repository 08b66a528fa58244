"""Kafka goes away and comes back; the collector is killed: what was accepted arrives, in order."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.integration.collector.exporters import Exporters, MockKafka
from tests.integration.collector.process import CollectorProcess

TOPIC = "gpu-metrics-raw"


@pytest.fixture
def arrived(mock_kafka: MockKafka) -> Iterator[Consumer]:
    consumer = Consumer({"bootstrap.servers": mock_kafka.bootstrap, "group.id": "t", "enable.partition.eof": True})
    yield consumer
    consumer.close()


def read_all(consumer: Consumer, topic: str = TOPIC) -> list[tuple[str, dict[str, object]]]:
    """(key, event) of everything in the topic, in order within each key."""
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    found, open_partitions = [], len(partitions)
    deadline = time.monotonic() + 20
    while open_partitions and time.monotonic() < deadline:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error() is not None:
            open_partitions -= 1
            continue
        key, value = message.key(), message.value()
        assert key is not None
        assert value is not None
        found.append((key.decode(), json.loads(value)))
    assert not open_partitions
    return found


def scrapes_by_gpu(events: list[tuple[str, dict[str, object]]]) -> dict[str, list[int]]:
    """GPU -> numbers of the scrapes that arrived (the exporter counts them in the energy counter)."""
    result: dict[str, list[int]] = {}
    for key, event in events:
        metrics = event["metrics"]
        assert isinstance(metrics, dict)
        result.setdefault(key, []).append(metrics["total_energy_consumption"])
    return result


def first_arrivals(numbers: list[int]) -> list[int]:
    return list(dict.fromkeys(numbers))


def assert_complete(numbers: list[int], exporters: Exporters, refused: float) -> None:
    """In order, and nothing missing but what the collector itself refused (a time-out on a busy machine) and the
    scrape that the stop interrupted. Repeats are allowed: at least once."""
    once = first_arrivals(numbers)
    assert once == sorted(once)
    assert len(once) >= exporters.scrapes["/metrics"] - refused - 1


def test_healthy_every_scrape_arrives_once(
    tmp_path: Path, exporters: Exporters, mock_kafka: MockKafka, arrived: Consumer
) -> None:
    with CollectorProcess(tmp_path, mock_kafka.bootstrap, TARGETS=exporters.target()) as collector:
        collector.until_metric("events_published_total", 20)
        refused = collector.metrics()["scrapes_refused_total"]
        assert collector.stop() == 0
    got = scrapes_by_gpu(read_all(arrived))
    assert set(got) == {f"GPU-{i}" for i in range(4)}
    for numbers in got.values():
        assert_complete(numbers, exporters, refused)
        assert len(numbers) == len(set(numbers)), "nothing twice"


def test_headers_name_version_and_source(
    tmp_path: Path, exporters: Exporters, mock_kafka: MockKafka, arrived: Consumer
) -> None:
    with CollectorProcess(tmp_path, mock_kafka.bootstrap, TARGETS=exporters.target()) as collector:
        collector.until_metric("events_published_total", 4)
        collector.stop()
    arrived.assign([TopicPartition(TOPIC, partition, 0) for partition in range(4)])
    message = next(m for m in iter(lambda: arrived.poll(10), None) if m.error() is None)
    assert message.headers() == [("schema_version", b"1"), ("source", exporters.address.encode())]


def test_an_outage_loses_nothing_and_keeps_the_order(
    tmp_path: Path, exporters: Exporters, mock_kafka: MockKafka, arrived: Consumer
) -> None:
    with CollectorProcess(tmp_path, mock_kafka.bootstrap, TARGETS=exporters.target()) as collector:
        collector.until_metric("events_published_total", 8)
        mock_kafka.down()
        spooled = collector.until_metric("events_spooled_total", 40)
        assert collector.get("/readyz")[0] == 200, "the spool accepts"
        assert collector.metrics()["spool_records"] >= 40
        mock_kafka.up()
        collector.until(lambda: collector.metrics()["spool_records"] == 0, "the flush")
        published = collector.metrics()["events_published_total"]
        collector.until_metric("events_published_total", published + 8)
        metrics = collector.metrics()
        assert metrics["events_flushed_total"] >= spooled
        assert metrics["delivery_failures_total"] >= 1
        assert collector.stop() == 0
    for numbers in scrapes_by_gpu(read_all(arrived)).values():
        assert_complete(numbers, exporters, metrics["scrapes_refused_total"])


def test_killed_while_spooling_everything_accepted_arrives_after_the_restart(
    tmp_path: Path, exporters: Exporters, mock_kafka: MockKafka, arrived: Consumer
) -> None:
    mock_kafka.down()
    accepted = []
    for kills in range(3):
        with CollectorProcess(tmp_path, mock_kafka.bootstrap, TARGETS=exporters.target()) as collector:
            accepted.append(collector.until_metric("events_accepted_total", 12 + 8 * kills))
            collector.kill()
    mock_kafka.up()
    with CollectorProcess(tmp_path, mock_kafka.bootstrap, TARGETS=exporters.target()) as collector:
        collector.until(lambda: collector.metrics()["spool_records"] == 0, "the flush")
        assert collector.metrics()["events_flushed_total"] >= sum(accepted)
        assert collector.stop() == 0
    got = scrapes_by_gpu(read_all(arrived))
    assert sum(len(first_arrivals(numbers)) for numbers in got.values()) >= sum(accepted)
    for numbers in got.values():
        once = first_arrivals(numbers)
        assert once == sorted(once)


def test_stopped_without_kafka_the_rest_is_spooled_and_gpumon_spool_sends_it(
    tmp_path: Path, exporters: Exporters, mock_kafka: MockKafka, arrived: Consumer
) -> None:
    mock_kafka.down()
    with CollectorProcess(
        tmp_path, mock_kafka.bootstrap, TARGETS=exporters.target(), KAFKA_DELIVERY_TIMEOUT="3"
    ) as collector:
        collector.until_metric("scrapes_total", 5)
        assert collector.stop() == 0

    def spool(*arguments: str) -> dict[str, int]:
        command = [sys.executable, "-m", "services", "spool", *arguments, "--spool-dir", str(collector.spool), "--json"]
        environment = {**collector.environment, "KAFKA_DELIVERY_TIMEOUT": "5"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        result: dict[str, int] = json.loads(done.stdout)
        return result

    waiting = spool("status")
    assert waiting["records"] >= 16
    mock_kafka.up()
    assert spool("flush")["flushed"] == waiting["records"]
    assert spool("status")["records"] == 0
    samples = read_all(
        arrived
    )  # the rest: the target's going down, and up where a scrape came late, on their own topic
    assert 16 <= len(samples) <= waiting["records"]
    assert len(samples) % 4 == 0, "of a scrape all four GPUs"


def test_a_clean_restart_goes_on_with_what_it_knew(tmp_path: Path, exporters: Exporters, mock_kafka: MockKafka) -> None:
    with CollectorProcess(tmp_path, mock_kafka.bootstrap, TARGETS=exporters.target()) as collector:
        collector.until_metric("events_published_total", 8)
        collector.stop()
    saved = json.loads((collector.spool / "state.json").read_text())
    assert list(saved["targets"]) == [exporters.address]
    with CollectorProcess(tmp_path, mock_kafka.bootstrap, TARGETS=exporters.target()) as collector:
        collector.until_metric("events_published_total", 4)
        assert not (collector.spool / "state.json").exists()


def test_ticks_are_evenly_spaced(
    tmp_path: Path, exporters: Exporters, mock_kafka: MockKafka, arrived: Consumer
) -> None:
    with CollectorProcess(
        tmp_path, mock_kafka.bootstrap, TARGETS=exporters.target(), COLLECTION_INTERVAL="1"
    ) as collector:
        collector.until_metric("events_published_total", 16)
        collector.stop()
    times = [str(event["time"]) for key, event in read_all(arrived) if key == "GPU-0"]
    moments = [time.mktime(time.strptime(t[:19], "%Y-%m-%dT%H:%M:%S")) for t in times]
    assert {b - a for a, b in pairwise(moments)} <= {1.0, 2.0}
