"""The mock over HTTP, on a port of its own."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession, ClientTimeout, web
from prometheus_client import generate_latest

from mock_dcgm.exposition import Exposition
from mock_dcgm.server import Exporter, Site, Telemetry, compress, keep_updating
from mock_dcgm.simulator import Simulator
from services.ops.health import Heartbeat
from services.ops.serving import accepts_gzip
from tests.unit.mock_dcgm.fleets import START, all_models, text_of

Scenario = Callable[[ClientSession, Exporter], Awaitable[None]]


@asynccontextmanager
async def site(exporter: Exporter) -> AsyncIterator[ClientSession]:
    runner = web.AppRunner(Site(exporter).application(), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    session = ClientSession(
        f"http://127.0.0.1:{port}",
        headers={"Accept-Encoding": "identity"},
        auto_decompress=False,
        timeout=ClientTimeout(total=10),
    )
    async with session:
        yield session
    await runner.cleanup()


@pytest.fixture
def exporter() -> Exporter:
    simulator = Simulator(all_models(), START)
    made = Exporter(simulator, Exposition(simulator.layout, simulator.present), Telemetry())
    made.step(10)
    return made


def play(exporter: Exporter, scenario: Scenario) -> None:
    async def run() -> None:
        async with site(exporter) as session:
            await scenario(session, exporter)

    asyncio.run(run())


def test_metrics_of_the_fleet_and_of_a_host(exporter: Exporter) -> None:
    async def scenario(session: ClientSession, exporter: Exporter) -> None:
        async with session.get("/metrics") as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert await answer.text() == text_of(exporter.simulator)
        async with session.get("/hosts/node-b/metrics") as answer:
            assert await answer.text() == text_of(exporter.simulator, host="node-b")
        async with session.get("/hosts/node-x/metrics") as answer:
            assert answer.status == 404
            assert "GET /hosts lists them" in await answer.text()
        async with session.get("/health") as answer:
            assert (answer.status, await answer.text()) == (200, "OK")
        async with session.get("/") as answer:
            assert "/hosts/{host}/metrics" in await answer.text()
        async with session.get("/hosts") as answer:
            hosts = await answer.json()
            assert [(h["host"], len(h["gpus"])) for h in hosts] == [("node-a", 5), ("node-b", 2)]

    play(exporter, scenario)


def test_gzip_only_for_those_who_ask(exporter: Exporter) -> None:
    async def scenario(session: ClientSession, exporter: Exporter) -> None:
        for path, host in (("/metrics", None), ("/hosts/node-a/metrics", "node-a")):
            async with session.get(path, headers={"Accept-Encoding": "gzip;q=0.9, deflate"}) as answer:
                assert answer.headers["Content-Encoding"] == "gzip"
                packed = await answer.read()
            plain = text_of(exporter.simulator, host=host).encode()
            assert gzip.decompress(packed) == plain
            assert len(packed) < len(plain) / 10
            async with session.get(path) as answer:
                assert "Content-Encoding" not in answer.headers

    play(exporter, scenario)


def test_a_large_body_arrives_whole(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mock_dcgm.server._JOIN_BELOW", 0)

    async def scenario(session: ClientSession, exporter: Exporter) -> None:
        async with session.get("/metrics") as answer:
            assert await answer.text() == text_of(exporter.simulator)

    play(exporter, scenario)


def test_an_update_changes_what_is_served_and_is_rendered_once(exporter: Exporter) -> None:
    async def scenario(session: ClientSession, exporter: Exporter) -> None:
        async with session.get("/metrics") as answer:
            first = await answer.read()
        body = exporter.body(None)
        async with session.get("/metrics") as answer:
            assert await answer.read() == first
        assert exporter.body(None) is body
        async with session.post("/control/step", json={"seconds": 60}) as answer:
            assert await answer.json() == {"elapsed": 70.0}
        async with session.get("/metrics") as answer:
            assert await answer.read() != first

    play(exporter, scenario)


@pytest.mark.parametrize("body", ["", "{}", '{"seconds": -1}', '{"seconds": 1e9}', '{"seconds": "x"}', "[]"])
def test_an_impossible_step_is_refused(exporter: Exporter, body: str) -> None:
    async def scenario(session: ClientSession, exporter: Exporter) -> None:
        async with session.post("/control/step", data=body) as answer:
            assert answer.status == 400
            assert "seconds" in (await answer.json())["error"]
        assert exporter.simulator.elapsed == 10

    play(exporter, scenario)


def test_faults_are_added_listed_and_cleared(exporter: Exporter) -> None:
    async def scenario(session: ClientSession, exporter: Exporter) -> None:
        spec = {"kind": "xid", "host": "node-a", "gpu": 3, "value": 79}
        async with session.post("/control/faults", json=spec) as answer:
            assert answer.status == 201
            added = await answer.json()
            assert {**spec, "id": 1, "active": True, "gpus": 1, "start": 10.0} == added
        async with session.get("/control/faults") as answer:
            assert await answer.json() == [added]
        exporter.step(10)
        async with session.get("/metrics") as answer:
            text = await answer.text()
            lines = [line for line in text.splitlines() if line.startswith("DCGM_FI_DEV_XID") and line.endswith(" 79")]
            assert len(lines) == 1
            assert 'gpu="3"' in lines[0]
            assert 'Hostname="node-a"' in lines[0]
        async with session.delete("/control/faults/7") as answer:
            assert answer.status == 404
        async with session.delete("/control/faults/1") as answer:
            assert [fault["id"] for fault in await answer.json()] == [1]
        async with session.delete("/control/faults") as answer:
            assert await answer.json() == []

    play(exporter, scenario)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"kind": "meteor"}', "Invalid enum value 'meteor'"),
        ('{"kind": "xid", "colour": 1}', "unknown field `colour`"),
        ('{"kind": "xid", "duration": 0}', "$.duration"),
        ('{"kind": "xid", "host": "nowhere"}', "no GPU matches host='nowhere'"),
        ("{", "truncated"),
    ],
)
def test_a_wrong_fault_is_refused_with_the_reason(exporter: Exporter, body: str, words: str) -> None:
    async def scenario(session: ClientSession, _: Exporter) -> None:
        async with session.post("/control/faults", data=body) as answer:
            assert answer.status == 400
            assert words in (await answer.json())["error"]

    play(exporter, scenario)


def test_a_hanging_exporter_never_answers_and_the_others_do(exporter: Exporter) -> None:
    async def scenario(session: ClientSession, exporter: Exporter) -> None:
        await session.post("/control/faults", json={"kind": "exporter_hang", "host": "node-a"})
        with pytest.raises(TimeoutError):
            await session.get("/hosts/node-a/metrics", timeout=ClientTimeout(total=0.2))
        for path in ("/hosts/node-b/metrics", "/metrics", "/health"):
            async with session.get(path) as answer:
                assert answer.status == 200
        waiting = asyncio.create_task(session.get("/hosts/node-a/metrics"))
        await session.delete("/control/faults")
        assert (await waiting).status == 200

    play(exporter, scenario)


def test_a_fault_of_every_host_strikes_the_fleet_endpoint_too(exporter: Exporter) -> None:
    async def scenario(session: ClientSession, exporter: Exporter) -> None:
        await session.post("/control/faults", json={"kind": "exporter_hang"})
        for path in ("/hosts/node-b/metrics", "/metrics"):
            with pytest.raises(TimeoutError):
                await session.get(path, timeout=ClientTimeout(total=0.1))

    play(exporter, scenario)


def test_a_slow_scrape_takes_its_time(exporter: Exporter) -> None:
    async def scenario(session: ClientSession, exporter: Exporter) -> None:
        await session.post("/control/faults", json={"kind": "slow_scrape", "host": "node-a", "value": 0.3})
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with session.get("/hosts/node-a/metrics") as answer:
            assert answer.status == 200
        assert loop.time() - began >= 0.3

    play(exporter, scenario)


def test_a_truncated_body_breaks_off_in_a_line(exporter: Exporter) -> None:
    async def scenario(session: ClientSession, exporter: Exporter) -> None:
        whole = text_of(exporter.simulator, host="node-a")
        await session.post("/control/faults", json={"kind": "truncated_body", "host": "node-a", "value": 0.5})
        async with session.get("/hosts/node-a/metrics", headers={"Accept-Encoding": "gzip"}) as answer:
            text = await answer.text()
        assert text == whole[: len(whole) // 2]
        assert not text.endswith("\n")

    play(exporter, scenario)


def test_the_mock_reports_on_itself(exporter: Exporter) -> None:
    async def scenario(session: ClientSession, exporter: Exporter) -> None:
        async with session.get("/metrics"):
            pass
        await session.post("/control/faults", json={"kind": "gpu_lost", "host": "node-b", "gpu": 0})
        await session.post("/control/step", json={"seconds": 10})
        text = generate_latest(exporter.telemetry.registry).decode()
        assert 'gpumon_mock_scrapes_total{scope="fleet"} 1.0' in text
        assert "gpumon_mock_gpus 6.0" in text
        assert "gpumon_mock_update_seconds_count 2.0" in text

    play(exporter, scenario)


class Steps:
    """A clock the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody sleeps here")


