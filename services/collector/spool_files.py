"""The spool's directory: which segments lie there, what can be read of them, and how far they have been sent.

Looking changes nothing (`gpumon spool status` looks while a collector writes); `repair` is for the owner of the lock.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.collector import segment as fmt
from services.collector.batch import Message
from services.ops.regular_file import check_regular, read_regular

log = logging.getLogger("collector.spool")

SUFFIX: Final = ".spool"
ASIDE: Final = ".corrupt"
_NAME: Final = re.compile(r"[0-9]{1,18}" + re.escape(SUFFIX))
"""Of a segment. Anything else is somebody else's."""
_LOCK: Final = "lock"
_POSITION: Final = "position.json"
_POSITION_BYTES: Final = 64 * 1024
_SEGMENT_BYTES: Final = 1024 * 1024 * 1024
"""A segment ends behind the turn in which it reaches 16 MiB (`Spool`); the largest turn is about 200 MB."""
REJECTED: Final = "rejected.jsonl"
BESIDE: Final = tuple(f"sample-{number}" for number in range(1, 10))
"""Spools below SPOOL_DIR, for commands beside the collector that owns it, and beside each other (`gpumon sample`). The
collector sends them as well (`services.collector.beside`)."""


class SpoolError(Exception):
    """The spool cannot do what was asked; the message says why and what to do. `reason` labels a metric."""

    reason = "spool_unwritable"


class SpoolFullError(SpoolError):
    reason = "spool_full"


class SpoolLockedError(SpoolError):
    owner = ""
    """Process id of who holds the spool, as it wrote it down."""


@dataclass(slots=True)
class Segment:
    """One file of the spool."""

    path: Path
    size: int
    """Bytes up to the end of the last record that is safely on disk."""
    first: int
    """Offset of the first record."""
    records: int
    """Not sent yet."""
    why: str
    """`_spool_reason` of the header."""
    identity: str
    """The header's time: distinguishes two files of one name."""
    torn: int = 0
    """Bytes behind the last whole record: a crash in mid-write."""
    damaged: str | None = None
    """Why the file is kept for a look after its readable records were sent."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far the spool has been sent: everything before `offset` of `segment`."""

    segment: str
    identity: str
    offset: int


def all_spools(directory: Path) -> list[Path]:
    """SPOOL_DIR, and the spools below it that there are."""
    return [directory, *(path for name in BESIDE if (path := directory / name).is_dir())]


def look(directory: Path) -> tuple[list[Segment], int]:
    """(segments in order, offset of the first unsent record in the first one)."""
    position = read_position(directory)
    segments: list[Segment] = []
    start = 0
    for path in segment_paths(directory):
        try:
            found, scan = _look_at(path)
        except FileNotFoundError:
            continue  # sent and deleted since it was listed
        if not segments:
            start = _resume(found, scan, position)
            found.records = sum(offset >= start for offset in scan.offsets)
        segments.append(found)
    return segments, start


def segment_paths(directory: Path) -> list[Path]:
    """Regular files with the name of a segment, in order. Raises OSError for a directory that cannot be listed."""
    with os.scandir(directory) as entries:
        return sorted(Path(entry.path) for entry in entries if _NAME.fullmatch(entry.name) and entry.is_file())


def last_number(directory: Path) -> int:
    """The highest that is taken, by whatever kind of file. Raises OSError."""
    names = (name for name in os.listdir(directory) if _NAME.fullmatch(name))
    return max((int(name.removesuffix(SUFFIX)) for name in names), default=0)


