"""Why something waits in the spool, for people. Programs get the raw names: librdkafka's, and ours."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError

from services.collector.publish import QUEUE_FULL
from services.direct import trouble

NO_ANSWER: Final = "no_answer_in_time"
"""A command that ends gave up before the destination said anything."""

_WORDS: Final = {
    NO_ANSWER: "no answer in the time given",
    QUEUE_FULL: "Kafka takes events more slowly than they come",
    "stopped": "the collector was stopped before they were acknowledged",
    trouble.UNREACHABLE: "the database cannot be reached",
    trouble.HANGS: "the database does not answer in time",
    trouble.SCHEMA: "the database's schema does not fit: `gpumon migrate`",
    trouble.PERMISSION: "the database user lacks rights: it needs the role gpu_writer",
    "_MSG_TIMED_OUT": "Kafka did not acknowledge in time",
    "_TRANSPORT": "the connection to Kafka broke",
    "_ALL_BROKERS_DOWN": "no broker of Kafka can be reached",
    "_UNKNOWN_TOPIC": "Kafka has no such topic: `gpumon topics`",
    "UNKNOWN_TOPIC_OR_PART": "Kafka has no such topic: `gpumon topics`",
    "NOT_ENOUGH_REPLICAS": "too few of Kafka's brokers are in sync",
    "TOPIC_AUTHORIZATION_FAILED": "Kafka does not let this user write to the topic",
    "_AUTHENTICATION": "Kafka refuses the login",
}


def words(reason: str) -> str:
    """`Kafka did not acknowledge in time (_MSG_TIMED_OUT)`; a name nobody knows stands for itself."""
    text = _WORDS.get(reason) or _librdkafka(reason)
    return f"{text} ({reason})" if text else reason


def _librdkafka(name: str) -> str | None:
    """The client's own words for an error it names."""
    code = getattr(KafkaError, name, None) if name.strip("_").isupper() else None
    return KafkaError(code).str() if isinstance(code, int) else None
