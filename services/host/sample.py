"""Role `sample`: read the GPUs once, show a line for each, and send the very events the collector would.

The exposition is rendered as `gpumon exporter` renders it and read as `gpumon collector` reads it. A sample has no
past: it tells values, not what happened between two of them (counter resets, XIDs, GPUs that went), and leaves alone
what a running collector remembers.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import logging
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from services.collector.batch import Batch, encode_scrape
from services.collector.host_status import StatusFile, is_local
from services.collector.reader import ScrapeRefused, TargetReader
from services.collector.scrape import ScrapeFailedError, Scraper
from services.collector.targets import Target, TargetError, choose, parse_static
from services.contract.event import Event, Status
from services.exporter.choose import NeitherError, open_source
from services.exporter.counters_file import CountersFileError, everything, load
from services.exporter.reading import Lost, SourceError
from services.exporter.render import Renderer
from services.host.send import Delivery, SendError, deliver
from services.settings import Settings, SettingsError, changed, hostname

SOURCE: Final = "sample"
"""`source` of events that were read on this host: no scrape target."""


class SampleError(Exception):
    """The GPUs could not be read; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Exposition:
    """What is to be sent, as text."""

    target: Target
    body: bytes
    time: dt.datetime
    lost: tuple[Lost, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Read the GPUs of this host once, print a line for each, and send the sample. Where the next hop does not take "
        "it, it is kept in SPOOL_DIR with the reason (`gpumon spool status`) and sent by a running collector, by "
        "`gpumon spool flush`, or with the next sample. A sample has no past: no counter resets, no XIDs."
    )
    parser.add_argument("--to", choices=("kafka", "timescaledb"), help="where to send (DESTINATION; default kafka)")
    parser.add_argument(
        "--source", choices=("auto", "nvml", "nvidia-smi", "mock"), help="how to read the GPUs (EXPORTER_SOURCE)"
    )
    parser.add_argument("--targets", metavar="URL,...", help="scrape these exporters instead of reading the GPUs")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="for sending (default 10)")
    parser.add_argument("--dry-run", action="store_true", help="read and print, send nothing")
    parser.add_argument("--json", action="store_true", help="the events, and where they went, on stdout")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Exit code 0: sent, or kept in the spool (with a warning); 1: not read, or neither sent nor kept."""
    logging.getLogger("collector").setLevel(logging.ERROR)  # the last line says it all
    try:
        settings = changed(settings, destination=args.to, exporter_source=args.source)
        expositions = scrape(settings, args.targets) if args.targets else [read_host(settings)]
        batches, events = _read_all(settings, expositions)
        delivery = None if args.dry_run else deliver(settings, batches, args.timeout)
    except (SettingsError, TargetError) as error:
        return _complain(error, 2)
    except (SampleError, SendError) as error:
        return _complain(error, 1)
    lost = [item for exposition in expositions for item in exposition.lost]
    if args.json:
        print(json.dumps(_document(events, lost, delivery)))
    else:
        _print(events, lost, delivery)
    if delivery is not None and delivery.problem:
        print(f"gpumon sample: {delivery.problem}", file=sys.stderr)
    return 1 if delivery is not None and delivery.refused else 0


def _complain(problem: object, code: int) -> int:
    print(f"gpumon sample: {problem}", file=sys.stderr)
    return code


# Reading ------------------------------------------------------------------------------------------------------------


def read_host(settings: Settings) -> Exposition:
    """The GPUs of this host, through the exporter's source and renderer. Raises SampleError."""
    node = settings.node_name or hostname()
    try:
        selection = load(settings.exporter_collectors) if settings.exporter_collectors else everything()
        with closing(open_source(settings)) as source:
            sweep = source.read()
    except NeitherError as error:
        raise SampleError("\n  ".join(("no GPU can be read", *error.lines))) from None
    except (SourceError, CountersFileError) as error:
        raise SampleError(str(error)) from None
    if not sweep.readings:
        lost = "; ".join(f"GPU {item.index if item.index is not None else '?'}: {item.reason}" for item in sweep.lost)
        raise SampleError(f"{sweep.source} finds no GPU to read{f' ({lost})' if lost else ''}: `gpumon doctor`")
    body = Renderer(selection, node).render(sweep).encode()
    target = Target(node, "", SOURCE, _location(settings))
    return Exposition(target, body, _utc(sweep.time), sweep.lost)


