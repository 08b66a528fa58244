"""Where a sink goes on reading: the table decides, and offsets belong to one life of a topic."""

from __future__ import annotations

import logging

import pytest
from confluent_kafka import Consumer, TopicPartition

from services.embedded.broker import EmbeddedBroker
from tests.integration.sink.harness import Bench, wait_for

pytestmark = pytest.mark.timescale


def forget_offsets_in_kafka(bench: Bench) -> None:
    """Kafka's own committed offsets back to the beginning."""
    consumer = Consumer(
        {
            "bootstrap.servers": bench.settings.kafka_bootstrap,
            "group.id": bench.settings.kafka_group,
            "group.protocol": "consumer",
            "enable.auto.commit": False,
        }
    )
    topic = bench.settings.kafka_topic
    consumer.subscribe([topic])

    def joined() -> bool:
        consumer.poll(0.1)
        return len(consumer.assignment()) == 4

    wait_for(joined, "membership")
    consumer.commit(offsets=[TopicPartition(topic, number, 0) for number in range(4)], asynchronous=False)
    consumer.close()


def test_a_restart_resumes_from_the_table_whatever_kafka_says(bench_on_both: Bench) -> None:
    bench = bench_on_both
    bench.send(*(bench.sample(number) for number in range(100)))
    with bench.sink():
        bench.wait_for_rows(100)
    forget_offsets_in_kafka(bench)
    bench.send(*(bench.sample(number) for number in range(100, 150)))
    with bench.sink() as second:
        bench.wait_for_rows(150)
        wait_for(lambda: bench.stored() == 150, "offsets")
    assert second.value("rows_inserted_total") == 50
    assert second.value("rows_duplicate_total") == 0
    assert second.value("offset_gap_messages_total") == 0


def test_a_new_cluster_under_the_old_names_starts_at_its_beginning(bench: Bench) -> None:
    bench.send(*(bench.sample(number) for number in range(100)))
    with bench.sink():
        bench.wait_for_rows(100)
    with EmbeddedBroker() as other:
        again = Bench(other.bootstrap, bench.settings.timescale_dsn.get_secret_value())  # type: ignore[union-attr]  # set
        names = bench.settings.model_dump(
            include={"kafka_topic", "kafka_topic_invalid", "kafka_topic_events", "kafka_group"}
        )
        again.settings = again.settings.model_copy(update=names)
        again.gpu, again.begin = bench.gpu, bench.begin
        again.send(*(again.sample(number) for number in range(90, 110)))
        with again.sink() as sink:
            again.wait_for_rows(110)
            wait_for(lambda: again.stored() == 120, "offsets of both clusters")
        again.close()
    assert sink.value("offset_restarts_total") == 0, "a different cluster is no surprise"
    assert sink.value("rows_duplicate_total") == 10


def test_an_offset_beyond_the_end_begins_anew_and_says_so(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.send(*(bench.sample(number) for number in range(30)))
    with bench.sink():
        bench.wait_for_rows(30)
    bench.connection.execute(
        "UPDATE kafka_offsets SET next_offset = next_offset + 1000 WHERE consumer_group = %s AND next_offset > 0",
        [bench.settings.kafka_group],
    )
    bench.send(*(bench.sample(number) for number in range(30, 40)))
    with caplog.at_level(logging.ERROR), bench.sink() as sink:
        bench.wait_for_rows(40)
    assert bench.temperatures() == list(range(40))
    assert sink.value("offset_restarts_total") == 1
    assert "beyond the end" in caplog.text


def test_another_writer_fences_us_and_nothing_is_lost_or_doubled(bench: Bench) -> None:
    with bench.sink() as sink:
        bench.send(*(bench.sample(number) for number in range(20)))
        bench.wait_for_rows(20)
        # As if another sink, thought to have the partitions as well, had moved them: back to the beginning.
        bench.connection.execute(
            "UPDATE kafka_offsets SET next_offset = 0 WHERE consumer_group = %s AND topic = %s",
            [bench.settings.kafka_group, bench.settings.kafka_topic],
        )
        bench.send(*(bench.sample(number) for number in range(20, 40)))
        bench.wait_for_rows(40)
        wait_for(lambda: bench.stored() == 40, "offsets")
    assert bench.temperatures() == list(range(40))
    assert sink.value("fenced_total") >= 1
    assert sink.value("rows_duplicate_total") == 20


def test_messages_the_broker_evicted_are_counted_and_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The embedded broker keeps about 5 MB a partition, silently. A sink that was away notices."""
    bench.send(bench.sample(0))
    with bench.sink():
        bench.wait_for_rows(1)
    filler = {"labels": {"filler": "x" * 20_000}}
    sent = 600
    bench.send(*(bench.sample(number, extra=filler) for number in range(1, sent + 1)))
    with caplog.at_level(logging.ERROR), bench.sink() as sink:
        wait_for(lambda: bench.stored() == sent + 1, "the end of the topic")
    lost = sum(
        sink.value("offset_gap_messages_total", topic=bench.settings.kafka_topic, partition=str(n)) for n in range(4)
    )
    assert lost > 0
    assert bench.count() + lost == sent + 1
    assert "LOST" in caplog.text
