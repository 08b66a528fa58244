"""Configurations of the Kafka clients, in one place. Names are librdkafka's (its CONFIGURATION.md)."""

from __future__ import annotations

import logging
from typing import Any, Final

from confluent_kafka import KafkaError

from services.ops.clock import Clock, SystemClock
from services.settings import Settings

log = logging.getLogger("kafka")

Config = dict[str, Any]

REPEAT_ERROR_AFTER: Final = 30.0
"""Seconds until the same kind of error is logged again."""
LONGEST_RECONNECT_MS: Final = 2_000
"""A broker that is back is found within two seconds (default 10 s)."""
MAX_POLL_INTERVAL_MS: Final = 300_000
"""A consumer that has not polled for so long leaves its group. librdkafka's default; our loops poll every second."""
PREFETCH_KIB: Final = 32 * 1024
"""Bound of what a consumer fetches ahead: some 25,000 events of 1.3 KB, five batches."""
SMALLEST_PREFETCH: Final = 20_000
"""Messages fetched ahead: four default batches, so that the next one is there when a batch is written."""


class ErrorLog:
    """Told of every error librdkafka meets. It repeats all but fatal ones by itself, many times a second while a broker
    is away, so each kind is logged once in a while."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._logged: dict[str, float] = {}

    def __call__(self, error: KafkaError) -> None:
        now, name = self._clock.monotonic(), error.name()
        if error.fatal() or now - self._logged.get(name, float("-inf")) >= REPEAT_ERROR_AFTER:
            self._logged[name] = now
            level = logging.ERROR if error.fatal() else logging.WARNING
            log.log(level, "Kafka client: %s", error.str(), extra={"code": name})


def client_config(settings: Settings, client_id: str) -> Config:
    """What every client shares."""
    return {
        "bootstrap.servers": settings.kafka_bootstrap,
        "client.id": client_id,
        "error_cb": ErrorLog(),
        "log_level": 2,  # its own lines on stderr: critical ones only, the others come to error_cb
        "reconnect.backoff.max.ms": LONGEST_RECONNECT_MS,
    }


def producer_config(settings: Settings, client_id: str) -> Config:
    """Idempotent: acknowledged by all replicas, in order, each message once."""
    return client_config(settings, client_id) | {
        "enable.idempotence": True,
        "compression.type": settings.kafka_compression,
        "linger.ms": settings.kafka_linger_ms,
        "delivery.timeout.ms": int(settings.kafka_delivery_timeout * 1000),
    }


def group_consumer_config(settings: Settings, client_id: str) -> Config:
    """A member of the sink's group. Offsets live in the database, so nothing here commits or guesses a position.

    `auto.offset.reset=error`: a position the broker does not have is reported to us, never silently moved.
    """
    config = client_config(settings, client_id) | {
        "group.id": settings.kafka_group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "max.poll.interval.ms": MAX_POLL_INTERVAL_MS,
        "queued.max.messages.kbytes": PREFETCH_KIB,
        "queued.min.messages": SMALLEST_PREFETCH,
        "fetch.wait.max.ms": 100,  # a lone message is handed out by fetch.min.bytes=1 at once; this bounds idle fetches
        "fetch.queue.backoff.ms": 10,  # after a full prefetch queue or a pause, look again soon (default 1 s)
    }
    if settings.kafka_group_instance_id:
        config["group.instance.id"] = settings.kafka_group_instance_id
    if settings.kafka_group_protocol == "consumer":
        return config | {"group.protocol": "consumer"}
    return config | {
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": int(settings.kafka_session_timeout * 1000),
        "heartbeat.interval.ms": int(min(3.0, settings.kafka_session_timeout / 3) * 1000),
    }


def reader_config(settings: Settings, client_id: str) -> Config:
    """A consumer outside any group: partitions are assigned by hand, nothing is committed."""
    return client_config(settings, client_id) | {
        "group.id": client_id,  # the client demands one; without commit or subscribe it is never used
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
    }
