"""The pipeline under test and its bookkeeping: what was accepted, what is in the topic, what is in the table.

A sample is (GPU UUID, n): answer n of the exporter says `total_energy_consumption n`. It keeps that identity whatever
time or offset it is given, so that a sample stored twice under two times is found as well.
"""

from __future__ import annotations

import itertools
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psycopg
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from services.collector import segment
from services.demo.watch import Readings
from tests.faults.exporter import NAMESPACE, CountingExporter, MoreLines, gpu_uuid
from tests.faults.roles import Role
from tests.support.processes import ServerError, wait_until

Sample = tuple[str, int]
_first_gpus = itertools.count(1_000, 1_000)
DRAIN_WITHIN = 60.0
"""Seconds from the end of a fault until everything accepted is in the table: generous, machines are shared."""


@dataclass(frozen=True, slots=True)
class Balance:
    """What a fault cost."""

    accepted: int
    rows: int
    lost: int
    """Accepted, and not in the table."""
    twice: int
    """In the table more than once."""
    invented: int
    """In the table, and never accepted."""
    dead_letters: int

    @property
    def clean(self) -> bool:
        """Nothing lost, nothing twice, nothing invented, no dead letter."""
        return (self.lost, self.twice, self.invented, self.dead_letters) == (0, 0, 0, 0) and self.accepted > 0

    def __str__(self) -> str:
        return (
            f"accepted {self.accepted}, rows {self.rows}, lost {self.lost}, twice {self.twice}, "
            f"invented {self.invented}, dead letters {self.dead_letters}"
        )


