"""A Kafka broker that needs no installation: librdkafka's mock cluster, inside a process of its own.

It speaks the protocol (idempotent producers, groups, committed offsets, KIP-848) and is for demos and quick tests:

- everything, committed offsets included, is gone when the process ends, and a new one has a new, empty log;
- it keeps about 5 MB per partition and **evicts older messages silently**: a consumer that lags more than that loses
  them without an error;
- CreateTopics is not answered: a topic appears, with 4 partitions, when a client asks for its metadata.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException, Producer

from services.embedded.child import ChildError, ChildProcess, serve_until_told
from services.settings import Settings

PARTITIONS = 4
"""Of every topic; fixed in librdkafka's mock cluster."""
READY_WITHIN_SECONDS = 30.0


class EmbeddedBrokerError(RuntimeError):
    """The embedded broker did not start."""


class EmbeddedBroker:
    """One embedded broker in its own process. `with EmbeddedBroker(["t"]) as broker: broker.bootstrap`."""

    def __init__(self, topics: Sequence[str] = ()) -> None:
        """`topics` exist when `start` returns."""
        self._topics = tuple(topics)
        self._child: ChildProcess | None = None

    def start(self) -> Self:
        """Start and wait until it answers. Raises EmbeddedBrokerError."""
        command = [sys.executable, "-m", "services", "broker", "--topics", ",".join(self._topics)]
        try:
            self._child = ChildProcess("broker", command, ready_within=READY_WITHIN_SECONDS)
        except ChildError as error:
            raise EmbeddedBrokerError(str(error)) from error
        return self

    def stop(self) -> None:
        """Stop; all messages and offsets are gone. Does nothing when it is not started."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    @property
    def bootstrap(self) -> str:
        """`host:port` for bootstrap.servers."""
        return str(self._started.ready["bootstrap"])

    @property
    def pid(self) -> int:
        """Process id of the broker."""
        return self._started.pid

    @property
    def running(self) -> bool:
        """False before start, after stop, and when the broker ended by itself."""
        return self._child is not None and self._child.running

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _started(self) -> ChildProcess:
        if self._child is None:
            raise EmbeddedBrokerError("the embedded broker is not started")
        return self._child


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the role `broker`."""
    parser.add_argument("--topics", default="", help="comma-separated topics that exist from the start")


def run(args: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001 - every role is called alike
    """Role `broker`: print {"bootstrap": "host:port"} and serve until SIGTERM or the end of stdin."""
    try:
        cluster = Producer({"test.mock.num.brokers": 1})  # the mock cluster lives as long as this client
        brokers = cluster.list_topics(timeout=READY_WITHIN_SECONDS).brokers.values()
        for topic in filter(None, args.topics.split(",")):
            cluster.list_topics(topic, timeout=READY_WITHIN_SECONDS)
    except KafkaException as error:
        sys.stderr.write(f"gpumon broker: {error}\n")
        return 1
    serve_until_told({"bootstrap": ",".join(f"{each.host}:{each.port}" for each in brokers)})
    return 0