def scrape(settings: Settings, targets: str) -> list[Exposition]:
    """The exporters named, each once. Raises SampleError, TargetError."""
    listed = [parse_static(entry.strip()) for entry in targets.split(",") if entry.strip()]
    chosen = choose(listed, _location(settings), 0, 1)

    async def fetch() -> list[bytes]:
        scraper = Scraper(settings.timeout, settings.max_scrape_bytes)
        try:
            return [await scraper.fetch(target) for target in chosen]
        except ScrapeFailedError as error:
            raise SampleError(f"{targets}: {error}") from None
        finally:
            await scraper.close()

    now = _utc(time.time())
    return [Exposition(target, body, now) for target, body in zip(chosen, asyncio.run(fetch()), strict=True)]


def _location(settings: Settings) -> dict[str, str]:
    """As the collector puts it on its targets: the identity of a GPU must not depend on who reads it."""
    given = {"cluster": settings.cluster, "datacenter": settings.datacenter, "rack": settings.rack}
    return {name: value for name, value in given.items() if value}


def _utc(seconds: float) -> dt.datetime:
    """Whole milliseconds, as all samples."""
    return dt.datetime.fromtimestamp(round(seconds * 1000) / 1000, dt.UTC)


def _read_all(settings: Settings, expositions: list[Exposition]) -> tuple[list[Batch], list[Event]]:
    status_file = StatusFile(settings.status_file)
    batches: list[Batch] = []
    events: list[Event] = []
    for exposition in expositions:
        source, local = exposition.target.source, is_local(exposition.target.address, hostname())
        here = source == SOURCE or local
        found = _read(exposition, status_file.read() if here else None)
        messages = encode_scrape(found, (), settings.kafka_topic, settings.kafka_topic_events, source)
        batches.append(Batch(source, messages))
        events += found
    return batches, events


def _read(exposition: Exposition, status: Status | None) -> list[Event]:
    reader = TargetReader(exposition.target.source, exposition.target.labels)
    try:
        return reader.read(exposition.body, exposition.time, status).events
    except ScrapeRefused as refused:
        raise SampleError(f"{exposition.target.source}: {refused.reason}: {refused}") from None


# Showing ------------------------------------------------------------------------------------------------------------


def _print(events: list[Event], lost: list[Lost], delivery: Delivery | None) -> None:
    where = "" if delivery is None else f"  -> {delivery.where}"
    for event in events:
        print(line(event) + where)
    for item in lost:
        print(f"GPU {'?' if item.index is None else item.index}  {item.model or ''}  LOST: {item.reason}")


def line(event: Event) -> str:
    """One GPU for people: `host GPU 0  Tesla P40  31 C  50.1 W  0 %  120/24576 MiB  [bench gpu-burn]`."""
    gpu, metrics = event.gpu, event.metrics
    name = f"{gpu.hostname} GPU {'?' if gpu.index is None else gpu.index}"
    if gpu.instance_id is not None:
        name += f"/{gpu.instance_id} {gpu.instance_profile or ''}".rstrip()
    tag = ""
    if event.status is not None and event.status.tag is not None:
        tag = f"[{' '.join(filter(None, (event.status.tag, event.status.memo)))}]"
    cells = (
        name,
        gpu.model,
        _cell(metrics.gpu_temp, "C"),
        _cell(metrics.power_usage, "W"),
        _cell(metrics.gpu_util, "%"),
        _memory(metrics.fb_used, None if gpu.properties is None else gpu.properties.fb_total),
        tag,
    )
    return "  ".join(cell for cell in cells if cell)


def _cell(value: float | None, unit: str) -> str:
    """`-`: the GPU does not say."""
    return f"- {unit}" if value is None else f"{round(value, 1):g} {unit}"


def _memory(used: int | None, total: int | None) -> str:
    return f"{'-' if used is None else used}/{'-' if total is None else total} MiB"


def _document(events: list[Event], lost: list[Lost], delivery: Delivery | None) -> dict[str, Any]:
    return {
        "events": [msgspec.to_builtins(event) for event in events],
        "lost": [{"index": i.index, "uuid": i.uuid, "pci_bus_id": i.pci_bus_id, "reason": i.reason} for i in lost],
        "delivery": None if delivery is None else delivery.document(),
    }
