"""Events and Kafka messages for tests, without a broker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from confluent_kafka import KafkaError

UUID = "GPU-5f3c8a52-0000-4000-8000-000000000001"
TIME = "2026-11-22T03:00:00.250Z"


@dataclass(frozen=True)
class FakeMessage:
    """`services.bus.message.Message` from literals."""

    value_: bytes | None
    key_: bytes | None = UUID.encode()
    topic_: str = "gpu-metrics-raw"
    partition_: int = 0
    offset_: int = 0
    headers_: tuple[tuple[str, bytes | None], ...] = ()
    error_: KafkaError | None = None

    def topic(self) -> str:
        return self.topic_

    def partition(self) -> int:
        return self.partition_

    def offset(self) -> int:
        return self.offset_

    def key(self) -> bytes | None:
        return self.key_

    def value(self) -> bytes | None:
        return self.value_

    def headers(self) -> Sequence[tuple[str, bytes | None]] | None:
        return self.headers_ or None

    def error(self) -> KafkaError | None:
        return self.error_


def event(**changes: Any) -> dict[str, Any]:
    """A whole event as a dictionary; `changes` replace top-level fields, None takes one out."""
    document = {
        "schema_version": 1,
        "time": TIME,
        "gpu": {"uuid": UUID, "hostname": "node-1", "index": 0, "model": "NVIDIA H100 80GB HBM3"},
        "metrics": {"gpu_temp": 61, "power_usage": 412.125, "sm_active": 0.123456},
        **changes,
    }
    return {name: value for name, value in document.items() if value is not None}


def encoded(**changes: Any) -> bytes:
    return msgspec.json.encode(event(**changes))
