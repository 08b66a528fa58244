"""Role `collector`: scrape exporters, publish events to Kafka, or write them straight into TimescaleDB."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import resource
import signal
import sys

from prometheus_client import REGISTRY

from services.collector.deliver import Bus
from services.collector.destination import look, opened
from services.collector.file_sd import TargetFiles
from services.collector.publish import PublishError
from services.collector.service import Service
from services.collector.spool import Spool
from services.collector.spool_files import SpoolError
from services.collector.targets import Target, TargetError, parse_static
from services.direct.open import NotUsableError
from services.ops.health import OpsServer
from services.settings import Settings, SettingsError, changed

log = logging.getLogger("collector")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--targets", metavar="HOST:PORT,...", help="exporters to scrape (TARGETS)")
    parser.add_argument("--targets-files", metavar="GLOB,...", help="files in file_sd format (TARGETS_FILES)")
    parser.add_argument("--interval", type=float, metavar="SECONDS", help="between two scrapes (COLLECTION_INTERVAL)")
    parser.add_argument(
        "--to",
        choices=("kafka", "timescaledb"),
        help="where events go; timescaledb: straight into the database, without a broker (DESTINATION)",
    )
    parser.add_argument("--spool-dir", metavar="DIR", help="where events wait while it does not take them (SPOOL_DIR)")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Exit code 2: the settings cannot work; 1: the machine does not let it (port, disk) or it broke."""
    try:
        settings = with_arguments(args, settings)
        static = static_targets(settings)
        look(settings)
        with opened(settings) as bus:
            return _collect(settings, static, bus)
    except (SettingsError, TargetError, PublishError) as error:
        return _complain(error, 2)
    except NotUsableError as error:
        return _complain(error, 1)


def _collect(settings: Settings, static: list[Target], bus: Bus) -> int:
    try:
        spool = Spool(settings.spool_dir, settings.spool_max_bytes)
    except SpoolError as error:
        return _complain(error, 1)
    files = TargetFiles(settings.targets_files)
    files.refresh()
    _raise_descriptor_limit()
    return asyncio.run(_serve(settings, static, files, spool, bus))


def with_arguments(args: argparse.Namespace, settings: Settings) -> Settings:
    """What the command line says wins over the environment."""
    return changed(
        settings,
        targets=args.targets,
        targets_files=args.targets_files,
        collection_interval=args.interval,
        spool_dir=args.spool_dir,
        destination=args.to,
    )


def static_targets(settings: Settings) -> list[Target]:
    if not settings.targets and not settings.targets_files:
        raise SettingsError(
            "no targets: set TARGETS (for example TARGETS=localhost:9400) or TARGETS_FILES (file_sd format)"
        )
    return [parse_static(entry) for entry in settings.targets]


async def _serve(settings: Settings, static: list[Target], files: TargetFiles, spool: Spool, bus: Bus) -> int:
    service = Service(settings, static, files, spool, bus)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _stop_once, service, number)
    try:
        ops = OpsServer(settings.ops_host, settings.ops_port, live=service.live, ready=service.ready)
    except OSError as error:
        await service.discard()
        where = f"OPS_HOST={settings.ops_host} OPS_PORT={settings.ops_port}"
        return _complain(f"{where}: cannot listen there ({error.strerror}); give another port", 1)
    REGISTRY.register(service.metrics)
    with ops, contextlib.ExitStack() as stack:
        stack.callback(REGISTRY.unregister, service.metrics)
        return await service.run()


def _stop_once(service: Service, number: int) -> None:
    """A second signal kills as usual."""
    asyncio.get_running_loop().remove_signal_handler(number)
    service.request_stop()


def _raise_descriptor_limit() -> None:
    """Each target keeps a connection: take all descriptors the system allows (often 1,024 until asked)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _complain(problem: object, code: int) -> int:
    print(f"gpumon collector: {problem}", file=sys.stderr)
    return code
