"""The same on Apache Kafka itself: killed, frozen, back again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer

from tests.integration.collector.exporters import Exporters
from tests.integration.collector.process import CollectorProcess
from tests.integration.collector.test_kafka_away import assert_complete, read_all, scrapes_by_gpu
from tests.support.kafka_server import KafkaServer

OUTAGES: dict[str, tuple[Callable[[KafkaServer], object], Callable[[KafkaServer], object]]] = {
    "killed": (KafkaServer.kill, KafkaServer.start),
    "stopped": (KafkaServer.stop, KafkaServer.start),
    "frozen": (KafkaServer.pause, KafkaServer.resume),
}


@pytest.mark.kafka
@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_loses_nothing_and_keeps_the_order(
    tmp_path: Path, exporters: Exporters, kafka_server: KafkaServer, outage: str
) -> None:
    begin, end = OUTAGES[outage]
    with CollectorProcess(tmp_path, kafka_server.bootstrap, TARGETS=exporters.target()) as collector:
        collector.until_metric("events_published_total", 8)
        begin(kafka_server)
        spooled = collector.until_metric("events_spooled_total", 20)
        end(kafka_server)
        collector.until(lambda: collector.metrics()["spool_records"] == 0, "the flush")
        collector.until_metric("events_published_total", collector.metrics()["events_published_total"] + 8)
        metrics = collector.metrics()
        assert metrics["events_flushed_total"] >= spooled
        assert metrics["events_refused_total"] == 0
        assert collector.stop() == 0
        # One line an outage, not one a scrape; a broker that has just come back may fail once more on a busy machine.
        assert 1 <= collector.log.count("spooling") <= 3
        assert collector.log.count("Kafka: ") <= 2, "once per kind of error, not once per attempt"
    consumer = Consumer({"bootstrap.servers": kafka_server.bootstrap, "group.id": "t", "enable.partition.eof": True})
    for numbers in scrapes_by_gpu(read_all(consumer)).values():
        assert_complete(numbers, exporters, metrics["scrapes_refused_total"])
    consumer.close()
