"""Sinks that come, die and go under load: partitions change hands, samples neither get lost nor written twice."""

from __future__ import annotations

import pytest

from tests.faults.conftest import MakePipeline
from tests.faults.harness import Pipeline
from tests.faults.roles import Role
from tests.support.kafka_server import KafkaServer

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
    protocol: str, short_group_kafka: KafkaServer, timescale: str, make_pipeline: MakePipeline
) -> None:
    """One; two more; one killed, one stopped while the rest carry on; then a new one. No static names here."""
    pipeline = make_pipeline(
        short_group_kafka.bootstrap,
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


def test_frozen_sink_comes_back(
    short_group_kafka: KafkaServer, timescale: str, make_pipeline: MakePipeline
) -> None:
    """A sink that stood still until its partitions were given away wakes up with a batch in hand: it must not write."""
    pipeline = make_pipeline(
        short_group_kafka.bootstrap, timescale, environment={"KAFKA_GROUP_PROTOCOL": "consumer", "BATCH_TIMEOUT": "1"}
    )
    collector = pipeline.collector()
    frozen = pipeline.role("sink", "sink")
    pipeline.wait_for_rows()
    second = pipeline.role("sink", "sink")
    wait_shared(pipeline, [frozen, second])
    frozen.freeze()
    pipeline.wait_for(lambda: owned([second]) == [PARTITIONS], "the other sink having all partitions")
    behind = pipeline.in_table().total()
    pipeline.wait_for(lambda: pipeline.in_table().total() > behind + 200, "rows by the other sink")
    frozen.thaw()
    wait_shared(pipeline, [frozen, second])
    accepted = pipeline.quiet(collector)
    pipeline.wait_drained()
    balance = pipeline.balance(set(pipeline.in_topic()))
    print(f"sink frozen until its partitions were given away, then back: {balance}")
    assert accepted == balance.accepted
    assert balance.clean, balance
