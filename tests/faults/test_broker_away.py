"""Kafka away: killed and started again, frozen and thawed, while samples keep coming. The spool carries the collector."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.faults.conftest import MakePipeline
from tests.support.kafka_server import KafkaServer
from tests.support.processes import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timescale]


def killed(server: KafkaServer, seconds: float) -> None:
    server.kill()
    time.sleep(seconds)  # the length of the outage is the fault itself
    server.start()


def frozen(server: KafkaServer, seconds: float) -> None:
    server.pause()
    time.sleep(seconds)
    server.resume()


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (killed, 5),
        (frozen, 5),
        pytest.param(killed, 60, marks=pytest.mark.long),
        pytest.param(frozen, 60, marks=pytest.mark.long),
    ],
)
def test_broker_away_and_back(
    fault: Callable[[KafkaServer, float], None],
    seconds: float,
    kafka_server: KafkaServer,
    timescale: str,
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline(kafka_server.bootstrap, timescale)
    collector, sink = pipeline.collector(), pipeline.sink()
    pipeline.wait_for_rows()
    before = pipeline.exporter.answers
    fault(kafka_server, seconds)
    during = pipeline.exporter.answers - before
    spooled = collector.metric("gpumon_collector_events_spooled_total")
    assert spooled > 0, "the collector spooled nothing: the fault was not hit"
    accepted = pipeline.quiet(collector)
    pipeline.wait_drained()
    topic = pipeline.in_topic()
    balance = pipeline.balance(set(topic))
    refused = collector.metric("gpumon_collector_events_refused_total")
    print(
        f"broker {fault.__name__} for {seconds} s, {during} scrapes meanwhile, {spooled:.0f} events spooled, "
        f"{topic.total() - len(topic)} sent twice: {balance}"
    )
    assert refused == 0
    assert accepted == len(topic), "the collector's count is not what is in the topic"
    assert balance.clean, balance
    for role in (collector, sink):
        role.stop()
