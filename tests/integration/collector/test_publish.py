"""The producer against a real protocol: what arrives, what is reported, how it comes back."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from services.collector.deliver import Deliverer
from services.collector.publish import Flight, Publisher, PublishError, collector_config
from services.collector.spool import Spool
from services.settings import load
from tests.integration.collector.exporters import MockKafka
from tests.support.processes import wait_until
from tests.unit.collector.fakes import batch, values


def publisher(bootstrap: str, **settings: Any) -> Publisher:
    return Publisher(collector_config(load(kafka_bootstrap=bootstrap, kafka_linger_ms=5, **settings)))


def settle(publisher: Publisher, *flights: Flight) -> None:
    def done() -> bool:
        publisher.poll(0.05)
        return all(flight.pending == 0 for flight in flights)

    wait_until(done, within=20, what="all delivery reports")


def consume(bootstrap: str, count: int) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "t"})
    consumer.assign([TopicPartition("metrics", partition, 0) for partition in range(4)])
    found: list[bytes] = []

    def all_there() -> bool:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            value = message.value()
            assert value is not None
            found.append(value)
        return len(found) >= count

    wait_until(all_there, within=20, what=f"{count} messages")
    consumer.close()
    return found


def test_acknowledged_is_there(mock_kafka: MockKafka) -> None:
    bus = publisher(mock_kafka.bootstrap)
    flights = [bus.send(batch(n)) for n in range(5)]
    settle(bus, *flights)
    assert [flight.acked for flight in flights] == [2] * 5
    assert sorted(consume(mock_kafka.bootstrap, 10)) == sorted(values(5))
    assert bus.outstanding == 0


def test_down_times_out_and_the_rest_can_be_recalled(mock_kafka: MockKafka) -> None:
    bus = publisher(mock_kafka.bootstrap, kafka_delivery_timeout=1)
    settle(bus, bus.send(batch(0)))
    mock_kafka.down()
    flights = [bus.send(batch(1, size=50)), bus.send(batch(2, size=50))]

    def failed() -> bool:
        bus.poll(0.05)
        return bool(flights[0].failed)

    wait_until(failed, within=20, what="the first failure")
    bus.abandon(in_flight=True)
    assert [flight.pending for flight in flights] == [0, 0]
    for number, flight in enumerate(flights, start=1):
        assert sorted(value for _, _, value in flight.failed) == sorted(values(1, size=50, first=number))
    assert flights[0].reason == "_MSG_TIMED_OUT"


def test_a_full_queue_is_not_waited_for(mock_kafka: MockKafka) -> None:
    bus = Publisher(collector_config(load(kafka_bootstrap=mock_kafka.bootstrap)) | {"queue.buffering.max.messages": 10})
    mock_kafka.down()
    flight = bus.send(batch(0, size=30))
    assert (flight.pending, len(flight.failed), flight.reason) == (10, 20, "queue_full")
    bus.abandon(in_flight=True)
    assert len(flight.failed) == 30


def test_a_message_over_the_bound_of_the_broker_is_rejected_for_good(mock_kafka: MockKafka) -> None:
    bus = Publisher(collector_config(load(kafka_bootstrap=mock_kafka.bootstrap)) | {"message.max.bytes": 1000})
    big = batch(0)
    big.messages[1] = ("metrics", "GPU-1", b"x" * 2000)
    flight = bus.send(big)
    settle(bus, flight)
    assert flight.acked == 1
    assert flight.rejected == [big.messages[1]]


def test_a_fatal_error_gets_a_new_producer_and_loses_nothing(mock_kafka: MockKafka, tmp_path: Path) -> None:
    bus = publisher(mock_kafka.bootstrap)
    spool = Spool(tmp_path, 2**20)
    deliverer = Deliverer(bus, spool)
    deliverer.offer(batch(0))
    until(deliverer, lambda: deliverer.counts.published == 2)
    old = bus._producer
    raise_fatal(mock_kafka, old)
    deliverer.offer(batch(1))
    deliverer.offer(batch(2))
    until(deliverer, lambda: deliverer.counts.published == 6)
    assert bus._producer is not old
    assert sorted(consume(mock_kafka.bootstrap, 6)) == sorted(values(3))
    deliverer.finish(1)


def until(deliverer: Deliverer, condition: Callable[[], bool]) -> None:
    def check() -> bool:
        deliverer.step()
        return condition()

    wait_until(check, within=20, what="delivery")


def raise_fatal(mock_kafka: MockKafka, producer: object) -> None:
    """librdkafka's own way to simulate it; the handle is the first field of the Python object."""
    handle = ctypes.c_void_p.from_address(id(producer) + object.__basicsize__)
    mock_kafka.call("test_fatal_error", handle, 45, b"out of order")  # OUT_OF_ORDER_SEQUENCE_NUMBER


def test_settings_librdkafka_does_not_take() -> None:
    with pytest.raises(PublishError, match="cannot be made"):
        Publisher({"bootstrap.servers": "a:1", "linger.ms": -5})
