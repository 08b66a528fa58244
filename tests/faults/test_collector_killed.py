"""The collector killed with SIGKILL: at every step of its spool, while it flushes, and while it publishes.

Accepted is what Kafka acknowledged or what is a whole record on disk; all of it must become rows. A torn record was
never accepted, and must not be taken for one.
"""

from __future__ import annotations

import signal

import pytest

from tests.faults.conftest import MakePipeline
from tests.faults.harness import Pipeline, Sample
from tests.faults.roles import Role
from tests.support.kafka_server import KafkaServer
from tests.support.processes import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timescale]

WHILE_SPOOLING = (("mid_write", 4), ("before_sync", 4), ("after_sync", 4))
WHILE_FLUSHING = (("before_advance", 1), ("after_advance", 1))


def died(role: Role, point: str) -> None:
    """It killed itself, and there."""
    assert role.wait(60) == -signal.SIGKILL, role.tail(20)
    assert f"dying at {point}" in role.log


def bring_home(pipeline: Pipeline, sink: Role) -> None:
    """A last collector flushes what is left; then everything is written."""
    collector = pipeline.collector()
    collector.wait_ready()
    pipeline.quiet(collector)
    collector.stop()
    pipeline.wait_drained()
    sink.stop()


def test_killed_while_spooling_and_while_flushing(
    mortal_kafka: KafkaServer, timescale: str, make_pipeline: MakePipeline
) -> None:
    pipeline = make_pipeline(mortal_kafka.bootstrap, timescale)
    accepted: set[Sample] = set()
    mortal_kafka.kill()
    for point, hit in WHILE_SPOOLING:
        died(pipeline.collector_that_dies(point, hit), point)
        before, accepted = len(accepted), accepted | set(pipeline.in_spool())
        assert len(accepted) > before, f"nothing new in the spool at {point}: the fault was not hit"
        print(f"collector killed at {point}: {len(accepted) - before} samples were on disk")
    segments = len(list(pipeline.spool.glob("*.spool")))
    mortal_kafka.start()
    for point, hit in WHILE_FLUSHING:
        waiting = sum(pipeline.in_spool().values())
        died(pipeline.collector_that_dies(point, hit), point)
        assert pipeline.in_spool() or segments == 1, f"nothing was left to flush at {point}: the fault was not hit"
        print(
            f"collector killed at {point}: {waiting} samples in the spool before, {len(pipeline.in_topic())} in Kafka"
        )
    accepted |= set(pipeline.in_spool()) | set(pipeline.in_topic())
    bring_home(pipeline, pipeline.sink())
    repeats = pipeline.in_topic().total() - len(pipeline.in_topic())
    balance = pipeline.balance(accepted | set(pipeline.in_topic()))
    print(f"collector killed at {len(WHILE_SPOOLING + WHILE_FLUSHING)} points: {balance}; {repeats} sent twice by it")
    assert repeats > 0, "killed between Kafka's answer and the note of it, it must send again"
    assert balance.clean, balance


def test_killed_while_publishing(kafka: str, timescale: str, make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(kafka, timescale)
    sink = pipeline.sink()
    accepted = 0
    for _ in range(2):
        collector = pipeline.collector()
        wait_until(
            lambda c=collector: c.metric("gpumon_collector_events_published_total") > 200,  # type: ignore[misc]  # bound
            within=60,
            what="200 published events",
        )
        accepted += int(collector.metric("gpumon_collector_events_accepted_total"))
        collector.kill()
        accepted -= len(pipeline.messages(pipeline.topic_events))
    bring_home(pipeline, sink)
    topic = pipeline.in_topic()
    balance = pipeline.balance(set(topic))
    print(f"collector killed twice while publishing, {accepted} known as accepted: {balance}")
    assert accepted <= len(topic)
    assert balance.clean, balance