class Pipeline:
    """Exporter, collector and sinks around a Kafka and a database that others started. Topics and GPUs of its own."""

    def __init__(
        self,
        directory: Path,
        bootstrap: str,
        dsn: str,
        *,
        gpus: int = 40,
        interval: float = 0.1,
        more: MoreLines | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`gpus` per answer, an answer every `interval` seconds, with `more` lines; `environment` for every role."""
        self.directory = directory
        self.bootstrap = bootstrap
        self.dsn = dsn
        self.name = uuid.uuid4().hex[:8]
        self.topic, self.topic_invalid, self.topic_events = (
            f"{kind}-{self.name}" for kind in ("raw", "invalid", "events")
        )
        self.first_gpu = next(_first_gpus)
        self.exporter = CountingExporter(gpus, first_gpu=self.first_gpu, more=more)
        self.spool = directory / "spool"
        self.roles: list[Role] = []
        self._numbers = itertools.count(1)
        self.environment = {
            "KAFKA_BOOTSTRAP": bootstrap,
            "KAFKA_TOPIC": self.topic,
            "KAFKA_TOPIC_INVALID": self.topic_invalid,
            "KAFKA_TOPIC_EVENTS": self.topic_events,
            "KAFKA_PARTITIONS": "4",
            "KAFKA_GROUP": f"sink-{self.name}",
            "KAFKA_DELIVERY_TIMEOUT": "2",
            "TIMESCALE_DSN": dsn,
            "TARGETS": self.exporter.target,
            "COLLECTION_INTERVAL": str(interval),
            "SCRAPE_TIMEOUT": str(interval),
            "SPOOL_DIR": str(self.spool),
            "BATCH_SIZE": "200",
            "BATCH_TIMEOUT": "0.1",
            **(environment or {}),
        }

    # Processes ----------------------------------------------------------------------------------------------------

    def role(self, name: str, *arguments: str, module: str = "services", **environment: str) -> Role:
        role = Role(
            f"{name}-{next(self._numbers)}",
            arguments,
            {**self.environment, **environment},
            self.directory,
            module=module,
        )
        self.roles.append(role)
        return role

    def prepare(self) -> None:
        """Topics and schema."""
        preparing = [self.role("topics", "topics", "--wait", "60"), self.role("migrate", "migrate", "--wait", "60")]
        for role in preparing:
            role.finish(120)

    def collector(self, **environment: str) -> Role:
        return self.role("collector", "collector", **environment)

    def sink(self, member: str = "a", **environment: str) -> Role:
        """A sink. `member` is its name in the group: the successor of a killed one takes over at once under it."""
        return self.role("sink", "sink", KAFKA_GROUP_INSTANCE_ID=f"{self.name}-{member}", **environment)

    def sink_that_dies(self, point: str, after: str = "", hit: int = 1, member: str = "a") -> Role:
        """A sink that sends itself SIGKILL at the `hit`-th time it reaches `point` in a batch that passed `after`."""
        instance = f"{self.name}-{member}"
        return self.role(
            "dying-sink",
            *(point, after, str(hit)),
            module="tests.faults.dying_sink",
            KAFKA_GROUP_INSTANCE_ID=instance,
        )

    def collector_that_dies(self, point: str, hit: int = 1) -> Role:
        """A collector that sends itself SIGKILL at the `hit`-th time it reaches `point` of its spool."""
        return self.role("dying-collector", *(point, str(hit)), module="tests.faults.dying_collector")

    def wait_for(self, condition: Callable[[], bool], what: str, within: float = 60.0) -> None:
        """Until `condition()`; when it does not come true the last lines of every log say why."""
        try:
            wait_until(condition, within=within, what=what)
        except ServerError as error:
            raise AssertionError(f"{error}; {self._tails()}") from None

    def wait_for_rows(self) -> None:
        """The pipeline is at work."""
        self.wait_for(lambda: bool(self.in_table()), "the first rows")

    def quiet(self, collector: Role) -> int:
        """No more samples, and all that were accepted are in Kafka; how many the collector says it accepted."""
        self.exporter.pause()
        seen: list[float | None] = []

        def done() -> bool:
            collector.check()
            seen.append(_accepted_at_rest(collector.readings()))
            return seen[-1] is not None and seen[-1:] == seen[-2:-1]

        self.wait_for(done, "the collector's last events being accepted")
        happenings = len({m.value() for m in self.messages(self.topic_events)})  # a repeat counts once
        return int(seen[-1] or 0) - happenings

    # Kafka --------------------------------------------------------------------------------------------------------

    def messages(self, topic: str | None = None) -> list[Message]:
        """Every message of a topic, from its beginning to its end."""
        name = topic or self.topic
        with consumer(self.bootstrap) as reader:
            ends = _ends(reader, name)
            reader.assign([TopicPartition(name, p, 0) for p, end in ends.items() if end])
            left = {p for p, end in ends.items() if end}
            found: list[Message] = []
            while left:
                for message in reader.consume(5000, 0.1):  # blocks until there are so many, or so long
                    error = message.error()
                    if error is not None and error.code() != KafkaError._PARTITION_EOF:
                        raise AssertionError(f"reading {name}: {error}")
                    if error is None:
                        found.append(message)
                    partition, offset = place(message)
                    if error is not None or offset + 1 >= ends[partition]:
                        left.discard(partition)
        return found

    def produce(self, messages: Sequence[tuple[str, bytes | None]], topic: str | None = None) -> list[tuple[int, int]]:
        """Put (key, value) into the raw topic past the collector; (partition, offset) of each, in order."""
        placed: dict[int, tuple[int, int]] = {}

        def delivered(number: int) -> Callable[[KafkaError | None, Message], None]:
            def report(error: KafkaError | None, message: Message) -> None:
                if error is None:
                    placed[number] = place(message)

            return report

        producer = Producer(
            {"bootstrap.servers": self.bootstrap, "enable.idempotence": True, "partitioner": "murmur2_random"}
        )
        for number, (key, value) in enumerate(messages):
            producer.produce(topic or self.topic, value, key, on_delivery=delivered(number))
        producer.flush(30)
        if len(placed) < len(messages):
            raise AssertionError(f"Kafka took {len(placed)} of {len(messages)} messages of the test")
        return [placed[number] for number in range(len(messages))]

    def dead_letters(self) -> list[Message]:
        return self.messages(self.topic_invalid)

    def in_topic(self) -> Counter[Sample]:
        """Samples of our exporter in the raw topic; how often each."""
        return Counter(sample for m in self.messages() if (sample := self.sample(m.value())) is not None)

    # Spool --------------------------------------------------------------------------------------------------------

    def in_spool(self) -> Counter[Sample]:
        """Samples in whole records on disk, sent or not."""
        found: Counter[Sample] = Counter()
        for path in sorted(self.spool.glob("*.spool")):
            data = path.read_bytes()
            for offset in segment.scan(data).offsets:
                frame = segment.frame_at(data, offset)
                sample = self.sample(frame[0].value) if frame is not None else None
                if sample is not None:
                    found[sample] += 1
        return found

    # Table --------------------------------------------------------------------------------------------------------

    def in_table(self) -> Counter[Sample]:
        """Samples in gpu_metrics; how often each, counted, not taken from a key."""
        query = (
            "SELECT gpu_uuid, total_energy_consumption, count(*) FROM gpu_metrics JOIN gpus USING (gpu_id)"
            " WHERE gpu_uuid = ANY(%s) AND total_energy_consumption IS NOT NULL GROUP BY 1, 2"
        )
        mine = [gpu_uuid(self.first_gpu + number) for number in range(self.exporter.gpus)]
        with psycopg.connect(self.dsn) as connection:
            return Counter({(gpu, int(n)): int(count) for gpu, n, count in connection.execute(query, [mine])})

    def written(self) -> dict[int, int]:
        """Partition -> next offset, as the sink wrote it with the rows."""
        query = "SELECT partition, max(next_offset) FROM kafka_offsets WHERE topic = %s GROUP BY 1"
        with psycopg.connect(self.dsn) as connection:
            return {int(p): int(offset) for p, offset in connection.execute(query, [self.topic])}

    # The end ------------------------------------------------------------------------------------------------------

    def wait_drained(self, within: float = DRAIN_WITHIN) -> None:
        """Until the sink has written the whole raw topic."""
        with consumer(self.bootstrap) as reader:
            ends = {p: end for p, end in _ends(reader, self.topic).items() if end}

        def done() -> bool:
            try:
                at = self.written()
            except psycopg.OperationalError:
                return False
            return all(at.get(p, 0) >= end for p, end in ends.items())

        try:
            self.wait_for(done, f"the sink writing up to {ends}", within)
        except AssertionError as error:
            raise AssertionError(f"{error}; written {self._written_or_error()}") from None

    def _written_or_error(self) -> str:
        try:
            return str(self.written())
        except psycopg.Error as error:
            return str(error)

    def _tails(self) -> str:
        return "; ".join(f"{role.name}: {role.tail(5)}" for role in self.roles if role.running)

    def balance(self, accepted: set[Sample]) -> Balance:
        """`accepted` against the table."""
        table = self.in_table()
        return Balance(
            accepted=len(accepted),
            rows=table.total(),
            lost=len(accepted - set(table)),
            twice=sum(count - 1 for count in table.values()),
            invented=len(set(table) - accepted),
            dead_letters=len(self.dead_letters()),
        )

    def sample(self, value: bytes | None) -> Sample | None:
        """The identity of one of our samples; None for anything else."""
        try:
            document = msgspec.json.decode(value or b"")
            sample = (str(document["gpu"]["uuid"]), int(document["metrics"]["total_energy_consumption"]))
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, RecursionError):
            return None
        number = int(sample[0].rpartition("-")[2]) if sample[0].startswith(NAMESPACE) else -1
        return sample if self.first_gpu <= number < self.first_gpu + self.exporter.gpus else None

    def close(self) -> None:
        """End every process that still runs, and the exporter."""
        for role in self.roles:
            role.discard()
        self.exporter.close()


def _accepted_at_rest(readings: Readings) -> float | None:
    """Events accepted, once the exporter's answers stay out and nothing is on its way to Kafka; else None."""
    if not readings.samples or readings.total("gpumon_collector_up") > 0:
        return None
    names = ("events_waiting", "events_outstanding", "spool_records")
    if any(readings.total(f"gpumon_collector_{name}") for name in names):
        return None
    return readings.total("gpumon_collector_events_accepted_total")


def place(message: Message) -> tuple[int, int]:
    """(partition, offset) of a message that Kafka has."""
    partition, offset = message.partition(), message.offset()
    if partition is None or offset is None:
        raise AssertionError("a message that Kafka does not have")
    return partition, offset


def headers(message: Message) -> dict[str, str]:
    """Headers as text."""
    pairs = dict(message.headers() or {})
    return {name: value.decode() if isinstance(value, bytes) else str(value) for name, value in pairs.items()}


def source(letter: Message) -> tuple[str, int, int]:
    """The identity of a dead letter: topic, partition and offset of the message that was refused."""
    found = headers(letter)
    return found["source_topic"], int(found["source_partition"]), int(found["source_offset"])


def key(message: Message) -> str:
    found = message.key()
    return found.decode() if isinstance(found, bytes) else str(found)


@contextmanager
def consumer(bootstrap: str) -> Iterator[Consumer]:
    """A reader outside any group."""
    reader = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "fault-matrix",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        yield reader
    finally:
        reader.close()


def _ends(reader: Consumer, topic: str) -> dict[int, int]:
    partitions = reader.list_topics(topic, timeout=10).topics[topic].partitions
    return {p: reader.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in partitions}
