"""`gpumon mock`: simulate or replay, print or serve."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import socket
import sys
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from mock_dcgm import command_line, replay
from mock_dcgm.command_line import Plan, add_arguments
from mock_dcgm.exposition import DEFAULT, Exposition
from mock_dcgm.faults import FaultError
from mock_dcgm.fleet import FleetError
from mock_dcgm.server import Exporter, Site, Telemetry, keep_updating
from mock_dcgm.simulator import Simulator
from services.contract.catalogue import METRICS
from services.ops.clock import Clock, SystemClock
from services.ops.health import Heartbeat, OpsServer
from services.ops.serving import cannot_listen, until_stopped
from services.settings import Settings

__all__ = ["add_arguments", "run", "write_targets"]

log = logging.getLogger("mock")

_FAREWELL = 1.0
"""Seconds open requests get at shutdown: a hanging exporter (a fault) would otherwise hold the process."""


class StartError(Exception):
    """The mock cannot begin to serve; the message says what to do."""


def run(args: argparse.Namespace, settings: Settings, clock: Clock | None = None) -> int:
    """Exit code: 0 stopped or printed, 1 could not serve, 2 wrong flags, fleet file or recording."""
    try:
        plan = command_line.plan(args, settings)
        if args.replay:
            return _serve(_replay(plan, replay.Recordings(args.replay, loop=args.loop)))
        used = clock or SystemClock()
        exporter = _exporter(args, used)
        exporter.step(plan.interval)
        return _print(exporter) if args.once else _serve(_simulate(plan, settings, exporter, used))
    except (FleetError, FaultError, replay.ReplayError) as error:
        print(f"gpumon mock: {error}", file=sys.stderr)
        return 2
    except StartError as error:
        print(f"gpumon mock: {error}", file=sys.stderr)
        return 1


def _exporter(args: argparse.Namespace, clock: Clock) -> Exporter:
    simulator = Simulator(command_line.fleet(args), start=clock.time())
    metrics = METRICS if args.metrics == "all" else DEFAULT
    return Exporter(simulator, Exposition(simulator.layout, simulator.present, metrics), Telemetry())


def _print(exporter: Exporter) -> int:
    with suppress(BrokenPipeError):  # `| head` is a good reason to stop
        for block in exporter.body(None):
            sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
    return 0


def _serve(service: Coroutine[None, None, None]) -> int:
    asyncio.run(service)
    return 0


async def _simulate(plan: Plan, settings: Settings, exporter: Exporter, clock: Clock) -> None:
    heartbeat = Heartbeat(limit=max(30.0, 3 * plan.interval), clock=clock)
    fleet = exporter.simulator.fleet
    runner = web.AppRunner(Site(exporter).application(), access_log=None, shutdown_timeout=_FAREWELL)
    bound = await _listen(runner, plan, [host.name for host in fleet.hosts])
    try:
        with _ops_server(settings, heartbeat, exporter):
            facts = {"gpus": len(fleet.gpus), "hosts": len(fleet.hosts), "seed": fleet.seed}
            log.info("mock DCGM", extra={"url": f"http://{plan.host}:{bound}/metrics", **facts})
            updating = keep_updating(exporter, plan.interval, plan.speed, clock, heartbeat)
            await until_stopped(asyncio.create_task(updating))
    finally:
        await runner.cleanup()


def _ops_server(settings: Settings, heartbeat: Heartbeat, exporter: Exporter) -> OpsServer:
    probe, registry = heartbeat.problem, exporter.telemetry.registry
    try:
        return OpsServer(settings.ops_host, settings.ops_port, live=probe, ready=probe, registry=registry)
    except OSError as error:
        raise StartError(cannot_listen(settings.ops_host, settings.ops_port, "OPS_PORT", error)) from None


async def _replay(plan: Plan, recordings: replay.Recordings) -> None:
    runner = web.AppRunner(replay.application(recordings), access_log=None, shutdown_timeout=_FAREWELL)
    bound = await _listen(runner, plan, recordings.names())
    log.info("replay", extra={"url": f"http://{plan.host}:{bound}/metrics", "recordings": len(recordings.names())})
    try:
        await until_stopped(None)
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, plan: Plan, names: list[str]) -> int:
    """Start to serve and write the targets file; gives the port."""
    await runner.setup()
    try:
        await web.TCPSite(runner, plan.host, plan.port).start()
        bound = int(runner.addresses[0][1])
    except OSError as error:
        await runner.cleanup()
        raise StartError(cannot_listen(plan.host, plan.port, "--port or MOCK_PORT", error)) from None
    if plan.targets is not None:
        try:
            write_targets(plan.targets, plan.advertise or _reachable(plan.host), bound, names)
        except OSError as error:
            await runner.cleanup()
            raise StartError(f"cannot write {plan.targets}: {error.strerror}") from None
    return bound


def _reachable(host: str) -> str:
    """A name others can use: what is bound to every address is reached by the host's name."""
    return socket.gethostname() if host in ("", "0.0.0.0", "::") else host


def write_targets(path: Path, host: str, port: int, names: list[str]) -> None:
    """Prometheus file_sd: one target per host, told apart by their path. Replaced in one go: it may be being read."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    groups = [{"targets": [address], "labels": {"__metrics_path__": f"/hosts/{name}/metrics"}} for name in names]
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(groups, indent=1) + "\n")
    fresh.replace(path)
