"""Role `topics`: make the pipeline's topics with their partitions and retention. Running it again changes nothing."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

# These belong to the public `confluent_kafka.admin`, but are not marked as exported there.
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._metadata import ClusterMetadata
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from services.bus.clients import client_config
from services.bus.identity import has_controller
from services.ops.clock import Clock, SystemClock
from services.settings import Settings

log = logging.getLogger("topics")

HOUR_MS: Final = 3_600_000
REQUEST_TIMEOUT: Final = 10.0
"""Seconds for one admin request."""
LOOK_INTERVAL: Final = 0.5
"""Seconds between two looks for a broker that is not there yet."""
LARGEST_LETTER: Final = 2 * 1024 * 1024 + 64 * 1024
"""Bytes: an event of the raw topic (1 MiB at most) with headers, and what a batch adds."""
INVALID_PARTITIONS: Final = 1
"""Dead letters are few, and read by people."""


@dataclass(frozen=True, slots=True)
class Topic:
    """What a topic shall be."""

    name: str
    partitions: int
    retention_ms: int
    largest_message: int | None = None
    """Bytes; None leaves it at the broker's default."""

    @property
    def config(self) -> dict[str, str]:
        size = {} if self.largest_message is None else {"max.message.bytes": str(self.largest_message)}
        return {"retention.ms": str(self.retention_ms), **size}


class TopicsError(Exception):
    """Topics cannot be made as the settings ask; the message says what to do."""


def wanted(settings: Settings) -> list[Topic]:
    """The three topics, in the order the data flows."""
    data, invalid = settings.kafka_retention_hours * HOUR_MS, settings.kafka_retention_hours_invalid * HOUR_MS
    return [
        Topic(settings.kafka_topic, settings.kafka_partitions, data),
        Topic(settings.kafka_topic_events, settings.kafka_partitions, invalid),
        Topic(settings.kafka_topic_invalid, INVALID_PARTITIONS, invalid, LARGEST_LETTER),
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="wait for the broker")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """0 when all topics are there, 1 with the reason on stderr."""
    admin = AdminClient(client_config(settings, "gpumon-topics"))
    try:
        cluster = wait_for_cluster(admin, args.wait, SystemClock())
        ensure(admin, cluster, wanted(settings), settings.kafka_replication_factor)
    except TopicsError as error:
        sys.stderr.write(f"gpumon topics: {error}\n")
        return 1
    except KafkaException as error:
        sys.stderr.write(f"gpumon topics: {settings.kafka_bootstrap}: {error.args[0].str()}\n")
        return 1
    return 0


def wait_for_cluster(admin: AdminClient, within: float, clock: Clock) -> ClusterMetadata:
    """The cluster's metadata. Raises KafkaException when it does not answer within `within` seconds."""
    deadline = clock.monotonic() + within
    while True:
        try:
            return admin.list_topics(timeout=max(1.0, min(REQUEST_TIMEOUT, deadline - clock.monotonic())))
        except KafkaException:
            if clock.monotonic() >= deadline:
                raise
            clock.sleep(LOOK_INTERVAL)


def ensure(admin: AdminClient, cluster: ClusterMetadata, topics: list[Topic], replication: int) -> None:
    """Make what is missing, grow and configure what is there. Raises TopicsError, KafkaException."""
    if not has_controller(cluster):
        _ask_for(admin, topics)
        return
    for topic in topics:
        existing = cluster.topics.get(topic.name)
        if existing is None:
            _create(admin, topic, replication)
        else:
            _adjust(admin, topic, len(existing.partitions))


def _ask_for(admin: AdminClient, topics: list[Topic]) -> None:
    """librdkafka's mock cluster has no controller to create topics; it makes one when its metadata is asked for."""
    for topic in topics:
        found = admin.list_topics(topic.name, timeout=REQUEST_TIMEOUT).topics[topic.name]
        facts = {"topic": topic.name, "partitions": len(found.partitions), "wanted": topic.partitions}
        log.warning("embedded broker: topic exists by being asked for, without retention", extra=facts)


def _create(admin: AdminClient, topic: Topic, replication: int) -> None:
    new = NewTopic(topic.name, topic.partitions, replication, config=topic.config | {"cleanup.policy": "delete"})
    try:
        admin.create_topics([new], operation_timeout=REQUEST_TIMEOUT)[topic.name].result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return  # another one was faster
        raise TopicsError(f"cannot create {topic.name}: {error.args[0].str()}") from error
    log.info("created", extra={"topic": topic.name, "partitions": topic.partitions, **topic.config})


def _adjust(admin: AdminClient, topic: Topic, partitions: int) -> None:
    """Configure it; partitions are not changed: a GPU's key would go to another one in mid-stream."""
    if partitions != topic.partitions:
        facts = {"topic": topic.name, "partitions": partitions, "wanted": topic.partitions}
        log.warning("exists with another number of partitions; left as it is", extra=facts)
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in topic.config.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic.name, incremental_configs=entries)
    try:
        admin.incremental_alter_configs([resource])[resource].result()
    except KafkaException as error:
        raise TopicsError(f"cannot configure {topic.name}: {error.args[0].str()}") from error
    log.info("exists", extra={"topic": topic.name, "partitions": partitions, **topic.config})
