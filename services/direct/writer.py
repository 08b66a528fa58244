"""Messages into TimescaleDB: the sink's decoding, validation, inventory and ladder, without Kafka around them.

Nothing is repeated here and nothing is waited for: what the database cannot take just now is reported, and the
collector's policy spools it. A message that was written and reported as failed is sent again; the tables' keys remove
the repeat.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import psycopg

from services.bus.message import Header
from services.collector.batch import Message
from services.ops.clock import Clock, SystemClock
from services.sink.batch import Batch, Refused, Sealed, seal
from services.sink.intake import take_event, take_sample
from services.sink.inventory import Inventory
from services.sink.ladder import Rung
from services.sink.rows import RowMapper
from services.sink.sqlstate import Kind, classify
from services.sink.tables import Tables, Written
from services.sink.validate import Invalid, Reason, TimeLimits
from services.sink.writer import DEAD_PEER_MILLISECONDS, climb

APPLICATION: Final = "gpumon-collector"
CONNECT_TIMEOUT: Final = 5
"""Seconds. A reachable server answers within milliseconds."""

Verdict = tuple[int, Invalid]
"""Position of a message, and why the database will never take it."""


class Carried:
    """A message with its position, as the sink's mapping takes it (`services.bus.message.Message`)."""

    __slots__ = ("_message", "position")

    def __init__(self, position: int, message: Message) -> None:
        self.position = position
        self._message = message

    def topic(self) -> str:
        return self._message[0]

    def key(self) -> bytes:
        return self._message[1].encode()

    def value(self) -> bytes:
        return self._message[2]

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.position

    def headers(self) -> Sequence[Header] | None:
        return None

    def error(self) -> None:
        return None


def connect(dsn: str, timeout: float) -> psycopg.Connection:
    """A connection whose statements end within `timeout` seconds, and whose commits are on disk when they return: what
    is acknowledged is forgotten by the collector. Raises psycopg.Error."""
    connection = psycopg.connect(
        dsn,
        autocommit=True,
        connect_timeout=CONNECT_TIMEOUT,
        application_name=APPLICATION,
        keepalives_idle=10,
        tcp_user_timeout=DEAD_PEER_MILLISECONDS,
    )
    try:
        # A server that hangs in a lock would keep the process behind each connection that was given up.
        limit = max(1, round(timeout * 1000))
        for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
            connection.execute("SELECT set_config(%s, %s, false)", [name, str(limit)])
        connection.execute("SET synchronous_commit TO on")
    except BaseException:
        connection.close()
        raise
    return connection


class DirectWriter:
    """One connection, used in one thread; only `interrupt` may be called from another."""

    def __init__(
        self,
        dsn: str,
        *,
        topic: str,
        topic_events: str,
        limits: TimeLimits,
        timeout: float,
        clock: Clock | None = None,
    ) -> None:
        """`topic` and `topic_events` tell samples from GPU events; `timeout` in seconds, of a statement."""
        self._dsn = dsn
        self._topics = topic, topic_events
        self._limits = limits
        self._timeout = timeout
        self._clock = clock or SystemClock()
        self._tables = Tables(lambda _point: None)
        self._connection: psycopg.Connection | None = None
        self._socket: socket.socket | None = None
        self._reading_again = False
        self._forget()

    def write(self, messages: Sequence[Message]) -> list[Verdict]:
        """All of them in one transaction, but for those in the answer: they will never be rows. Raises psycopg.Error:
        whether anything was written is unknown, and writing all again does no harm."""
        try:
            return self._write(self._connected(), messages)
        except psycopg.Error as error:
            self._forget_after(error)
            raise

    def look_after(self) -> None:
        """In idle times: what gpu_latest does not know yet. Raises psycopg.Error."""
        if self._tables.behind:
            self._tables.look_after(self._connected(), self._clock.monotonic())

    def interrupt(self) -> None:
        """From any thread: the statement that hangs ends with an error, now."""
        used = self._socket
        if used is not None:
            with suppress(OSError):
                used.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> psycopg.Connection:
        if self._connection is not None and self._connection.closed:
            self.close()
        if self._connection is None:
            self._connection = connect(self._dsn, self._timeout)
            self._forget()  # it may be to another database: made anew, restored, or the standby of the last
            # A descriptor of our own: libpq closes its one at an error, and the number may be another file's by then.
            self._socket = socket.socket(fileno=os.dup(self._connection.fileno()))
        return self._connection

    def _write(self, connection: psycopg.Connection, messages: Sequence[Message]) -> list[Verdict]:
        batch = self._map(connection, messages)
        sealed = seal(batch, {})
        rung = Rung.STAGED if self._reading_again else Rung.DIRECT
        while True:
            try:
                written = self._transaction(connection, sealed, rung)
            except psycopg.Error as error:
                rung = climb(rung, error)
            else:
                break
        # While rows turn out to be there already, more of them follow: do not copy each batch twice.
        self._reading_again = written.outcome.duplicates > 0
        return [(refused.message.offset(), refused.verdict) for refused in written.refused]

    def _transaction(self, connection: psycopg.Connection, sealed: Sealed, rung: Rung) -> Written:
        with connection.transaction():
            written = self._tables.put(connection, sealed, rung, self._clock.monotonic())
        self._tables.committed(written, self._clock.monotonic())
        return written

    def _map(self, connection: psycopg.Connection, messages: Sequence[Message]) -> Batch:
        """Rows and events; GPUs not met before are registered first."""
        batch = Batch()
        self._mapper.set_now(self._clock.time())
        for position, message in enumerate(messages):
            self._take(Carried(position, message), batch)
        if self._inventory.waiting:
            self._inventory.register(connection)
            deferred, batch.deferred = batch.deferred, []
            for carried in deferred:
                take_sample(self._mapper, carried, batch)
            self._inventory.forget_former()
        return batch

    def _take(self, carried: Carried, batch: Batch) -> None:
        topic, (raw, events) = carried.topic(), self._topics
        if topic == raw:
            take_sample(self._mapper, carried, batch)
        elif topic == events:
            take_event(self._mapper, carried, batch)
        else:
            known = f"KAFKA_TOPIC={raw} nor KAFKA_TOPIC_EVENTS={events}"
            verdict = Invalid(Reason.SCHEMA, f"spooled for topic {topic!r}, which is neither {known}")
            batch.refused.append(Refused(carried, verdict))

    def _forget_after(self, error: psycopg.Error) -> None:
        """After an error that is none of the moment, begin with a connection that knows nothing."""
        self._reading_again = True  # what was tried may be there
        if classify(error) is Kind.FATAL:
            self.close()

    def _forget(self) -> None:
        self._inventory = Inventory()
        self._mapper = RowMapper(self._inventory, self._limits)
