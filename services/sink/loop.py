"""The sink's loop. The order is the guarantee:

1. poll      messages from Kafka, from the offsets in the table `kafka_offsets`; Kafka's own committed offsets are
             never read.
2. decode    and validate; what cannot be an event becomes a dead letter.
3. map       to rows; a GPU not met before is registered first.
4. write     rows, dead letters' acknowledgement and offsets: the letters are with Kafka before the transaction that
             holds rows and offsets is committed. Wherever the process dies, either all of a batch is there or none.
5. commit    the offsets to Kafka as well: for lag tools, nothing depends on it.

Steps 1 to 3 of the next batch run while the writer's thread does step 4 of the last. A failure has one of three names:
retry (the writer repeats, and this loop pauses reading but keeps polling), dead letter (an event is refused, the others
go on), fenced (another sink has the partition: drop and begin again where the table says). Anything else ends the
process with its message; the offsets stay, so nothing is lost.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Final, TypeVar

from confluent_kafka import Consumer, KafkaException

from services.bus.message import Message, consume
from services.ops.clock import Clock
from services.ops.health import Heartbeat
from services.sink import latest
from services.sink.batch import Batch, Sealed, seal
from services.sink.intake import Intake
from services.sink.inventory import Inventory
from services.sink.ladder import Observe, Outcome
from services.sink.membership import Membership
from services.sink.metrics import SinkMetrics
from services.sink.offsets import Fenced
from services.sink.writer import GivenUpError, Writer

log = logging.getLogger("sink")

IDLE_POLL: Final = 0.5
"""Seconds to wait for a first message: how soon a stop or a new partition is seen on an idle topic."""
STARTING_POLL: Final = 0.05
"""Seconds, the same, until there are partitions: a poll in which they are assigned ends only when its time is up."""
CHUNK: Final = 500
"""Messages per poll. They are decoded while they are still in the processor's cache: at 5,000, fetching and decoding
took a microsecond per message more."""
PATIENCE: Final = 1.0
"""Seconds the writer may be behind before reading is paused. Shorter waits are what back-pressure looks like."""
PAUSED_POLL: Final = 0.2
"""Seconds between polls while paused."""
IN_FLIGHT: Final = 2
"""Batches handed over: one being written, one ready so that the server never waits for this loop. A third is filled."""
REPORT_INTERVAL: Final = 1.0
"""Seconds between two rounds of house-keeping: offsets to Kafka, lag; when idle also gpu_latest and the connection."""
COLLECT_INTERVAL: Final = 60.0
"""Seconds between two collections of garbage. Rows are in no cycles and are freed as they go; a collector that looks at
them again and again cost 0.4 us a row. What errors leave behind is little, and is collected here: some 10 ms."""
STOP_PATIENCE: Final = 25.0
"""Seconds for the last batches when stopping or giving partitions away; stop_grace_period must be longer."""

_T = TypeVar("_T")


class Sink:
    """One member of the consumer group."""

    def __init__(
        self,
        *,
        consumer: Consumer,
        membership: Membership,
        writer: Writer,
        inventory: Inventory,
        intake: Intake,
        metrics: SinkMetrics,
        heartbeat: Heartbeat,
        clock: Clock,
        stop: threading.Event,
        batch_size: int,
        batch_timeout: float,
        observe: Observe,
    ) -> None:
        self._consumer = consumer
        self._membership = membership
        self._writer = writer
        self._inventory = inventory
        self._intake = intake
        self._metrics = metrics
        self._heartbeat = heartbeat
        self._clock = clock
        self._stop = stop
        self._batch_size = batch_size
        self._batch_timeout = batch_timeout
        self._observe = observe
        self._batch = Batch()
        self._in_flight: deque[tuple[Future[Outcome], Sealed]] = deque()
        self._reported = self._collected = clock.monotonic()
        self._lives = 0
        """How often everything read was dropped: what was sealed before is not to be written after."""
        self._connections = 0
        """Connections of the writer whose offsets are known to be ours."""
        self._batches_since = 0
        """Batches committed since Kafka was told."""
        self._looking_after: Future[None] | None = None

    def run(self) -> None:
        """Until the stop event. Raises what a person must look at."""
        try:
            self._wait(self._writer.run(latest.refresh))
            self._connections = self._writer.connections
            self._membership.join(finish_in_flight=self._finish_in_flight, drop=self._drop)
            while not self._stop.is_set():
                self._turn()
            self._finish()
        except GivenUpError as reason:
            log.warning("stopped while the database could not; what was not written will be read again: %s", reason)
        finally:
            self._membership.leave()

    def _turn(self) -> None:
        self._heartbeat.beat()
        self._settle_done()
        if self._writer.connections != self._connections:
            self._connections = self._writer.connections
            self._begin_anew("the connection to the database was lost, and with it perhaps commits")
        if self._membership.waiting():
            self._membership.start(self._wait)
        self._take(self._poll())
        if self._batch_is_due():
            self._hand_over()
        if self._clock.monotonic() - self._reported >= REPORT_INTERVAL:
            self._keep_house()

    # 1. poll

    def _poll(self) -> Sequence[Message]:
        """Up to what the batch still takes. An empty batch waits for its first message only: the time
        that the others are given counts from that one."""
        room = min(self._batch_size - len(self._batch), CHUNK)
        self._membership.begin_poll()
        if len(self._batch):
            left = self._deadline - self._clock.monotonic()
            return consume(self._consumer, room, min(max(0.0, left), IDLE_POLL))
        first = consume(self._consumer, 1, IDLE_POLL if self._membership.assignment.started() else STARTING_POLL)
        return first + consume(self._consumer, room - 1, 0) if first and room > 1 else first

    @property
    def _deadline(self) -> float:
        return self._batch.opened + self._batch_timeout

    # 2. decode, 3. map

    def _take(self, messages: Sequence[Message]) -> None:
        if messages:
            if not len(self._batch):
                self._batch.opened = self._clock.monotonic()
            self._intake.take(messages, self._batch)

    def _resolve_identities(self) -> None:
        """Register the GPUs not met before, then map their messages."""
        if self._inventory.waiting:
            self._metrics.identities.inc(self._inventory.waiting)
            self._wait(self._writer.run(self._inventory.register))
            self._intake.take_deferred(self._batch)
            self._inventory.forget_former()

    # 4. write

    def _batch_is_due(self) -> bool:
        held = len(self._batch)
        return held >= self._batch_size or (held > 0 and self._clock.monotonic() >= self._deadline)

    def _hand_over(self) -> None:
        self._resolve_identities()
        started = self._clock.monotonic()
        sealed = seal(self._batch, self._membership.assignment.seal())
        self._metrics.seal_seconds.observe(self._clock.monotonic() - started)
        self._batch = Batch()
        life = self._lives
        while len(self._in_flight) >= IN_FLIGHT:
            self._settle_oldest()
        if sealed.spans and life == self._lives:
            self._in_flight.append((self._writer.write(sealed), sealed))

    def _settle_done(self) -> None:
        while self._in_flight and self._in_flight[0][0].done():
            self._settle_oldest()

    def _settle_oldest(self) -> None:
        future, sealed = self._in_flight.popleft()
        try:
            self._wait(future)
        except Fenced as reason:
            self._metrics.fenced.inc()
            self._begin_anew(str(reason))
        else:
            self._membership.committed(sealed.spans)
            self._batches_since += 1

    def _begin_anew(self, reason: str) -> None:
        """The table may hold other offsets than we think: drop everything, go back to what it holds."""
        log.warning("reading again from the offsets in the database: %s", reason)
        for future, _ in self._in_flight:
            with suppress(Fenced):
                self._wait(future)  # written or not, the table says it when the partitions start again
        self._in_flight.clear()
        self._batch = Batch()
        self._lives += 1
        self._membership.assignment.restart_all()

    def _wait(self, future: Future[_T]) -> _T:
        """The writer's answer. If it takes long, reading is paused, and Kafka polled so that we stay in the group."""
        if not wait([future], PATIENCE).done:
            self._membership.pause()
            try:
                while not wait([future], PAUSED_POLL).done:
                    self._heartbeat.beat()
                    self._membership.poll_paused()
            finally:
                self._membership.resume()
        return future.result()

    # Called by the membership while partitions change hands, inside a poll: no polling here.

    def _finish_in_flight(self) -> None:
        """Let the batches handed over be committed, so that who gets the partitions finds their offsets."""
        wait([future for future, _ in self._in_flight], STOP_PATIENCE)

    def _drop(self, places: frozenset[tuple[str, int]]) -> None:
        """Forget what was read from partitions that are no longer ours."""
        self._batch.drop(lambda message: (message.topic(), message.partition()) in places)

    # 5. commit, and what else is due now and then

    def _keep_house(self) -> None:
        self._reported = self._clock.monotonic()
        self._membership.commit_to_kafka(asynchronous=True)
        if self._batches_since:
            self._batches_since = 0
            self._observe("after_offset_commit")
        self._membership.report_lag()
        if self._reported - self._collected >= COLLECT_INTERVAL:
            self._collected = self._reported
            gc.collect()
        if self._looking_after is not None and self._looking_after.done():
            self._looking_after = self._looking_after.result()
        if self._looking_after is None and not self._in_flight:
            self._looking_after = self._writer.look_after()

    def _finish(self) -> None:
        """Stopping: write what was read. Raises GivenUpError if the database cannot."""
        if len(self._batch):
            self._hand_over()
        while self._in_flight:
            self._settle_oldest()
        self._wait(self._writer.look_after())
        try:
            self._membership.commit_to_kafka(asynchronous=False)
        except KafkaException as error:
            log.warning("offsets are in the database, but not in Kafka: %s", error.args[0].str())
        self._observe("after_offset_commit")
