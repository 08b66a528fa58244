"""The writer: one thread, one connection, one batch after the other.

The main loop hands batches over and decodes the next while this thread waits for the server. All access to the database
goes through it, and all of it is repeated without end while the database cannot (services.sink.sqlstate); only a stop
ends the repeating, and then the batch stays in Kafka.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

import psycopg

from services.ops.clock import Clock
from services.sink import offsets
from services.sink.backoff import Backoff
from services.sink.batch import Sealed
from services.sink.dead_letters import DeadLetters, LettersNotAcknowledgedError, letter
from services.sink.ladder import Observe, Outcome, Rung
from services.sink.metrics import SinkMetrics
from services.sink.sqlstate import Kind, classify, label
from services.sink.tables import Tables

log = logging.getLogger("sink")

CONNECT_TIMEOUT: Final = 5
"""Seconds."""
DEAD_PEER_MILLISECONDS: Final = 15_000
"""A server that vanished without a word (power, network) is noticed after this long, not after 15 minutes."""
LETTERS: Final = "kafka"
"""Label of retries whose cause is not the database but dead letters that Kafka did not take."""

_T = TypeVar("_T")


class GivenUpError(Exception):
    """The sink is stopping and the database cannot: what was not written stays in Kafka and is read again."""


def connect(dsn: str) -> psycopg.Connection:
    """A connection that notices a dead peer, and commits asynchronously. Raises psycopg.Error.

    A commit that does not wait for the disk may be lost when the server crashes. Here that loses nothing: rows and
    offsets are in one transaction, so they go together, and the compare-and-swap of the next batch sends the sink back
    to what is left (docs/adr/0005-asynchronous-commit.md). GPUs are registered synchronously.
    """
    connection = psycopg.connect(
        dsn,
        autocommit=True,
        connect_timeout=CONNECT_TIMEOUT,
        application_name="gpumon-sink",
        keepalives_idle=10,
        tcp_user_timeout=DEAD_PEER_MILLISECONDS,
    )
    connection.execute("SET synchronous_commit TO off")
    return connection


class Writer:
    """`write` and `run` return at once; jobs are done in the order given."""

    def __init__(
        self,
        *,
        connect: Callable[[], psycopg.Connection],
        group: str,
        letters: DeadLetters,
        metrics: SinkMetrics,
        clock: Clock,
        stop: threading.Event,
        observe: Observe,
    ) -> None:
        self._connect = connect
        self._connection: psycopg.Connection | None = None
        self._group = group
        self._letters = letters
        self._metrics = metrics
        self._clock = clock
        self._stop = stop
        self._observe = observe
        self._tables = Tables(observe)
        self._reading_again = False
        self._executor = ThreadPoolExecutor(1, "writer")
        self.connections = 0
        """How often one was made. A new one may be to a server that has forgotten what the last one was told."""
        self.problem: str | None = "the database was not asked yet"
        """None while the last access succeeded, else what is wrong."""

    def write(self, sealed: Sealed) -> Future[Outcome]:
        """The future raises Fenced, GivenUpError, or what a person must look at."""
        return self._executor.submit(self._write, sealed)

    def run(self, job: Callable[[psycopg.Connection], _T]) -> Future[_T]:
        """Any other access to the database: repeated on transient errors, so it must be repeatable."""
        return self._executor.submit(self._until_done, job)

    def look_after(self) -> Future[None]:
        """Write what gpu_latest does not know yet; else only ask whether the server is there."""
        return self.run(self._look_after)

    def close(self) -> None:
        """After all futures are done."""
        self._executor.shutdown()
        if self._connection is not None:
            self._connection.close()

    # In the writer's thread from here on.

    def _until_done(self, attempt: Callable[[psycopg.Connection], _T]) -> _T:
        backoff = Backoff()
        while True:
            try:
                result = attempt(self._connected())
            except psycopg.Error as error:
                if classify(error) is not Kind.TRANSIENT:
                    raise
                self._failed(label(error), error)
            except LettersNotAcknowledgedError as error:
                self._failed(LETTERS, error)
            else:
                self._succeeded()
                return result
            if self._stop.wait(backoff.next()):
                raise GivenUpError(self.problem)

    def _connected(self) -> psycopg.Connection:
        if self._connection is not None and self._connection.closed:
            self._connection = None
        if self._connection is None:
            self._connection = self._connect()
            self.connections += 1
        return self._connection

    def _failed(self, state: str, error: Exception) -> None:
        text = str(error).strip().partition("\n")[0]
        if self.problem is None:
            log.warning("writing is interrupted, will be repeated: %s", text, extra={"sqlstate": state})
        self.problem = text
        self._metrics.retries.labels(state).inc()
        self._metrics.database_up.set(0)

    def _succeeded(self) -> None:
        if self.problem is not None:
            log.info("the database takes writes")
        self.problem = None
        self._metrics.database_up.set(1)

    def _write(self, sealed: Sealed) -> Outcome:
        rung = Rung.STAGED if self._reading_again else Rung.DIRECT

        def attempt(connection: psycopg.Connection) -> Outcome:
            nonlocal rung
            while True:
                try:
                    return self._transaction(connection, sealed, rung)
                except psycopg.Error as error:
                    rung = climb(rung, error)

        outcome = self._until_done(attempt)
        self._observe("after_db_commit")
        # While rows turn out to be there already, more of them follow: do not copy each batch twice.
        self._reading_again = outcome.duplicates > 0
        self._report(sealed, outcome)
        return outcome

    def _transaction(self, connection: psycopg.Connection, sealed: Sealed, rung: Rung) -> Outcome:
        started = self._clock.monotonic()
        with connection.transaction():
            offsets.advance(connection, self._group, sealed.spans)
            written = self._tables.put(connection, sealed, rung, started)
            if written.refused:
                now = self._clock.time()
                self._letters.publish([letter(item, now) for item in written.refused], sealed.letters_acknowledged)
            copied = self._clock.monotonic()
            self._observe("before_commit")
        committed = self._clock.monotonic()
        self._tables.committed(written, committed)
        self._metrics.copy_seconds.observe(copied - started)
        self._metrics.commit_seconds.observe(committed - copied)
        self._metrics.gpu_events.inc(written.gpu_events)
        for item in written.refused:
            self._metrics.dead_letters.labels(item.verdict.reason).inc()
        return written.outcome

    def _look_after(self, connection: psycopg.Connection) -> None:
        self._tables.look_after(connection, self._clock.monotonic())

    def _report(self, sealed: Sealed, outcome: Outcome) -> None:
        metrics = self._metrics
        now = self._clock.time()
        metrics.committed(now, sealed.times)
        metrics.batches.labels(outcome.rung).inc()
        metrics.rows_inserted.inc(outcome.inserted)
        metrics.rows_duplicate.inc(outcome.duplicates)
        metrics.batch_rows.observe(len(sealed.rows))
        metrics.batch_bytes.observe(len(sealed.copy))
        metrics.batch_age.observe(self._clock.monotonic() - sealed.batch.opened)


def climb(rung: Rung, error: psycopg.Error) -> Rung:
    """The rung to try after `error` on `rung`. Raises the error where no rung deals with it."""
    kind = classify(error)
    if kind is Kind.DUPLICATE and rung is Rung.DIRECT:
        return Rung.STAGED
    if kind is Kind.DATA and rung is not Rung.BISECTED:
        return Rung.BISECTED
    raise error
