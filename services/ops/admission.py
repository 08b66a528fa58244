"""Who may hold a connection to an HTTP server of ours, and for how long.

A client that sends half a request, or reads no answer, costs a descriptor for as long as it likes; some hundred of them
would leave none for the next scrape, nor for the pipes of a program we start. So connections are counted where they are
accepted, before TLS and HTTP, closed when nothing comes of them, and beyond the most that may be, the one that has
waited longest without asking for anything makes room for the next.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

log = logging.getLogger("ops")

MOST: Final = 100
"""Connections. A scraper holds one; a site has a few scrapers, and people look with a browser, which takes six."""
HEAD: Final = 10.0
"""Seconds from the connection to a whole first request: TLS and the head are a few packets."""
ANSWER: Final = 60.0
"""Seconds from a whole request to the end of its answer; no scraper waits as long."""
IDLE: Final = 75.0
"""Seconds without a request after an answer: longer than the usual interval of scrapes of 60."""
_LOOK: Final = 1.0
"""Seconds between two looks at what has expired."""
_TOLD: Final = 60.0
"""Seconds between two log lines about connections that were refused."""
_DESCRIPTORS: Final = 1024
"""Wanted where the limit is lower: connections, pipes, files and libraries need a part of it. More would be too many
for `select`, which takes numbers below 1024 only (FD_SETSIZE)."""
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_BACKLOG: Final = 128


class _Connection(socket.socket):
    """An accepted connection that tells its end."""

    on_close: Callable[[int], None] | None = None
    number = -1
    """Its descriptor, also after its end."""

    def close(self) -> None:
        super().close()
        tell, self.on_close = self.on_close, None
        if tell is not None:
            tell(self.number)


class _Listener(socket.socket):
    """As asyncio accepts from it, but what is beyond the limits is refused here."""

    admission: Admission | None = None

    def accept(self) -> tuple[socket.socket, Any]:
        return super().accept() if self.admission is None else self.admission.accept(super().accept)


@dataclass(slots=True)
class _Guest:
    connection: _Connection
    deadline: float
    """Of the loop's clock."""
    asked: bool = False
    """A whole request has come at least once."""
    busy: bool = False
    """A request is being answered."""


class Admission:
    """Of one application: `attach` it before the runner is set up, then `listen`. Used in the loop's thread."""

    def __init__(self, most: int = MOST, head: float = HEAD, answer: float = ANSWER, idle: float = IDLE) -> None:
        """`most` connections, fewer where the process may open fewer files; the others are seconds."""
        self._most, self._head, self._answer, self._idle = most, head, answer, idle
        self._guests: dict[int, _Guest] = {}  # by descriptor, in the order of acceptance
        self._spare: int | None = None
        self._refused = 0
        self._told = -_TOLD

    @property
    def held(self) -> int:
        """Connections now."""
        return len(self._guests)

    def attach(self, application: web.Application) -> None:
        application.middlewares.insert(0, self._middleware())
        application.cleanup_ctx.append(self._watching)

    async def listen(
        self, runner: web.BaseRunner, host: str | None, port: int, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        """On each address of `host` (None: all); they share a port where `port` is 0. Raises OSError."""
        self._most = min(self._most, _descriptors() // 4)
        for address in await _addresses(host, port):
            listener = _bound(address, runner.addresses[0][1] if runner.addresses else port)
            if listener is not None:
                listener.admission = self
                await web.SockSite(runner, listener, ssl_context=ssl_context, backlog=_BACKLOG).start()
        if not runner.addresses:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))

    def accept(self, take: Callable[[], tuple[socket.socket, Any]]) -> tuple[socket.socket, Any]:
        """The next connection. Raises what `accept` of a socket raises; BlockingIOError, as if none waited, after one
        was refused: the loop then looks after the others before it comes back."""
        try:
            raw, address = take()
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            self._refuse_one(take)  # asyncio would write a page of log for each that waits
            raise _none_waits() from None
        if len(self._guests) >= self._most and not self._make_room():
            raw.close()
            self._count_refused()
            raise _none_waits()
        return self._welcome(raw), address

    def _welcome(self, raw: socket.socket) -> _Connection:
        connection = _Connection(fileno=raw.detach())
        connection.number = connection.fileno()
        connection.on_close = self._forget
        self._guests[connection.number] = _Guest(connection, _now() + self._head)
        return connection

    def _forget(self, number: int) -> None:
        self._guests.pop(number, None)

    def _make_room(self) -> bool:
        """Of those that have asked nothing, then of those that ask nothing now, the one that came first goes."""
        for asked in (False, True):
            for guest in self._guests.values():
                if guest.asked == asked and not guest.busy:
                    self._show_out(guest)
                    self._count_refused()
                    return True
        return False

    def _show_out(self, guest: _Guest) -> None:
        """asyncio finds the end of the stream and closes the descriptor itself."""
        self._guests.pop(guest.connection.number, None)
        guest.connection.on_close = None
        with suppress(OSError):  # the client was faster
            guest.connection.shutdown(socket.SHUT_RDWR)

    def _refuse_one(self, take: Callable[[], tuple[socket.socket, Any]]) -> None:
        """With the descriptor that is kept for this: a connection that waits unaccepted wakes the loop for ever."""
        self._drop_spare()
        with suppress(OSError):  # another thread was faster in taking it
            take()[0].close()
            self._count_refused()
        self._make_room()
        self._keep_spare()

    def _keep_spare(self) -> None:
        with suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _drop_spare(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def _count_refused(self) -> None:
        self._refused += 1
        if _now() - self._told >= _TOLD:
            facts = {"refused": self._refused, "held": self.held, "most": self._most}
            log.warning("too many connections: some were closed unanswered", extra=facts)
            self._told, self._refused = _now(), 0

    def _middleware(self) -> Middleware:
        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            guest = self._guest(request)
            if guest is None:
                return await handler(request)
            guest.asked, guest.busy, guest.deadline = True, True, _now() + self._answer
            try:
                return await handler(request)
            finally:
                guest.busy, guest.deadline = False, _now() + self._idle

        return count

    def _guest(self, request: web.Request) -> _Guest | None:
        """None: it has gone meanwhile."""
        sock = request.get_extra_info("socket")
        return None if sock is None else self._guests.get(sock.fileno())

    async def _watching(self, _application: web.Application) -> AsyncIterator[None]:
        self._keep_spare()
        watch = asyncio.create_task(self._watch())
        yield
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        self._drop_spare()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(_LOOK, self._head))
            if self._spare is None:
                self._keep_spare()
            now = _now()
            for guest in [guest for guest in self._guests.values() if guest.deadline <= now]:
                self._show_out(guest)


def _none_waits() -> BlockingIOError:
    return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _descriptors() -> int:
    """How many files this process may open, after the limit has been raised where that is useful and allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(_DESCRIPTORS, hard) if hard != resource.RLIM_INFINITY else _DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


_Address = tuple[socket.AddressFamily, Any]


async def _addresses(host: str | None, port: int) -> list[_Address]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bound(address: _Address, port: int) -> _Listener | None:
    """None: this host has no such family (IPv6 is switched off)."""
    family, (name, _, *rest) = address
    try:
        listener = _Listener(family, socket.SOCK_STREAM)
    except OSError:
        return None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((name, port, *rest))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRNOTAVAIL and family == socket.AF_INET6 and name == "::":
            return None
        raise
    return listener
