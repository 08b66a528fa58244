"""The routes, on a port of their own."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession, ClientTimeout, web

from services.exporter.page import WORTHWHILE, Page
from services.exporter.reading import SourceError, Trouble
from services.exporter.sampler import Sampler, Status
from services.exporter.server import Site
from tests.unit.exporter.service.doubles import FakeClock, ScriptedSource, reading, sweep

NO_DRIVER = SourceError(Trouble.NO_DRIVER, "the driver is not loaded: run gpumon doctor")


@dataclass
class Service:
    """A site over a scripted source."""

    clock: FakeClock
    sampler: Sampler
    page: Page
    scrapes: int = 0

    def tail(self, status: Status) -> str:
        self.scrapes += 1
        return f"gpumon_exporter_up {int(status.fresh)}\n"


Scenario = Callable[[ClientSession, Service], Awaitable[None]]


def play(scenario: Scenario, *script: Any, page: str = "DCGM_FI_DEV_GPU_TEMP 41\n") -> None:
    async def run() -> None:
        clock, source = FakeClock(), ScriptedSource(list(script) or [sweep(reading())])
        service = Service(clock, Sampler(lambda: source, lambda _: None, clock=clock), Page(page))
        site = Site(service.sampler.status, lambda: service.page, service.tail, lambda: {"documents": ["<x>"]})
        runner = web.AppRunner(site.application(), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        plain = {"Accept-Encoding": "identity"}
        session = ClientSession(url, headers=plain, auto_decompress=False, timeout=ClientTimeout(total=10))
        async with session:
            await scenario(session, service)
        await runner.cleanup()

    asyncio.run(run())


def test_metrics_of_a_fresh_reading() -> None:
    async def scenario(session: ClientSession, service: Service) -> None:
        service.sampler.step()
        async with session.get("/metrics") as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert await answer.text() == "DCGM_FI_DEV_GPU_TEMP 41\ngpumon_exporter_up 1\n"

    play(scenario)


def test_health_follows_the_readings() -> None:
    async def scenario(session: ClientSession, service: Service) -> None:
        assert await asked(session, "/health") == (503, "no reading yet\n")
        assert await asked(session, "/metrics") == (200, "gpumon_exporter_up 0\n")
        service.sampler.step()
        assert await asked(session, "/health") == (200, "OK")
        assert await asked(session, "/readyz") == (200, '{"status": "ok"}')
        service.clock.now = 60.0
        assert await asked(session, "/health") == (503, "the last reading is 60 s old\n")
        assert await asked(session, "/metrics") == (200, "gpumon_exporter_up 0\n")
        assert await asked(session, "/livez") == (200, '{"status": "ok"}')
        assert (await asked(session, "/readyz"))[0] == 503

    play(scenario)


def test_no_driver_is_told_with_what_to_do() -> None:
    async def scenario(session: ClientSession, service: Service) -> None:
        service.sampler.step()
        assert await asked(session, "/health") == (503, "the driver is not loaded: run gpumon doctor\n")
        assert (await asked(session, "/metrics"))[0] == 200

    play(scenario, NO_DRIVER)


async def asked(session: ClientSession, path: str) -> tuple[int, str]:
    async with session.get(path) as answer:
        return answer.status, await answer.text()


def test_gzip_for_those_who_ask_where_it_is_worthwhile() -> None:
    long = "DCGM_FI_DEV_GPU_TEMP 41\n" * (WORTHWHILE // 10)

    async def scenario(session: ClientSession, service: Service) -> None:
        service.sampler.step()
        for _ in range(2):  # the second answer goes on from the head that the first has compressed
            async with session.get("/metrics", headers={"Accept-Encoding": "gzip"}) as answer:
                assert answer.headers["Content-Encoding"] == "gzip"
                body = await answer.read()
                assert len(body) < len(long) // 10
                assert gzip.decompress(body).decode() == f"{long}gpumon_exporter_up 1\n"
        async with session.get("/metrics", headers={"Accept-Encoding": "gzip;q=0"}) as answer:
            assert "Content-Encoding" not in answer.headers
        service.clock.now = 60.0
        async with session.get("/metrics", headers={"Accept-Encoding": "gzip"}) as answer:
            assert "Content-Encoding" not in answer.headers, "a few lines fit into one packet"
            assert await answer.text() == "gpumon_exporter_up 0\n"

    play(scenario, page=long)


def test_index_links_and_escapes() -> None:
    async def scenario(session: ClientSession, service: Service) -> None:
        service.sampler.step()
        status, text = await asked(session, "/")
        assert status == 200
        for path in ("/metrics", "/health", "/livez", "/readyz", "/snapshot"):
            assert f'href="{path}"' in text
            assert (await asked(session, path))[0] in (200, 503)
        assert "a &lt;b&gt;" in text

    play(scenario, SourceError(Trouble.FAILED, "a <b>"))


def test_snapshot() -> None:
    async def scenario(session: ClientSession, _service: Service) -> None:
        assert await asked(session, "/snapshot") == (200, '{"documents":["<x>"]}')

    play(scenario)


def test_unknown_paths_and_methods() -> None:
    async def scenario(session: ClientSession, _service: Service) -> None:
        assert (await asked(session, "/nothing"))[0] == 404
        async with session.post("/metrics") as answer:
            assert answer.status == 405
        async with session.head("/metrics") as answer:
            assert answer.status == 200

    play(scenario)


def test_page_with_any_tail() -> None:
    page = Page("head\n" * 1000)
    for tail in (b"", b"tail\n", b"x" * 100_000):
        assert gzip.decompress(page.gzip(tail)) == page.plain(tail) == b"head\n" * 1000 + tail
