"""Kafka away: killed and started again, frozen and thawed, while samples keep coming. The spool holds them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.faults.conftest import MakePipeline
from tests.faults.roles import Role
from tests.support.kafka_server import KafkaServer
from tests.support.processes import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timescale]


Noticed = Callable[[], bool]
"""Whether the collector has felt the outage: on a busy machine that may take longer than the outage is meant to be."""


def killed(server: KafkaServer, seconds: float, noticed: Noticed) -> None:
    server.kill()
    time.sleep(seconds)  # the length of the outage is the fault itself
    wait_until(noticed, within=60, what="something spooled")
    server.start()


def frozen(server: KafkaServer, seconds: float, noticed: Noticed) -> None:
    server.pause()
    time.sleep(seconds)
    wait_until(noticed, within=60, what="something spooled")
    server.resume()


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([(killed, 3), (frozen, 3)], id="killed-3s-frozen-3s"),
        pytest.param([(killed, 60)], id="killed-60s", marks=pytest.mark.long),
        pytest.param([(frozen, 60)], id="frozen-60s", marks=pytest.mark.long),
    ],
)
def test_broker_away_and_back(
    faults: list[tuple[Callable[[KafkaServer, float, Noticed], None], float]],
    mortal_kafka: KafkaServer,
    timescale: str,
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline(mortal_kafka.bootstrap, timescale)
    collector, sink = pipeline.collector(), pipeline.sink()
    pipeline.wait_for_rows()
    for fault, seconds in faults:
        before, spooled_before = pipeline.exporter.answers, collector.metric(SPOOLED)
        fault(mortal_kafka, seconds, partial(_more_is_spooled, collector, spooled_before))
        during = pipeline.exporter.answers - before
        spooled = collector.metric(SPOOLED) - spooled_before
        accepted = pipeline.quiet(collector)
        pipeline.wait_drained()
        topic = pipeline.in_topic()
        balance = pipeline.balance(set(topic))
        print(
            f"broker {fault.__name__} for {seconds} s, {during} scrapes meanwhile, {spooled:.0f} events spooled, "
            f"{topic.total() - len(topic)} sent twice: {balance}"
        )
        assert collector.metric("gpumon_collector_events_refused_total") == 0
        assert accepted == len(topic), "the collector's count is not what is in the topic"
        assert balance.clean, balance
        pipeline.exporter.resume()
    for role in (collector, sink):
        role.stop()


def _more_is_spooled(collector: Role, before: float) -> bool:
    return collector.metric(SPOOLED) > before


SPOOLED = "gpumon_collector_events_spooled_total"
