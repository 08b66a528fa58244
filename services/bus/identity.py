"""What an offset belongs to: a cluster and a topic, not their names.

Offsets kept outside Kafka outlive it. A new broker under the old address, or a topic deleted and made again, counts
from zero; an offset is only meaningful together with the ids of the cluster and the topic it was read from.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.admin._metadata import ClusterMetadata  # in its public API, but not marked as exported

log = logging.getLogger("kafka")

REQUEST_TIMEOUT: Final = 10.0
"""Seconds for a metadata request."""
NO_TOPIC_ID: Final = ""
"""Brokers older than Kafka 2.8 and librdkafka's mock cluster have no topic ids."""
_EARLIEST: Final = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # the library left it untyped
_LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the same
ZERO_UUID: Final = "AAAAAAAAAAAAAAAAAAAAAA"


@dataclass(frozen=True, slots=True)
class TopicIdentity:
    """A topic of a cluster; `topic_id` is base64 as Kafka's own tools print it, or NO_TOPIC_ID."""

    cluster_id: str
    topic: str
    topic_id: str


def identify(admin: AdminClient, topics: Sequence[str], timeout: float = REQUEST_TIMEOUT) -> dict[str, TopicIdentity]:
    """Identity of each topic. Raises KafkaException while the cluster is not reachable or a topic does not exist."""
    cluster: ClusterMetadata = admin.list_topics(timeout=timeout)
    ids = _topic_ids(admin, topics, timeout) if has_controller(cluster) else {}
    cluster_id = cluster.cluster_id or ""
    return {topic: TopicIdentity(cluster_id, topic, ids.get(topic, NO_TOPIC_ID)) for topic in topics}


def has_controller(cluster: ClusterMetadata) -> bool:
    """False for librdkafka's mock cluster: requests to the controller (create, describe) would only time out."""
    return cluster.controller_id in cluster.brokers


def watermarks(
    admin: AdminClient, places: Sequence[tuple[str, int]], timeout: float = REQUEST_TIMEOUT
) -> dict[tuple[str, int], tuple[int, int]]:
    """(first offset kept, next offset to come) of each (topic, partition): two requests for all of them.

    Not by the consumer: its connection may be held by a fetch that waits for messages. Raises KafkaException.
    """
    asked = [TopicPartition(topic, number) for topic, number in places]
    first = admin.list_offsets(dict.fromkeys(asked, _EARLIEST), request_timeout=timeout)
    following = admin.list_offsets(dict.fromkeys(asked, _LATEST), request_timeout=timeout)
    return {
        (each.topic, each.partition): (int(first[each].result().offset), int(following[each].result().offset))
        for each in asked
    }


def _topic_ids(admin: AdminClient, topics: Sequence[str], timeout: float) -> dict[str, str]:
    found = admin.describe_topics(TopicCollection(list(topics)), request_timeout=timeout)
    ids: dict[str, str] = {}
    for topic, future in found.items():
        try:
            text = str(future.result().topic_id)
        except KafkaException as error:
            log.error("cannot describe topic %s: %s", topic, error.args[0].str())
            raise
        ids[topic] = NO_TOPIC_ID if text == ZERO_UUID else text
    return ids
