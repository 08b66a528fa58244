"""Clients that only hold a connection: they are closed, make room for others, and cost no log and no descriptor."""

from __future__ import annotations

import asyncio
import errno
import logging
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn

import pytest
from aiohttp import web

from services.ops.admission import Admission
from tests.support.certificates import Authority

LONG = 60.0
SHORT = 0.2
WITHIN = 10.0
"""Seconds; nothing here waits for them where all is well."""
HALF = b"GET / HTTP/1.1\r\nX-a: "
WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Door:
    """A site behind an admission."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []
        self.open, self.asked = asyncio.Event(), asyncio.Event()
        self.open.set()

    async def index(self, _request: web.Request) -> web.Response:
        self.asked.set()
        await self.open.wait()
        return web.Response(text="here")

    async def knock(self, words: bytes = b"") -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        writer.write(words)
        return reader

    async def answers(self) -> bool:
        return (await asyncio.wait_for(_line(await self.knock(WHOLE)), WITHIN)).startswith(b"HTTP/1.1 200")

    def leave(self) -> None:
        for writer in self._writers:
            writer.close()

    async def holds(self, number: int) -> None:
        async with asyncio.timeout(WITHIN):
            while self.admission.held != number:
                await asyncio.sleep(0.01)


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ConnectionResetError:
        return b""


async def closed(reader: asyncio.StreamReader) -> bool:
    return await asyncio.wait_for(_line(reader), WITHIN) == b""


def play(
    scenario: Callable[[Door], Awaitable[None]],
    *,
    most: int = 100,
    head: float = LONG,
    answer: float = LONG,
    idle: float = LONG,
    tls: ssl.SSLContext | None = None,
) -> None:
    async def run() -> None:
        door = Door(Admission(most, head, answer, idle))
        application = web.Application()
        application.router.add_get("/", door.index)
        door.admission.attach(application)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await door.admission.listen(runner, "127.0.0.1", 0, tls)
        door.port = runner.addresses[0][1]
        try:
            await scenario(door)
        finally:
            door.leave()
            await runner.cleanup()

    asyncio.run(run())


def test_half_a_request_is_not_waited_for() -> None:
    async def scenario(door: Door) -> None:
        silent, half = await door.knock(), await door.knock(HALF)
        assert await closed(silent)
        assert await closed(half)
        await door.holds(0)

    play(scenario, head=SHORT)


def test_the_next_request_may_come_later_than_the_first() -> None:
    async def scenario(door: Door) -> None:
        kept, silent = await door.knock(WHOLE), await door.knock()
        assert (await _line(kept)).startswith(b"HTTP/1.1 200")
        assert await closed(silent)
        assert door.admission.held == 1

    play(scenario, head=SHORT)


def test_a_connection_without_a_further_request_is_closed() -> None:
    async def scenario(door: Door) -> None:
        await door.knock(WHOLE)
        await asyncio.wait_for(door.asked.wait(), WITHIN)
        await door.holds(0)

    play(scenario, idle=SHORT)


def test_an_answer_does_not_take_for_ever() -> None:
    async def scenario(door: Door) -> None:
        door.open.clear()
        reader = await door.knock(WHOLE)
        assert await closed(reader)

    play(scenario, answer=SHORT)


def test_who_holds_connections_only_does_not_keep_others_out(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(door: Door) -> None:
        waiting = [await door.knock(HALF) for _ in range(20)]
        assert await door.answers()
        assert await closed(waiting[0])
        assert door.admission.held <= 4
        assert [await door.answers() for _ in range(5)] == [True] * 5

    with caplog.at_level(logging.WARNING):
        play(scenario, most=4)
    assert [record.name for record in caplog.records] == ["ops"]


def test_who_is_being_answered_makes_no_room() -> None:
    async def scenario(door: Door) -> None:
        door.open.clear()
        first = await door.knock(WHOLE)
        await asyncio.wait_for(door.asked.wait(), WITHIN)
        refused = await door.knock(WHOLE)
        assert await closed(refused)
        door.open.set()
        assert (await _line(first)).startswith(b"HTTP/1.1 200")
        assert await door.answers()

    play(scenario, most=1)


def test_who_does_not_begin_tls_is_not_waited_for(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")

    async def scenario(door: Door) -> None:
        reader = await door.knock()
        assert await closed(reader)
        await door.holds(0)

    play(scenario, head=SHORT, tls=context)


def test_without_descriptors_one_is_refused_and_asyncio_hears_of_none_waiting() -> None:
    def no_descriptors() -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    async def scenario(door: Door) -> None:
        waiting = await door.knock()
        await door.holds(1)
        with pytest.raises(BlockingIOError):
            door.admission.accept(no_descriptors)
        assert await closed(waiting)
        assert await door.answers()

    play(scenario)


def test_a_taken_port_is_an_error() -> None:
    async def scenario(door: Door) -> None:
        runner = web.AppRunner(web.Application())
        await runner.setup()
        with pytest.raises(OSError, match=r".") as raised:
            await Admission().listen(runner, "127.0.0.1", door.port)
        assert raised.value.errno == errno.EADDRINUSE
        await runner.cleanup()

    play(scenario)


def test_all_addresses_share_a_port() -> None:
    async def run() -> None:
        runner = web.AppRunner(web.Application())
        await runner.setup()
        await Admission().listen(runner, None, 0)
        assert len({address[1] for address in runner.addresses}) == 1
        await runner.cleanup()

    asyncio.run(run())
