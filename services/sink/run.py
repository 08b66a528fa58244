"""Role `sink`: wiring, probes, and a clear last word."""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import threading
from typing import Final

import psycopg
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from prometheus_client import REGISTRY, CollectorRegistry

from services.bus.clients import client_config, group_consumer_config, producer_config
from services.ops.clock import Clock, SystemClock
from services.ops.health import Heartbeat, OpsServer
from services.ops.lifecycle import stop_on_signals
from services.settings import Settings
from services.sink.dead_letters import DeadLetters
from services.sink.intake import Intake
from services.sink.inventory import Inventory
from services.sink.ladder import Observe
from services.sink.loop import Sink
from services.sink.membership import Membership, failed_for_good
from services.sink.metrics import SinkMetrics
from services.sink.rows import RowMapper
from services.sink.sqlstate import Kind, classify
from services.sink.validate import TimeLimits
from services.sink.writer import Writer, connect

log = logging.getLogger("sink")

CLIENT_ID: Final = "gpumon-sink"
HEARTBEAT_LIMIT: Final = 60.0
"""Seconds without a turn of the loop after which /livez fails. The longest honest one: two Kafka requests of 10 s each,
and 25 s for batches in flight in a rebalance."""
SWITCH_INTERVAL: Final = 0.0005
"""Seconds until the decoding thread lets the writer's have the interpreter. The default of 5 ms would be added to each
answer of the database, five times a batch of 20 ms."""
LARGEST_LETTER: Final = 2 * 1024 * 1024
"""Bytes: any event that fits into the raw topic (1 MiB) and its headers."""
SHORTEST_LIFE: Final = 10.0
"""Seconds. A client that fails for good sooner will do so again: with two sinks of one KAFKA_GROUP_INSTANCE_ID, say."""
_SCHEMA_ERRORS: Final = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedColumn,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All settings come from the environment."""
    parser.description = (
        "Read events from Kafka and write them into TimescaleDB: nothing lost, nothing twice. "
        "Settings: KAFKA_BOOTSTRAP, KAFKA_TOPIC, KAFKA_GROUP, TIMESCALE_DSN or PG*, BATCH_SIZE, BATCH_TIMEOUT, "
        "MAX_AGE, MAX_FUTURE, OPS_PORT."
    )


def run(args: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001 - every role is called alike
    """0 after SIGTERM, 1 when a person must look."""
    stop = stop_on_signals()
    tune_interpreter()
    try:
        serve(settings, stop)
    except psycopg.Error as error:
        sys.stderr.write(f"gpumon sink: {_explain(error)}\n")
        return 1
    except KafkaException as error:
        sys.stderr.write(f"gpumon sink: Kafka: {error.args[0].str()}\n")
        return 1
    return 0


def serve(
    settings: Settings,
    stop: threading.Event,
    *,
    observe: Observe = lambda _point: None,
    registry: CollectorRegistry = REGISTRY,
    clock: Clock | None = None,
) -> None:
    """Run one sink until `stop`. Raises psycopg.Error, KafkaException."""
    parts = _Parts(settings, stop, observe, clock or SystemClock(), SinkMetrics(registry))
    membership, sink = parts.member()

    def ready() -> str | None:
        return membership.problem() or parts.writer.problem

    try:
        live = parts.heartbeat.problem
        with OpsServer(settings.ops_host, settings.ops_port, live=live, ready=ready, registry=registry):
            while not _run(sink, parts.clock):
                membership, sink = parts.member()
    finally:
        stop.set()  # the writer must not go on repeating for a loop that is gone
        parts.writer.close()
    log.info("stopped")


class _Parts:
    """What outlives a Kafka client: the writer with its connection, the inventory, the counts."""

    def __init__(
        self, settings: Settings, stop: threading.Event, observe: Observe, clock: Clock, metrics: SinkMetrics
    ) -> None:
        self._settings, self._stop, self._observe, self._metrics = settings, stop, observe, metrics
        self.clock = clock
        self.heartbeat = Heartbeat(HEARTBEAT_LIMIT, clock)
        self._inventory = Inventory()
        self._mapper = RowMapper(self._inventory, TimeLimits(settings.max_age, settings.max_future))
        self.writer = Writer(
            connect=lambda: connect(settings.dsn),
            group=settings.kafka_group,
            letters=DeadLetters(
                Producer(producer_config(settings, CLIENT_ID) | {"message.max.bytes": LARGEST_LETTER}),
                settings.kafka_topic_invalid,
                settings.kafka_delivery_timeout,
            ),
            metrics=metrics,
            clock=clock,
            stop=stop,
            observe=observe,
        )

    def member(self) -> tuple[Membership, Sink]:
        """A client's membership in the group, and the loop around it."""
        consumer = Consumer(group_consumer_config(self._settings, CLIENT_ID))
        membership = self._membership(consumer)
        return membership, self._loop(consumer, membership)

    def _membership(self, consumer: Consumer) -> Membership:
        return Membership(
            consumer=consumer,
            admin=AdminClient(client_config(self._settings, CLIENT_ID)),
            topics=[self._settings.kafka_topic, self._settings.kafka_topic_events],
            group=self._settings.kafka_group,
            writer=self.writer,
            metrics=self._metrics,
            clock=self.clock,
        )

    def _loop(self, consumer: Consumer, membership: Membership) -> Sink:
        topic = self._settings.kafka_topic
        return Sink(
            consumer=consumer,
            membership=membership,
            writer=self.writer,
            inventory=self._inventory,
            intake=Intake(membership, self._mapper, self._metrics, self.clock, raw_topic=topic),
            metrics=self._metrics,
            heartbeat=self.heartbeat,
            clock=self.clock,
            stop=self._stop,
            batch_size=self._settings.batch_size,
            batch_timeout=self._settings.batch_timeout,
            observe=self._observe,
        )


def _run(sink: Sink, clock: Clock) -> bool:
    """Until the stop (True), or until the client has failed for good and another is to take its place (False).

    Kafka fences a static member whose name another one took; after an outage that may be our own successor, met by a
    commit of ours from before. What was read and not written is read again, from the offsets in the table.
    """
    began = clock.monotonic()
    try:
        sink.run()
    except KafkaException as error:
        if not failed_for_good(error.args[0]) or clock.monotonic() - began < SHORTEST_LIFE:
            raise
        log.error("the Kafka client failed for good, going on with another: %s", error.args[0].str())
        return False
    return True


def tune_interpreter() -> None:
    """Once per process, before the first message."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.collect()
    gc.freeze()
    gc.disable()  # the loop collects now and then (COLLECT_INTERVAL)


def _explain(error: psycopg.Error) -> str:
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, _SCHEMA_ERRORS):
        return f"the database schema does not fit ({text}): run `gpumon migrate`"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return f"{text}: the sink needs the role of the writer"
    kind = classify(error)
    return f"the database refused: {text} (SQLSTATE {error.sqlstate}, {kind.value})" if kind is Kind.FATAL else text
