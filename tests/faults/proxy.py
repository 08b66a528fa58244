"""A TCP proxy that breaks connections on purpose: refuse, stall, reset, lose an answer, answer in the server's place.

It stands between a service and its database, so that an outage begins and ends at an instant the test chooses.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.support.processes import free_port, wait_until

CHUNK = 65536
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, zero seconds: close() sends RST


@dataclass
class Rule:
    """What happens to the next `times` requests that hold `pattern`."""

    pattern: bytes
    act: Callable[[_Pair, bytes], None]
    times: int = 1
    met: int = field(default=0, init=False)
    """Requests it was met with."""
    done: int = field(default=0, init=False)

    @property
    def hit(self) -> bool:
        """It was done, as often as it should."""
        return self.done >= self.times


class TcpProxy:
    """Listens on a port of its own that stays the same while it refuses."""

    def __init__(self, host: str, port: int) -> None:
        """`host`, `port`: where the connections go on to."""
        self._to = (host, port)
        self.port = free_port()
        self._listener: socket.socket | None = None
        self._pairs: set[_Pair] = set()
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        self._rules: list[Rule] = []
        self.accepted = 0
        """Connections so far."""

    # What the test does ------------------------------------------------------------------------------------------

    def accept(self) -> None:
        """Listen (again)."""
        listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self._listener = listener
        threading.Thread(target=self._serve, args=(listener,), daemon=True, name="proxy").start()

    def refuse(self) -> None:
        """An outage: connections are reset, new ones refused."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            self._listener.close()
            self._listener = None
        self.cut()

    def cut(self) -> int:
        """Reset every connection; returns how many there were. New ones are accepted."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            pair.reset()
        return len(pairs)

    def stall(self) -> None:
        """Connections stay open and are accepted, and nothing passes: a server that hangs."""
        self._flowing.clear()

    def flow(self) -> None:
        """End of `stall`."""
        self._flowing.set()

    def on(self, pattern: bytes, act: Callable[[_Pair, bytes], None], times: int = 1) -> Rule:
        """Do `act` for the next requests that hold `pattern`."""
        rule = Rule(pattern, act, times)
        self._rules.append(rule)
        return rule

    @property
    def connections(self) -> int:
        with self._lock:
            return len(self._pairs)

    def __enter__(self) -> Self:
        self.accept()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flow()
        self.refuse()
        wait_until(lambda: self.connections == 0, within=10, what="the end of the proxy's connections")

    # What its threads do -----------------------------------------------------------------------------------------

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._connect, args=(client,), daemon=True, name="proxy-connect").start()

    def _connect(self, client: socket.socket) -> None:
        self._flowing.wait()
        try:
            server = socket.create_connection(self._to, timeout=10)
        except OSError:
            _reset(client)
            return
        server.settimeout(None)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = _Pair(client, server)
        with self._lock:
            self._pairs.add(pair)
        threads = [
            threading.Thread(target=pump, args=(pair,), daemon=True, name="proxy-pump")
            for pump in (self._requests, self._answers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pair.reset()
        with self._lock:
            self._pairs.discard(pair)

    def _requests(self, pair: _Pair) -> None:
        with contextlib.suppress(OSError):
            while data := pair.client.recv(CHUNK):
                self._flowing.wait()
                rule = next((r for r in self._rules if r.met < r.times and r.pattern in data), None)
                if rule is None:
                    pair.server.sendall(data)
                else:
                    rule.met += 1
                    rule.act(pair, data)
                    rule.done += 1
        pair.finish(pair.server)

    def _answers(self, pair: _Pair) -> None:
        with contextlib.suppress(OSError):
            while data := pair.server.recv(CHUNK):
                self._flowing.wait()
                if pair.deaf.is_set():
                    pair.answered.set()
                else:
                    pair.client.sendall(data)
        pair.finish(pair.client)


class _Pair:
    """A client and the connection to the server made for it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.deaf = threading.Event()
        """The server's answers are read and thrown away."""
        self.answered = threading.Event()
        """The server answered something that was thrown away."""

    def reset(self) -> None:
        for end in (self.client, self.server):
            _reset(end)

    def finish(self, end: socket.socket) -> None:
        """The other side has closed: so do we, politely."""
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_WR)


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        end.shutdown(socket.SHUT_RD)  # wakes a thread that reads
    end.close()


# What a rule may do ------------------------------------------------------------------------------------------------


def lose_the_request(pair: _Pair, _data: bytes) -> None:
    """The connection breaks before the server hears of it."""
    pair.reset()


def lose_the_answer(pair: _Pair, data: bytes) -> None:
    """The server does it, and the connection breaks before the client hears of it."""
    pair.deaf.set()
    pair.server.sendall(data)
    if not pair.answered.wait(20):
        raise AssertionError("the server did not answer what was passed on to it")
    pair.reset()


def lose_half_of_it(pair: _Pair, data: bytes) -> None:
    """The connection breaks in the middle of a request."""
    pair.server.sendall(data[: len(data) // 2])
    pair.reset()


def hold_until(released: threading.Event) -> Callable[[_Pair, bytes], None]:
    """The request stays on its way until the event is set; then it arrives."""

    def act(pair: _Pair, data: bytes) -> None:
        released.wait()
        pair.server.sendall(data)

    return act


def answer_with(sqlstate: str, message: str, severity: str = "FATAL") -> Callable[[_Pair, bytes], None]:
    """PostgreSQL's ErrorResponse in the server's place, then the end of the connection: what an administrator's
    pg_terminate_backend (57P01), a shutdown (57P03) or a crash of another backend (57P02) look like."""
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": message}
    body = b"".join(name.encode() + value.encode() + b"\0" for name, value in fields.items()) + b"\0"
    error = b"E" + struct.pack("!i", len(body) + 4) + body

    def act(pair: _Pair, _data: bytes) -> None:
        pair.deaf.set()
        pair.client.sendall(error)
        pair.client.shutdown(socket.SHUT_WR)
        _reset(pair.server)

    return act
