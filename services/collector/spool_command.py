"""Role `spool`: what waits on disk while the destination does not take it; send it by hand or from a timer.

The spools below SPOOL_DIR, which `gpumon sample` uses beside a running collector, are looked at and sent as well.
What a running collector holds is left to it: it sends that by itself.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.collector import reasons
from services.collector import spool_files as files
from services.collector.deliver import PACE, Deliverer
from services.collector.destination import opened, words
from services.collector.publish import PublishError
from services.collector.spool import Spool
from services.ops.project import misplaced
from services.settings import Settings, SettingsError, changed

EXAMPLES = """examples:
  gpumon spool status                     what waits, since when, and why
  gpumon spool status --json              the same for programs (`_spool_reason` of each segment)
  gpumon spool flush                      send it where DESTINATION says
  gpumon spool flush --to timescaledb     send it straight into the database
  gpumon spool flush --unless-running     from a timer: not a word about what a running collector sends itself"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"{parser.epilog or ''}\n\n{EXAMPLES}"
    parser.add_argument("action", choices=("status", "flush"), help="status: look, change nothing; flush: send it all")
    parser.add_argument("--spool-dir", type=Path, metavar="DIR", help="default: SPOOL_DIR")
    parser.add_argument("--to", choices=("kafka", "timescaledb"), help="for flush: where to send (DESTINATION)")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="for flush (default 60)")
    parser.add_argument(
        "--unless-running",
        action="store_true",
        help="for flush from a timer: say nothing of what a running collector holds and sends itself",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Exit code 1: not everything could be sent that no collector holds, damaged files included."""
    try:
        settings = changed(settings, spool_dir=args.spool_dir, destination=args.to)
        result = status(settings.spool_dir) if args.action == "status" else flush(settings, args.timeout)
    except (files.SpoolError, PublishError, SettingsError) as error:
        return _complain(error)
    if args.json:
        print(json.dumps(result))
    else:
        print(_flushed(result, quiet=args.unless_running) if "flushed" in result else _status(result))
    hint = None if result["exists"] else misplaced(settings, "spool_dir")
    if hint:
        _complain(f"{settings.spool_dir.absolute()} was looked for: {hint}")
    unsent = ("records", "rejected", "damaged")
    return 1 if args.action == "flush" and any(result[name] for name in unsent) else 0


def _complain(problem: object) -> int:
    print(f"gpumon spool: {problem}", file=sys.stderr)
    return 1


# Status -------------------------------------------------------------------------------------------------------------


def status(directory: Path) -> dict[str, Any]:
    """Safe while a collector writes: nothing is locked, nothing changed. File names are relative to `directory`."""
    there = directory.is_dir()
    spools = files.all_spools(directory) if there else []
    try:
        segments = [segment for spool in spools for segment in files.look(spool)[0]]
    except OSError as error:
        raise files.SpoolError(f"SPOOL_DIR={directory}: cannot be read ({error.strerror})") from None
    aside = [path for spool in spools for path in files.aside(spool)]
    return {
        "directory": str(directory.absolute()),
        "exists": there,
        "records": sum(segment.records for segment in segments),
        "bytes": sum(map(_bytes, segments)),
        "segments": [
            {
                "file": str(s.path.relative_to(directory)),
                "_spool_reason": s.why,
                "since": s.identity,
                "records": s.records,
                "bytes": _bytes(s),
                "damaged": s.damaged,
            }
            for s in segments
        ],
        "set_aside": sorted(str(path.relative_to(directory)) for path in aside),
        "rejected": any((spool / files.REJECTED).exists() for spool in spools),
    }


def _bytes(segment: files.Segment) -> int:
    """On disk. What follows the last whole record counts where it is damage: else it is being written, or torn off."""
    return segment.size + (segment.torn if segment.damaged else 0)


# Flush --------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Sent:
    """What became of the records of one spool."""

    flushed: int = 0
    left: int = 0
    reason: str | None = None
    """Why they are left, by its raw name."""
    detail: str | None = None
    """The same in the destination's words."""
    rejected: int = 0
    """Records that the destination will never take."""


def flush(settings: Settings, timeout: float) -> dict[str, Any]:
    """Send everything, oldest first, one spool after the other; a running collector holds its own and does so itself.

    Raises SpoolError, PublishError.
    """
    directory = settings.spool_dir
    done: list[_Sent] = []
    in_use: list[dict[str, Any]] = []
    damaged: list[str] = []
    deadline: float | None = None
    for path in files.all_spools(directory) if directory.is_dir() else []:
        known = files.aside(path)
        try:
            spool = Spool(path, settings.spool_max_bytes)
        except files.SpoolLockedError as error:
            waiting = sum(segment.records for segment in files.look(path)[0])
            in_use.append({"directory": str(path), "pid": error.owner, "records": waiting})
            continue
        if spool.empty:
            spool.close()
        else:
            if deadline is None:
                deadline = time.monotonic() + timeout
                print(f"gpumon spool: sending what is in {path}: trying for {timeout:g} s (--timeout)", file=sys.stderr)
            done.append(_flush_one(settings, spool, deadline))
        damaged += sorted(str(kept.absolute()) for kept in files.aside(path) - known)
    stuck = next((sent for sent in done if sent.left), _Sent())
    return {
        "directory": str(directory.absolute()),
        "exists": directory.is_dir(),
        "flushed": sum(sent.flushed for sent in done),
        "records": sum(sent.left for sent in done),
        "rejected": sum(sent.rejected for sent in done),
        "damaged": damaged,
        "reason": stuck.reason,
        "detail": stuck.detail,
        "in_use": in_use,
    }


def _flush_one(settings: Settings, spool: Spool, deadline: float) -> _Sent:
    """Until it is empty, or `deadline` (monotonic seconds)."""
    with _quiet(), opened(settings) as bus:
        deliverer = Deliverer(bus, spool)
        _turn(deliverer, spool, deadline)
        left = spool.records
        reason = deliverer.failing or reasons.NO_ANSWER
        detail = words(bus, settings) if left else None
        deliverer.finish(0)
    rejected = sum(deliverer.counts.refused.values())
    return _Sent(deliverer.counts.flushed, left, reason if left else None, detail, rejected)


@contextmanager
def _quiet() -> Iterator[None]:
    """The result gives the reason, once."""
    log = logging.getLogger("collector")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _turn(deliverer: Deliverer, spool: Spool, deadline: float) -> None:
    while not spool.empty and time.monotonic() < deadline:
        deliverer.step()
        if not deliverer.flushing:
            time.sleep(PACE)


# For people ---------------------------------------------------------------------------------------------------------


def _missing(result: dict[str, Any]) -> str:
    return f"{result['directory']} does not exist: nothing was ever spooled there (SPOOL_DIR says which directory)"


def _flushed(result: dict[str, Any], *, quiet: bool) -> str:
    """`quiet`: nothing of what collectors hold."""
    if not result["exists"]:
        return _missing(result)
    text = f"flushed {_records(result['flushed'])}; {result['records']} left in {result['directory']}"
    if result["records"]:
        text += f": {reasons.words(result['reason'])}" + (f": {result['detail']}" if result["detail"] else "")
    never = f"{_records(result['rejected'])} will never be taken: kept in {files.REJECTED}"
    lines = [text, never] if result["rejected"] else [text]
    lines += [f"damaged, kept for a look: {path}" for path in result["damaged"]]
    lines += [] if quiet else [_held(item) for item in result["in_use"]]
    return "\n".join(lines)


def _held(item: dict[str, Any]) -> str:
    who = f"with the running collector (pid {item['pid'] or 'not known'}), which sends it itself"
    return f"the rest is {who}: {_records(item['records'])} in {item['directory']}"


def _records(count: int) -> str:
    return f"{count} record{'s'[: count != 1]}"


def _status(result: dict[str, Any]) -> str:
    if not result["exists"]:
        return _missing(result)
    lines = [f"{result['directory']}: {_records(result['records'])}, {result['bytes']} bytes"]
    lines += [f"  {_segment(segment)}" for segment in result["segments"]]
    lines += [f"  set aside: {name}" for name in result["set_aside"]]
    lines += [f"  {files.REJECTED}: events the destination will never take"] if result["rejected"] else []
    return "\n".join(lines)


def _segment(told: dict[str, Any]) -> str:
    if told["damaged"] and not told["records"]:
        return f"{told['file']}  unreadable ({told['damaged']})  {told['bytes']} bytes"
    words = reasons.words(told["_spool_reason"])
    words += f"; {told['damaged']}" if told["damaged"] else ""
    return f"{told['file']}  {_records(told['records'])}  {told['bytes']} bytes  since {told['since']}  {words}"
