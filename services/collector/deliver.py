"""The policy between collector and bus: publish, or spool and flush later; never forget, never overtake.

The bus is Kafka, or TimescaleDB where there is no broker. One thread owns bus and spool. Per turn: take what was
scraped, publish it or put it behind what is already in the spool, look at delivery reports, send the next piece of the
spool. A scrape is accepted once each of its messages is acknowledged by the bus or synced to disk; what neither takes
is refused and counted.

There is no separate probe for recovery: the oldest spooled records are always on their way to the bus, a small piece
after a failure (librdkafka sends them the moment a broker answers again).
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from services.collector.batch import Arrived, Batch, Message
from services.collector.publish import MAX_VALUE_BYTES, QUEUE_FULL, TOO_LARGE, Flight
from services.collector.segment import Record
from services.collector.spool import Chunk, Spool
from services.collector.spool_files import SpoolError
from services.ops.clock import Clock, SystemClock

log = logging.getLogger("collector.deliver")

MAX_WAITING: Final = 200_000
"""Messages scraped and not yet taken by this thread (about 200 MB): only a disk that hangs gets there."""
FLUSH_RECORDS: Final = 5_000
PROBE_RECORDS: Final = 100
"""Size of a piece of the spool in good times, and after a failure."""
RETRY_PAUSE: Final = 1.0
"""Seconds after a failed piece; a broker that is away takes the delivery timeout in any case."""
PACE: Final = 0.02
"""Seconds between two turns: as long as the producer's linger. Waking this thread for each scrape would cost the event
loop a hand-over of the interpreter lock a hundred times a second."""


@dataclass(slots=True)
class Counts:
    """Messages since the start."""

    accepted: int = 0
    """Acknowledged by the bus, or synced to the spool."""
    published: int = 0
    """Acknowledged by the bus, straight or from the spool."""
    spooled: int = 0
    flushed: int = 0
    """Acknowledged by the bus from the spool."""
    refused: Counter[str] = field(default_factory=Counter)
    """Neither the bus nor the spool took them; by reason."""
    scrapes_refused: Counter[str] = field(default_factory=Counter)


class Bus(Protocol):
    """What the policy needs: `Publisher`, or `services.direct.bus.DirectBus`."""

    @property
    def name(self) -> str:
        """For logs: `Kafka`, `TimescaleDB`."""
        ...

    @property
    def errors(self) -> Counter[str]:
        """Failures since the start, by reason."""
        ...

    @property
    def outstanding(self) -> int:
        """Messages given to the bus and not yet reported."""
        ...

    def send(self, batch: Batch) -> Flight: ...
    def send_records(self, records: Iterable[Record]) -> Flight: ...
    def poll(self, timeout: float = 0.0) -> None: ...
    def flush(self, timeout: float) -> None: ...
    def abandon(self, *, in_flight: bool) -> None: ...


class Deliverer:
    """`offer` from any thread; everything else from the one thread that delivers."""

    def __init__(self, bus: Bus, spool: Spool, clock: Clock | None = None, arrived: Arrived | None = None) -> None:
        self.counts = Counts()
        self._arrived = arrived
        self._bus = bus
        self._spool = spool
        self._clock = clock or SystemClock()
        self._inbox: deque[Batch] = deque()
        self._offered = 0
        self._taken = 0
        self._flights: deque[Flight] = deque()
        self._piece: tuple[Chunk, Flight] | None = None
        self._piece_size = FLUSH_RECORDS
        self._retry_at = 0.0
        self._reason = "left over from before the start"
        self._refusing: str | None = None
        self._failing: str | None = None

    def offer(self, batch: Batch) -> bool:
        """Hand a scrape over; False when too much is waiting already: the scrape is refused."""
        if self._offered - self._taken > MAX_WAITING:
            return False
        self._offered += len(batch)
        self._inbox.append(batch)
        return True

    @property
    def waiting(self) -> int:
        """Messages offered and not yet taken."""
        return self._offered - self._taken

    def problem(self) -> str | None:
        """None while the bus or the spool accepts, else why neither does."""
        return self._refusing

    @property
    def failing(self) -> str | None:
        """Why the bus did not take what it was given last; None: it did, or was given nothing."""
        return self._failing

    @property
    def flushing(self) -> bool:
        """A piece of the spool is on its way: the next turn waits for it by itself."""
        return self._piece is not None

    def step(self) -> None:
        """One turn. Waits only for a piece of the spool, and for `PACE` seconds at most."""
        behind: list[Batch] = []
        for batch in self._take():
            if self._spool.empty:
                self._publish(batch)
            else:
                behind.append(batch)
        self._put_in_spool(behind)
        self._bus.poll(PACE if self.flushing else 0)
        self._settle()
        self._flush_spool()

    def finish(self, timeout: float, reason: str = "stopped") -> None:
        """Stop: the bus has `timeout` seconds for what is on its way; the rest is spooled, for `reason`."""
        self.step()
        deadline = self._clock.monotonic() + timeout
        while (self._flights or self._piece) and (left := deadline - self._clock.monotonic()) > 0:
            self._bus.flush(min(left, 0.5))
            self._settle()
            self._land_if_complete()
        self._reason = reason
        self._abandon(in_flight=True)
        self._land_if_complete()
        self._spool.close()

    # Taking and publishing -----------------------------------------------------------------------------------------

    def _take(self) -> list[Batch]:
        """All batches that are waiting."""
        batches = [self._inbox.popleft() for _ in range(len(self._inbox))]
        self._taken += sum(map(len, batches))
        return [self._without_giants(batch) for batch in batches]

    def _without_giants(self, batch: Batch) -> Batch:
        """Kafka would refuse the whole batch for one message over its bound."""
        fitting = [message for message in batch.messages if len(message[2]) <= MAX_VALUE_BYTES]
        if len(fitting) == len(batch):
            return batch
        self._refuse_messages(len(batch) - len(fitting), TOO_LARGE, batch.source)
        return Batch(batch.source, fitting, batch.headers)

    def _publish(self, batch: Batch) -> None:
        flight = self._bus.send(batch)
        self._flights.append(flight)
        if flight.failed:
            self._fall_back()

    def _settle(self) -> None:
        """Look at the reports: any failure sends the rest to the spool; what is complete is accepted."""
        if any(flight.failed for flight in self._flights):
            self._fall_back()
        while self._flights and not self._flights[0].pending:
            flight = self._flights.popleft()
            self.counts.published += flight.acked
            self._accept(flight.acked)
            self._failing = None if flight.acked else self._failing
            if flight.acked and self._arrived is not None:
                self._arrived(flight.batch)
            self._set_aside(flight)

    def _fall_back(self) -> None:
        """Order is kept by giving up everything behind the first failure, and spooling it all in order of scrape.

        A full queue means a slow bus: what it has already been sent is left to arrive.
        """
        reason = next((flight.reason for flight in self._flights if flight.failed and flight.reason), self._reason)
        extra = {"reason": reason, "outstanding": self._bus.outstanding}
        log.warning("%s does not take events: spooling", self._bus.name, extra=extra)
        self._reason = self._failing = reason
        self._piece_size = PROBE_RECORDS
        self._abandon(in_flight=reason != QUEUE_FULL)

    def _abandon(self, *, in_flight: bool) -> None:
        self._bus.abandon(in_flight=in_flight)
        failed = [Batch(f.batch.source, f.failed, f.batch.headers) for f in self._flights if f.failed]
        for flight in self._flights:
            flight.failed = []
        self._put_in_spool(failed)
        self._settle()

    def _set_aside(self, flight: Flight) -> None:
        """Messages that the bus will never take must not stop those behind them."""
        verdicts: dict[tuple[str, str], list[Message]] = {}
        for message, verdict in zip(flight.rejected, flight.verdicts, strict=True):
            verdicts.setdefault(verdict, []).append(message)
        for (reason, detail), messages in verdicts.items():
            self._spool.set_aside(messages, f"{reason}: {detail}" if detail else reason)
            self._refuse_messages(len(messages), reason, flight.batch.source, detail)

    # Spooling ------------------------------------------------------------------------------------------------------

    def _put_in_spool(self, batches: list[Batch]) -> None:
        """Write all, sync once; only then they count."""
        if not batches:
            return
        written: list[Batch] = []
        for batch in batches:
            try:
                self._spool.write(batch, self._reason)
            except SpoolError as error:
                self._refuse(batch, error)
            else:
                written.append(batch)
        try:
            self._spool.sync()
        except SpoolError as error:
            for batch in written:
                self._refuse(batch, error)
            return
        count = sum(map(len, written))
        self.counts.spooled += count
        self._accept(count)

    def _accept(self, count: int) -> None:
        if count:
            self.counts.accepted += count
            self._refusing = None

    def _refuse(self, batch: Batch, error: SpoolError) -> None:
        self.counts.scrapes_refused[error.reason] += 1
        self.counts.refused[error.reason] += len(batch)
        if self._refusing is None:
            log.error(
                "neither %s nor the spool takes events: scrapes are refused",
                self._bus.name,
                extra={"reason": str(error)},
            )
        self._refusing = f"{self._bus.name} does not take events ({self._reason}), nor does the spool: {error}"

    def _refuse_messages(self, count: int, reason: str, source: str, detail: str = "") -> None:
        self.counts.refused[reason] += count
        extra = {"count": count, "reason": reason, "source": source} | ({"detail": detail} if detail else {})
        log.error("%s will never take these events", self._bus.name, extra=extra)

    # Flushing ------------------------------------------------------------------------------------------------------

    def _flush_spool(self) -> None:
        """Keep one piece of the spool on its way, once everything before it has been settled."""
        if self._piece is not None:
            flight = self._piece[1]
            if flight.failed:
                self._bus.abandon(in_flight=True)
            self._land_if_complete()
        if (
            self._piece is None
            and not (self._spool.empty or self._flights)
            and self._clock.monotonic() >= self._retry_at
        ):
            chunk = self._spool.read(self._piece_size)
            self._piece = (chunk, self._bus.send_records(chunk.records))

    def _land_if_complete(self) -> None:
        if self._piece is not None and not self._piece[1].pending:
            chunk, flight = self._piece
            self._piece = None
            self._land(chunk, flight)

    def _land(self, chunk: Chunk, flight: Flight) -> None:
        """A piece is complete: move on, or try it again after a pause. Part of it may have arrived: a repeat."""
        if flight.failed:
            self._piece_size = PROBE_RECORDS
            self._retry_at = self._clock.monotonic() + RETRY_PAUSE
            self._reason = flight.reason or self._reason
            self._failing = flight.reason or self._failing or self._reason
            return
        self._failing = None
        self._set_aside(flight)
        self._spool.advance(chunk)
        self.counts.flushed += flight.acked
        self.counts.published += flight.acked
        self._piece_size = FLUSH_RECORDS
        if self._spool.empty:
            log.info(
                "the spool is flushed: %s takes events again", self._bus.name, extra={"flushed": self.counts.flushed}
            )
