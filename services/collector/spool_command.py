"""Role `spool`: what waits on disk while the destination does not take it; send it by hand or from a timer.

The spools below SPOOL_DIR, which `gpumon sample` uses beside a running collector, are looked at and sent as well.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from services.collector import spool_files as files
from services.collector.deliver import PACE, Bus, Deliverer
from services.collector.destination import opened, words
from services.collector.publish import PublishError
from services.collector.spool import Spool
from services.settings import Settings, SettingsError, changed

EXAMPLES = """examples:
  gpumon spool status                     what waits, since when, and why
  gpumon spool status --json              the same for programs (`_spool_reason` of each segment)
  gpumon spool flush                      send it where DESTINATION says
  gpumon spool flush --to timescaledb     send it straight into the database
  gpumon spool flush --unless-running     from a timer: what a running collector holds is left to it"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"{parser.epilog or ''}\n\n{EXAMPLES}"
    parser.add_argument("action", choices=("status", "flush"), help="status: look, change nothing; flush: send it all")
    parser.add_argument("--spool-dir", type=Path, metavar="DIR", help="default: SPOOL_DIR")
    parser.add_argument("--to", choices=("kafka", "timescaledb"), help="for flush: where to send (DESTINATION)")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="for flush (default 60)")
    parser.add_argument(
        "--unless-running",
        action="store_true",
        help="for flush from a timer: a spool that a running collector holds is left to it without complaint",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Exit code 1: not everything could be sent."""
    try:
        settings = changed(settings, spool_dir=args.spool_dir, destination=args.to)
        if args.action == "status":
            result = status(settings.spool_dir)
            failed = False
        else:
            result = flush(settings, args.timeout)
            failed = result["records"] > 0 or (bool(result["in_use"]) and not args.unless_running)
    except (files.SpoolError, PublishError, SettingsError) as error:
        print(f"gpumon spool: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result) if args.json else _text(result))
    for problem in result.get("in_use", ()) if not args.unless_running else ():
        print(f"gpumon spool: {problem}", file=sys.stderr)
    return 1 if failed else 0


# Status -------------------------------------------------------------------------------------------------------------


def status(directory: Path) -> dict[str, Any]:
    """Safe while a collector writes: nothing is locked, nothing changed. File names are relative to `directory`."""
    there = directory.is_dir()
    spools = files.all_spools(directory) if there else []
    segments = [segment for spool in spools for segment in files.look(spool)[0]]
    aside = [path for spool in spools for path in spool.glob(f"*{files.ASIDE}")]
    return {
        "directory": str(directory),
        "exists": there,
        "records": sum(segment.records for segment in segments),
        "bytes": sum(segment.size for segment in segments),
        "segments": [
            {
                "file": str(s.path.relative_to(directory)),
                "_spool_reason": s.why,
                "since": s.identity,
                "records": s.records,
                "bytes": s.size,
            }
            for s in segments
        ],
        "set_aside": sorted(str(path.relative_to(directory)) for path in aside),
        "rejected": any((spool / files.REJECTED).exists() for spool in spools),
    }


# Flush --------------------------------------------------------------------------------------------------------------


def flush(settings: Settings, timeout: float) -> dict[str, Any]:
    """Send everything, oldest first, one spool after the other; a running collector holds its own and does so itself.

    Raises SpoolError, PublishError.
    """
    directory = settings.spool_dir
    flushed, left = 0, 0
    failures: Counter[str] = Counter()
    in_use: list[str] = []
    detail: str | None = None
    deadline = time.monotonic() + timeout
    for path in files.all_spools(directory) if directory.is_dir() else []:
        try:
            spool = Spool(path, settings.spool_max_bytes)
        except files.SpoolLockedError as error:
            in_use.append(f"{error}; it flushes the spool by itself as soon as the destination answers")
            continue
        with opened(settings) as bus:
            sent, waiting = _flush_one(spool, bus, deadline)
            failures.update(bus.errors)
            detail = words(bus, settings) if waiting else detail
        flushed += sent
        left += waiting
    return {
        "directory": str(directory),
        "exists": directory.is_dir(),
        "flushed": flushed,
        "records": left,
        "failures": dict(failures),
        "detail": detail,
        "in_use": in_use,
    }


def _flush_one(spool: Spool, bus: Bus, deadline: float) -> tuple[int, int]:
    """(records sent, records left)"""
    deliverer = Deliverer(bus, spool)
    while not spool.empty and time.monotonic() < deadline:
        deliverer.step()
        if not deliverer.flushing:
            time.sleep(PACE)
    left = spool.records
    deliverer.finish(0)
    return deliverer.counts.flushed, left


# For people ---------------------------------------------------------------------------------------------------------


def _text(result: dict[str, Any]) -> str:
    if not result["exists"]:
        return f"{result['directory']} does not exist: nothing was ever spooled there (SPOOL_DIR says which directory)"
    if "flushed" in result:
        failures = ", ".join(f"{name}: {count}" for name, count in result["failures"].items()) or "none"
        sent, left = f"flushed {result['flushed']} records", f"{result['records']} left in {result['directory']}"
        return f"{sent}; {left}; failures: {failures}" + (f" ({result['detail']})" if result["detail"] else "")
    lines = [f"{result['directory']}: {result['records']} records, {result['bytes']} bytes"]
    lines += [
        f"  {s['file']}  {s['records']} records  {s['bytes']} bytes  since {s['since']}  {s['_spool_reason']}"
        for s in result["segments"]
    ]
    lines += [f"  set aside: {name}" for name in result["set_aside"]]
    lines += [f"  {files.REJECTED}: events the destination will never take"] if result["rejected"] else []
    return "\n".join(lines)