def test_updates_follow_the_clock_and_catch_up_after_a_delay(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, woken = Steps(), []

    async def sleep(seconds: float) -> None:
        woken.append(exporter.simulator.elapsed)
        if len(woken) > 3:
            raise asyncio.CancelledError
        clock.now += seconds + (25.0 if len(woken) == 2 else 0.0)  # the second time we oversleep

    monkeypatch.setattr("mock_dcgm.server.asyncio.sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(keep_updating(exporter, 10.0, 2.0, clock, Heartbeat(30.0, clock)))
    assert woken == [10, 30, 90, 110]  # 20 simulated seconds an update; after 35 s three at once


@pytest.mark.parametrize(
    ("header", "expected"),
    [("gzip", True), ("deflate, gzip;q=1.0", True), ("gzip;q=0", False), ("br", False), ("", False), ("x-gzip", False)],
)
def test_accept_encoding(header: str, expected: bool) -> None:
    from aiohttp.test_utils import make_mocked_request

    assert accepts_gzip(make_mocked_request("GET", "/metrics", headers={"Accept-Encoding": header})) is expected


def test_compression_keeps_every_byte() -> None:
    blocks = (b"a" * 100_000, b"", b"b\n")
    assert gzip.decompress(b"".join(compress(blocks))) == b"".join(blocks)
