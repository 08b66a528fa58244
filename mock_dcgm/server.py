"""The mock over HTTP: one exporter for the whole fleet, one per host, health, and the control of faults.

Everything runs on one event loop: an update of 10,000 GPUs takes some ten milliseconds, so no lock and no thread stand
between an update and an answer. Only compression of large bodies goes to a thread.
"""

from __future__ import annotations

import asyncio
import json
import logging
import zlib
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from mock_dcgm.exposition import CONTENT_TYPE, Body, Exposition
from mock_dcgm.faults import MEANING, Fault, FaultError, FaultSpec, Kind
from mock_dcgm.simulator import Simulator
from services.ops.clock import Clock
from services.ops.health import Heartbeat
from services.ops.serving import accepts_gzip

log = logging.getLogger("mock")

_JOIN_BELOW: Final = 4 * 1024 * 1024
"""Bytes: smaller bodies go out as one piece, larger ones block by block, so that they are not copied once more."""
_HANG_POLL: Final = 0.05
"""Seconds between two looks whether a hanging exporter has been released."""
_ANSWER_HEADERS: Final = {"Content-Type": CONTENT_TYPE, "X-Content-Type-Options": "nosniff"}


@dataclass(slots=True)
class Telemetry:
    """What the mock says about itself, on the ops port."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    updates: Histogram = field(init=False)
    scrapes: Counter = field(init=False)
    scraped_bytes: Counter = field(init=False)
    gpus: Gauge = field(init=False)

    def __post_init__(self) -> None:
        self.updates = Histogram("gpumon_mock_update_seconds", "Time to advance the simulation and render.",
                                 registry=self.registry)  # fmt: skip
        self.scrapes = Counter("gpumon_mock_scrapes_total", "Expositions served.", ["scope"], registry=self.registry)
        self.scraped_bytes = Counter("gpumon_mock_scraped_bytes_total", "Bytes of them.", registry=self.registry)
        self.gpus = Gauge("gpumon_mock_gpus", "GPUs that are alive.", registry=self.registry)


class Exporter:
    """A simulator with its exposition, rendered at most once per update and scope."""

    def __init__(self, simulator: Simulator, exposition: Exposition, telemetry: Telemetry) -> None:
        self.simulator, self.exposition, self.telemetry = simulator, exposition, telemetry
        self._bodies: dict[tuple[str | None, bool], Body] = {}
        self.exposition.update(simulator.snapshot)

    def step(self, seconds: float) -> None:
        """Advance simulated time; what was asked for since the last update is rendered anew at once."""
        with self.telemetry.updates.time():
            self.exposition.update(self.simulator.step(seconds))
            fleet_wanted = (None, False) in self._bodies or (None, True) in self._bodies
            self._bodies = {}
            if fleet_wanted:
                self.body(None)
        whole = [entity.instance is None for entity in self.simulator.layout.entities]
        self.telemetry.gpus.set(int(self.simulator.snapshot.alive[whole].sum()))

    def body(self, host: str | None) -> Body:
        """The text of a host, or of the whole fleet. Raises KeyError."""
        key = (host, False)
        if key not in self._bodies:
            self._bodies[key] = self.exposition.fleet() if host is None else self.exposition.host(host)
        return self._bodies[key]

    async def compressed(self, host: str | None) -> Body:
        """The same, gzip."""
        bodies, key = self._bodies, (host, True)
        if key not in bodies:
            plain = self.body(host)
            bodies[key] = await asyncio.to_thread(compress, plain)
        return bodies[key]


def compress(body: Body) -> Body:
    """Gzip at the fastest level: expositions repeat themselves, more effort gains little."""
    packer = zlib.compressobj(level=1, wbits=31)
    packed = [packer.compress(block) for block in body]
    return (b"".join([*packed, packer.flush()]),)


async def send(request: web.Request, body: Body, *, gzip: bool, share: float = 1.0) -> web.StreamResponse:
    """Answer with `body`; with `share` below 1 the text breaks off there, as a dying exporter's does."""
    headers = {**_ANSWER_HEADERS, **({"Content-Encoding": "gzip"} if gzip else {})}
    length = sum(map(len, body))
    if share < 1.0 or length < _JOIN_BELOW:
        return web.Response(body=b"".join(body)[: max(1, int(length * share))], headers=headers)
    response = web.StreamResponse(headers={**headers, "Content-Length": str(length)})
    await response.prepare(request)
    for block in body:
        await response.write(block)
    await response.write_eof()
    return response


