"""Sinks that come, die and go under load: partitions change hands, samples neither get lost nor written twice."""

from __future__ import annotations

import threading
import time

import pytest
from confluent_kafka import Consumer
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from services.sink.run import SHORTEST_LIFE
from tests.faults import proxy as rules
from tests.faults.conftest import MakePipeline
from tests.faults.harness import Pipeline
from tests.faults.proxy import TcpProxy
from tests.faults.roles import Role
from tests.support.kafka_server import KafkaServer
from tests.support.processes import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timescale]

PARTITIONS = 8
"""Four of the samples, four of the GPU events."""


def owned(sinks: list[Role]) -> list[int]:
    return [int(sink.metric("gpumon_sink_partitions_assigned")) for sink in sinks]


def wait_shared(pipeline: Pipeline, sinks: list[Role]) -> None:
    """Every sink has partitions, and every partition one sink."""

    def shared() -> bool:
        counts = owned(sinks)
        return sum(counts) == PARTITIONS and min(counts) > 0

    pipeline.wait_for(shared, f"{len(sinks)} sinks sharing {PARTITIONS} partitions")


@pytest.mark.parametrize("protocol", ["consumer", pytest.param("classic", marks=pytest.mark.long)])
def test_three_sinks_come_and_go(
    protocol: str, mortal_kafka: KafkaServer, timescale: str, make_pipeline: MakePipeline
) -> None:
    """One; two more; one killed, one stopped while the rest carry on; then a new one. No static names here."""
    pipeline = make_pipeline(
        mortal_kafka.bootstrap,
        timescale,
        interval=0.05,
        environment={"KAFKA_GROUP_PROTOCOL": protocol, "BATCH_SIZE": "100"},
    )
    collector = pipeline.collector()
    first = pipeline.role("sink", "sink")
    wait_shared(pipeline, [first])
    second, third = pipeline.role("sink", "sink"), pipeline.role("sink", "sink")
    wait_shared(pipeline, [first, second, third])
    print(f"{protocol}: three sinks own {owned([first, second, third])} partitions")
    killed_at = pipeline.in_table().total()
    first.kill()
    wait_shared(pipeline, [second, third])
    second.stop()
    fourth = pipeline.role("sink", "sink")
    wait_shared(pipeline, [third, fourth])
    during = pipeline.in_table().total() - killed_at
    accepted = pipeline.quiet(collector)
    pipeline.wait_drained()
    balance = pipeline.balance(set(pipeline.in_topic()))
    print(f"{protocol}: 1 sink, 3 sinks, one killed, one stopped, one new; {during} rows meanwhile: {balance}")
    assert accepted == balance.accepted
    assert balance.clean, balance
    for role in (third, fourth, collector):
        role.stop()


def test_zombie_sink_is_fenced(mortal_kafka: KafkaServer, timescale: str, make_pipeline: MakePipeline) -> None:
    """A sink stands still with a batch on its way to the database until all its partitions are another's, which writes
    the same samples and more. Then the batch arrives. It must not be written, and the sink must find back."""
    pipeline = make_pipeline(mortal_kafka.bootstrap, timescale, environment={"KAFKA_GROUP_PROTOCOL": "consumer"})
    collector = pipeline.collector()
    server = conninfo_to_dict(timescale)
    released = threading.Event()
    with TcpProxy(str(server["host"]), int(str(server["port"]))) as proxy:
        behind_proxy = make_conninfo(timescale, host="127.0.0.1", port=proxy.port)
        zombie = pipeline.role("sink", "sink", TIMESCALE_DSN=behind_proxy)
        pipeline.wait_for_rows()
        held = proxy.on(b"BEGIN", rules.hold_until(released))
        pipeline.wait_for(lambda: held.met > 0, "a batch on its way to the database")
        zombie.freeze()
        heir = pipeline.role("sink", "sink")
        pipeline.wait_for(lambda: owned([heir]) == [PARTITIONS], "the other sink having all partitions")
        behind = pipeline.in_table().total()
        pipeline.wait_for(lambda: pipeline.in_table().total() > behind + 200, "rows by the other sink")
        released.set()
        zombie.thaw()
        pipeline.wait_for(lambda: zombie.metric("gpumon_sink_fenced_total") > 0, "the zombie's batch being refused")
        wait_shared(pipeline, [zombie, heir])
        accepted = pipeline.quiet(collector)
        pipeline.wait_drained()
        balance = pipeline.balance(set(pipeline.in_topic()))
        print(f"sink frozen with a batch on its way until another had its partitions, then back: {balance}")
        assert accepted == balance.accepted
        assert balance.clean, balance
        for role in (zombie, heir, collector):
            role.stop()


@pytest.mark.long
def test_client_that_failed_for_good_is_replaced(
    mortal_kafka: KafkaServer, timescale: str, make_pipeline: MakePipeline
) -> None:
    """Kafka fences a member whose static name another one has taken; librdkafka's client never works again then.

    It happens without a second sink: a commit from before an outage, answered after it, is fenced by our own successor.
    """
    pipeline = make_pipeline(mortal_kafka.bootstrap, timescale)
    collector, sink = pipeline.collector(), pipeline.sink()
    pipeline.wait_for_rows()
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > SHORTEST_LIFE + 1, within=60, what="a life that is not too short")
    thief = Consumer(
        {
            "bootstrap.servers": mortal_kafka.bootstrap,
            "group.id": pipeline.environment["KAFKA_GROUP"],
            "group.instance.id": f"{pipeline.name}-a",
            "partition.assignment.strategy": "cooperative-sticky",
            "enable.auto.commit": False,
        }
    )
    thief.subscribe([pipeline.topic])

    def stolen() -> bool:
        thief.poll(0.1)
        return "failed for good" in sink.log

    pipeline.wait_for(stolen, "the sink being fenced")
    thief.close()
    behind = pipeline.in_table().total()
    pipeline.wait_for(lambda: pipeline.in_table().total() > behind + 500, "rows after the sink was fenced")
    accepted = pipeline.quiet(collector)
    pipeline.wait_drained()
    balance = pipeline.balance(set(pipeline.in_topic()))
    print(f"the sink's Kafka client failed for good, another took its place: {balance}")
    assert accepted == balance.accepted
    assert balance.clean, balance
    for role in (sink, collector):
        role.stop()