def _look_at(path: Path) -> tuple[Segment, fmt.Scan]:
    size = path.stat().st_size
    try:
        data = read_regular(path, _SEGMENT_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        unreadable = Segment(path, 0, 0, 0, "", "", torn=size, damaged=error.strerror or str(error))
        return unreadable, fmt.Scan(0, 0, (), False)
    found = fmt.scan(data)
    line = fmt.read_header(data)[0] or {}
    segment = Segment(
        path, found.end, found.first, len(found.offsets), str(line.get("_spool_reason", "")), str(line.get("time", ""))
    )
    segment.torn = len(data) - found.end
    if found.damaged:
        segment.damaged = "damaged between whole records: some are lost"
    elif not found.offsets and not line and not _is_torn_header(data):
        segment.damaged = "no header and no whole record"
    return segment, found


def _is_torn_header(data: bytes) -> bool:
    """What a crash leaves of a file just begun: nothing, a beginning of the first line, or zeros not yet written."""
    return not data.strip(b"\0") or (b"\n" not in data and data.rstrip(b"\0").startswith(b"{"))


def _resume(segment: Segment, scan: fmt.Scan, position: Position | None) -> int:
    """Where to go on. A position that does not fit means sending the segment again: the table removes repeats."""
    if position is None or (position.segment, position.identity) != (segment.path.name, segment.identity):
        return scan.first
    fits = position.offset == scan.end or position.offset in scan.offsets
    return position.offset if fits else scan.first


def read_position(directory: Path) -> Position | None:
    try:
        data = json.loads(read_regular(directory / _POSITION, _POSITION_BYTES))
        position = Position(str(data["segment"]), str(data["identity"]), int(data["offset"]))
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return position if _NAME.fullmatch(position.segment) else None


def write_position(directory: Path, position: Position) -> None:
    """Atomic, not synced: an older position after a power cut costs repeats, not records."""
    line = {"segment": position.segment, "identity": position.identity, "offset": position.offset}
    temporary = directory / f"{_POSITION}.new"
    temporary.write_text(json.dumps(line))
    temporary.replace(directory / _POSITION)


def repair(segments: list[Segment]) -> list[Segment]:
    """Cut torn tails, set aside what cannot be read; returns the segments that hold records."""
    usable = []
    for segment in segments:
        if segment.torn and not (segment.damaged and not segment.records):
            os.truncate(segment.path, segment.size)
            log.warning(
                "cut an unfinished write off a spool segment: it had not been accepted",
                extra={"segment": segment.path.name, "bytes": segment.torn},
            )
            segment.torn = 0
        if segment.records:
            usable.append(segment)
        else:
            discard(segment)
    return usable


def discard(segment: Segment) -> None:
    """Everything readable was sent: delete the file, or keep a damaged one under another name, with the reason."""
    if segment.damaged is None:
        segment.path.unlink(missing_ok=True)
        return
    aside = _free(segment.path)
    log.error(
        "spool segment set aside; look at it and delete it",
        extra={"segment": segment.path.name, "reason": segment.damaged, "kept_as": str(aside)},
    )
    segment.path.replace(aside)
    aside.with_name(aside.name + ".json").write_text(json.dumps({"reason": segment.damaged}) + "\n")


def _free(path: Path) -> Path:
    """A name to set `path` aside under; numbers begin anew where the position is lost, and names with them."""
    for number in itertools.count():
        name = path.with_name(f"{path.name}{f'.{number}' if number else ''}{ASIDE}")
        if not name.exists():
            return name
    raise AssertionError  # there is no last number


def aside(directory: Path) -> set[Path]:
    """What was set aside."""
    return set(directory.glob(f"*{ASIDE}"))


def reject(directory: Path, messages: list[Message], reason: str) -> None:
    """Append to `rejected.jsonl`, one JSON object a line."""
    with (directory / REJECTED).open("a") as file:
        for topic, key, value in messages:
            line = {"reason": reason, "topic": topic, "key": key, "value": value.decode(errors="replace")}
            file.write(json.dumps(line) + "\n")


def lock(directory: Path) -> int:
    """Make the directory if need be and take it for this process; returns the descriptor that holds the lock."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        _check_lock(descriptor, directory / _LOCK)
    except OSError as error:
        raise SpoolError(
            f"SPOOL_DIR={directory}: cannot be written to ({error.strerror}); give a writable directory"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        locked = SpoolLockedError(
            f"SPOOL_DIR={directory}: in use by the collector with process id {owner or '(not known)'}; "
            "give each collector a directory of its own"
        )
        locked.owner = owner
        raise locked from None
    os.truncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _check_lock(descriptor: int, path: Path) -> None:
    try:
        check_regular(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise


def sync_directory(directory: Path) -> None:
    """Make the names of new files survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