class Site:
    """The routes."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter, self._simulator = exporter, exporter.simulator

    def application(self) -> web.Application:
        app = web.Application()
        app.add_routes([
            web.get("/", self.index),
            web.get("/health", self.health),
            web.get("/metrics", self.metrics),
            web.get("/hosts", self.hosts),
            web.get("/hosts/{host}/metrics", self.metrics),
            web.get("/control/faults", self.list_faults),
            web.post("/control/faults", self.add_fault),
            web.delete("/control/faults", self.clear_faults),
            web.delete("/control/faults/{id}", self.clear_faults),
            web.post("/control/step", self.step),
        ])  # fmt: skip
        return app

    async def index(self, _request: web.Request) -> web.Response:
        gpus = len(self._simulator.fleet.gpus)
        text = (
            f"Mock DCGM: {gpus} GPUs on {len(self._simulator.fleet.hosts)} hosts\n\n"
            "GET /metrics                   the whole fleet\n"
            "GET /hosts                     the hosts and their GPUs (JSON)\n"
            "GET /hosts/{host}/metrics      one host, as its own exporter would answer\n"
            "GET /health\n"
            "GET, POST, DELETE /control/faults[/{id}]\n"
            "POST /control/step             {\"seconds\": 60} moves simulated time on\n\nFaults:\n"
        )  # fmt: skip
        return web.Response(text=text + "".join(f"{kind:18} {meaning}\n" for kind, meaning in MEANING.items()))

    async def health(self, _request: web.Request) -> web.Response:
        return web.Response(text="OK")

    async def hosts(self, _request: web.Request) -> web.Response:
        return web.json_response([
            {
                "host": host.name,
                "driver": host.driver,
                "metrics": f"/hosts/{host.name}/metrics",
                "gpus": [{"gpu": g.index, "uuid": g.uuid, "model": g.model.name} for g in host.gpus],
            }
            for host in self._simulator.fleet.hosts
        ])  # fmt: skip

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        host = request.match_info.get("host")
        if host is not None and host not in self._simulator.layout.hosts:
            return _problem(404, f"no host {host!r}; GET /hosts lists them")
        await self._suffer(request, host)
        share = self._faults(host).get(Kind.TRUNCATED_BODY, 1.0)
        gzip = accepts_gzip(request) and share == 1.0
        body = await self._exporter.compressed(host) if gzip else self._exporter.body(host)
        self._exporter.telemetry.scrapes.labels("fleet" if host is None else "host").inc()
        self._exporter.telemetry.scraped_bytes.inc(sum(map(len, body)) * share)
        return await send(request, body, gzip=gzip, share=share)

    def _faults(self, host: str | None) -> dict[Kind, float]:
        return self._simulator.faults.exporter(host, self._simulator.elapsed)

    async def _suffer(self, request: web.Request, host: str | None) -> None:
        """Wait as the exporter faults of the host demand."""
        while Kind.EXPORTER_HANG in self._faults(host) and request.transport is not None:
            await asyncio.sleep(_HANG_POLL)
        await asyncio.sleep(self._faults(host).get(Kind.SLOW_SCRAPE, 0.0))

    async def list_faults(self, _request: web.Request) -> web.Response:
        return web.json_response([self._shown(fault) for fault in self._simulator.faults.entries()])

    async def add_fault(self, request: web.Request) -> web.Response:
        try:
            spec = msgspec.json.decode(await request.read(), type=FaultSpec)
            fault = self._simulator.faults.add(spec, self._simulator.elapsed)
        except (msgspec.DecodeError, FaultError) as error:
            return _problem(400, f"{error}; GET / lists the faults")
        log.info("fault added", extra={"fault": fault.id, "kind": fault.spec.kind, "gpus": len(fault.gpus)})
        return web.json_response(self._shown(fault), status=201)

    async def clear_faults(self, request: web.Request) -> web.Response:
        text = request.match_info.get("id")
        if text is not None and not text.isdigit():
            return _problem(400, f"fault id {text!r} is not a number")
        gone = self._simulator.faults.clear(None if text is None else int(text))
        if text is not None and not gone:
            return _problem(404, f"no fault {text}; GET /control/faults lists them")
        return web.json_response([self._shown(fault) for fault in gone])

    async def step(self, request: web.Request) -> web.Response:
        try:
            seconds = float(json.loads(await request.read())["seconds"])
        except (ValueError, KeyError, TypeError):
            seconds = 0.0
        if not 0.0 < seconds <= 86_400.0:
            return _problem(400, 'the body is {"seconds": S} with S above 0, at most 86400')
        self._exporter.step(seconds)
        return web.json_response({"elapsed": self._simulator.elapsed})

    def _shown(self, fault: Fault) -> dict[str, Any]:
        return {
            "id": fault.id,
            **msgspec.to_builtins(fault.spec),
            "start": fault.start,
            "active": fault.active(self._simulator.elapsed),
            "gpus": len(fault.gpus),
        }


def _problem(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)


async def keep_updating(exporter: Exporter, interval: float, speed: float, clock: Clock, heartbeat: Heartbeat) -> None:
    """Every `interval` wall seconds move on by `interval * speed` simulated ones; after a delay, catch up in one go."""
    due = clock.monotonic() + interval
    while True:
        heartbeat.beat()
        await asyncio.sleep(max(0.0, due - clock.monotonic()))
        missed = int(max(0.0, clock.monotonic() - due) // interval)
        due += interval * (missed + 1)
        if speed > 0.0:
            exporter.step(interval * speed * (missed + 1))
