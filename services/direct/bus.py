"""TimescaleDB as the collector's bus: what a broker would carry is written at once.

The delivering thread hands batches over and is told later, as with Kafka's delivery reports; a thread of our own waits
for the database, so one that hangs delays no scrape. While it writes, what comes in is gathered for its next
transaction. What is not written in time counts as failed and goes to the spool, though it may still be written: the
primary keys of the tables remove the repeat.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import psycopg

from services.collector.batch import Batch, Message
from services.collector.publish import MAX_OUTSTANDING, QUEUE_FULL, Flight
from services.collector.segment import Record
from services.direct import trouble
from services.direct.writer import Verdict
from services.ops.clock import Clock, SystemClock
from services.sink.latest import WRITE_INTERVAL
from services.sink.validate import Invalid

log = logging.getLogger("collector.timescaledb")

CLOSE_PATIENCE: Final = 2.0
"""Seconds for the thread to end once its connection was taken from it."""


class Writer(Protocol):
    """`services.direct.writer.DirectWriter`."""

    def write(self, messages: Sequence[Message]) -> list[Verdict]: ...
    def look_after(self) -> None: ...
    def interrupt(self) -> None: ...
    def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Job:
    """What was handed over in one call: its flight is told of all of it at once."""

    flight: Flight
    messages: list[Message]
    given_up: bool = False
    """Reported as failed: whatever becomes of it, nobody asks."""


@dataclass(slots=True)
class _Result:
    """What became of a transaction."""

    jobs: list[_Job]
    verdicts: list[Verdict] = field(default_factory=list)
    error: psycopg.Error | None = None


class DirectBus:
    """`services.collector.deliver.Bus`. All calls come from one thread."""

    name: Final = "TimescaleDB"

    def __init__(self, writer: Writer, *, timeout: float, batch_size: int, clock: Clock | None = None) -> None:
        """`timeout`: seconds a transaction may take before it counts as failed; `batch_size`: messages that make a
        transaction full (one scrape is never divided)."""
        self.errors: Counter[str] = Counter()
        self.problem: str | None = None
        """What the database said last, for people; None after a success."""
        self._writer = writer
        self._timeout = timeout
        self._batch_size = batch_size
        self._clock = clock or SystemClock()
        self._outstanding = 0
        self._changed = threading.Condition()
        # Shared with the writing thread, under the condition:
        self._queue: deque[_Job] = deque()
        self._working: list[_Job] = []
        self._since = 0.0
        self._results: deque[_Result] = deque()
        self._broken: Exception | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="timescaledb", daemon=True)
        self._thread.start()

    @property
    def outstanding(self) -> int:
        """Messages taken and not yet reported."""
        return self._outstanding

    def send(self, batch: Batch) -> Flight:
        """Too much waiting is not waited for: the batch is `failed` at once."""
        return self._hand_over(Flight(batch, self.errors), batch.messages)

    def send_records(self, records: Iterable[Record]) -> Flight:
        messages: list[Message] = [(record.topic, record.key, record.value) for record in records]
        return self._hand_over(Flight(Batch("spool", [], []), self.errors), messages)

    def _hand_over(self, flight: Flight, messages: list[Message]) -> Flight:
        if not messages:
            return flight
        if self._outstanding and self._outstanding + len(messages) > MAX_OUTSTANDING:
            flight.refuse(messages, QUEUE_FULL)
            return flight
        flight.pending = len(messages)
        self._outstanding += len(messages)
        with self._changed:
            self._queue.append(_Job(flight, messages))
            self._changed.notify_all()
        return flight

    def poll(self, timeout: float = 0.0) -> None:
        """Tell the flights what became of them, waiting up to `timeout` seconds for the first result."""
        with self._changed:
            if timeout > 0 and self._outstanding and not self._results and not self._broken:
                self._changed.wait(timeout)
            results = list(self._results)
            self._results.clear()
        for result in results:
            self._report(result)
        if self._broken is not None:
            raise self._broken
        self._look_at_the_time()

    def flush(self, timeout: float) -> None:
        """Wait up to `timeout` seconds until all is reported."""
        deadline = self._clock.monotonic() + timeout
        while self._outstanding and (left := deadline - self._clock.monotonic()) > 0:
            self.poll(left)

    def abandon(self, *, in_flight: bool) -> None:
        """What waits (and, with `in_flight`, what is being written) is reported as failed. The latter may be written
        all the same, which makes repeats."""
        with self._changed:
            jobs = list(self._queue)
            self._queue.clear()
            if in_flight:
                jobs = [job for job in self._working if not job.given_up] + jobs
        for job in jobs:
            self._give_up(job)
        self.poll()

    def close(self) -> None:
        """End the thread, if need be by taking its connection away. What is outstanding is not waited for."""
        with self._changed:
            self._closing = True
            self._queue.clear()
            hanging = bool(self._working)
            self._changed.notify_all()
        if hanging:
            self._writer.interrupt()
        self._thread.join(CLOSE_PATIENCE)

    # Reports, in the delivering thread ------------------------------------------------------------------------------

    def _report(self, result: _Result) -> None:
        if result.error is not None:
            self._note(result.error)
        else:
            self.problem = None
        verdicts = dict(result.verdicts)
        first = 0
        for job in result.jobs:
            if not job.given_up:
                if result.error is not None:
                    self._fail(job, trouble.reason(result.error))
                else:
                    self._settle(job, first, verdicts)
            first += len(job.messages)

    def _settle(self, job: _Job, first: int, verdicts: dict[int, Invalid]) -> None:
        """`first`: position of the job's first message in its transaction."""
        self._finish(job)
        job.flight.acked += len(job.messages)
        for position, message in enumerate(job.messages, first):
            verdict = verdicts.get(position)
            if verdict is not None:
                job.flight.acked -= 1
                job.flight.reject(message, str(verdict.reason), verdict.message)

    def _fail(self, job: _Job, reason: str) -> None:
        self._finish(job)
        job.flight.refuse(job.messages, reason)
        self.errors[reason] += len(job.messages) - 1

    def _give_up(self, job: _Job) -> None:
        """A consequence of a failure that is counted, or of a stop."""
        job.given_up = True
        self._finish(job)
        job.flight.failed.extend(job.messages)

    def _finish(self, job: _Job) -> None:
        job.flight.pending -= len(job.messages)
        self._outstanding -= len(job.messages)

    def _note(self, error: psycopg.Error) -> None:
        text = trouble.explain(error)
        if self.problem is None:
            log.warning("TimescaleDB: %s", text, extra={"reason": trouble.reason(error)})
        self.problem = text

    def _look_at_the_time(self) -> None:
        """A transaction that takes too long: its connection is taken away, so that the thread comes back."""
        now = self._clock.monotonic()
        with self._changed:
            if not self._working or now - self._since <= self._timeout:
                return
            self._since = now  # the next connection may hang as well
            hanging = [job for job in self._working if not job.given_up]
        self.problem = f"no answer within {self._timeout:g} s"
        for job in hanging:
            job.given_up = True
            self._fail(job, trouble.HANGS)
        self._writer.interrupt()

    # The writing thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._turn():
                pass
            self._writer.close()
        except Exception as error:  # noqa: BLE001 - a bug: the delivering thread raises it
            with self._changed:
                self._broken = error
                self._changed.notify_all()

    def _turn(self) -> bool:
        """One transaction, or a second of nothing to do; False at the end."""
        jobs = self._take()
        if jobs:
            result = self._write(jobs)
            with self._changed:
                self._working = []
                self._results.append(result)
                self._changed.notify_all()
            return True
        try:
            self._writer.look_after()
        except psycopg.Error as error:
            log.debug("gpu_latest waits: %s", error)  # the next write meets the same, and says so
        return not self._closing

    def _take(self) -> list[_Job]:
        with self._changed:
            if not self._queue and not self._closing:
                self._changed.wait(WRITE_INTERVAL)
            jobs: list[_Job] = []
            held = 0
            while self._queue and (not jobs or held + len(self._queue[0].messages) <= self._batch_size):
                jobs.append(self._queue.popleft())
                held += len(jobs[-1].messages)
            self._working, self._since = jobs, self._clock.monotonic()
            return jobs

    def _write(self, jobs: list[_Job]) -> _Result:
        try:
            return _Result(jobs, self._writer.write([message for job in jobs for message in job.messages]))
        except psycopg.Error as error:
            return _Result(jobs, error=error)
