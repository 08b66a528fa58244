"""Role `spool`: what the collector keeps on disk while Kafka is away; send it by hand when no collector runs."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from services.collector import spool_files as files
from services.collector.deliver import PACE, Deliverer
from services.collector.publish import Publisher, PublishError, collector_config
from services.collector.spool import Spool
from services.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", choices=("status", "flush"), help="status: look, change nothing; flush: send to Kafka"
    )
    parser.add_argument("--spool-dir", type=Path, metavar="DIR", help="default: SPOOL_DIR")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="for flush (default 60)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Exit code 1: not everything could be sent."""
    directory: Path = args.spool_dir or settings.spool_dir
    try:
        result = status(directory) if args.action == "status" else flush(directory, settings, args.timeout)
    except (files.SpoolError, PublishError) as error:
        print(f"gpumon spool: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result) if args.json else _text(result))
    return 0 if args.action == "status" or result["records"] == 0 else 1


def status(directory: Path) -> dict[str, Any]:
    """Safe while a collector writes: nothing is locked, nothing changed."""
    segments, _ = files.look(directory) if directory.is_dir() else ([], 0)
    return {
        "directory": str(directory),
        "records": sum(segment.records for segment in segments),
        "bytes": sum(segment.size for segment in segments),
        "segments": [
            {"file": s.path.name, "reason": s.why, "since": s.identity, "records": s.records, "bytes": s.size}
            for s in segments
        ],
        "set_aside": sorted(path.name for path in directory.glob(f"*{files.ASIDE}")),
        "rejected": (directory / files.REJECTED).exists(),
    }


def flush(directory: Path, settings: Settings, timeout: float) -> dict[str, Any]:
    """Send everything, oldest first; a running collector holds the lock and does so itself."""
    if not directory.is_dir():
        return {"directory": str(directory), "flushed": 0, "records": 0, "failures": {}}
    try:
        spool = Spool(directory, settings.spool_max_bytes)
    except files.SpoolLockedError as error:
        raise files.SpoolError(f"{error}; it flushes the spool by itself as soon as Kafka answers") from None
    publisher = Publisher(collector_config(settings))
    deliverer = Deliverer(publisher, spool)
    deadline = time.monotonic() + timeout
    while not spool.empty and time.monotonic() < deadline:
        deliverer.step()
        if not deliverer.flushing:
            time.sleep(PACE)
    left = spool.records
    deliverer.finish(0)
    return {
        "directory": str(directory),
        "flushed": deliverer.counts.flushed,
        "records": left,
        "failures": dict(publisher.errors),
    }


def _text(result: dict[str, Any]) -> str:
    if "flushed" in result:
        failures = ", ".join(f"{name}: {count}" for name, count in result["failures"].items()) or "none"
        sent, left = f"flushed {result['flushed']} records", f"{result['records']} left in {result['directory']}"
        return f"{sent}; {left}; failures: {failures}"
    lines = [f"{result['directory']}: {result['records']} records, {result['bytes']} bytes"]
    lines += [
        f"  {s['file']}  {s['records']} records  {s['bytes']} bytes  since {s['since']}  {s['reason']}"
        for s in result["segments"]
    ]
    lines += [f"  set aside: {name}" for name in result["set_aside"]]
    lines += [f"  {files.REJECTED}: events Kafka will never take"] if result["rejected"] else []
    return "\n".join(lines)
