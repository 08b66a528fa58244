"""Role `status`, and what other roles use to say what this host is doing: `status.json` {"tag", "memo"}.

Readers (`services.collector.host_status`) look at the file while it is written: it is replaced whole, never edited.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from services.collector.host_status import StatusFileError, load
from services.contract.event import Status
from services.host import status_lock
from services.ops.project import misplaced
from services.ops.regular_file import check_regular
from services.settings import Settings

SUGGESTED: Final = ("idle", "prod", "bench")
"""Normal baseline; real use; stress and benchmarks. Any other word is taken as well."""
MODE: Final = 0o644
"""The collector may run as another user than the one who sets the status."""


class StatusError(Exception):
    """The file cannot be used; the message says what is wrong, where, and what to do."""


def make(tag: str, memo: str | None = None) -> Status:
    """A status that the event's contract takes. Raises StatusError."""
    if not tag.strip():
        raise StatusError(f"the tag is empty; usual tags: {', '.join(SUGGESTED)}")
    for name, text in (("tag", tag), ("memo", memo or "")):
        if not all(char.isprintable() for char in text):
            raise StatusError(f"{name} {text!r}: control characters and broken UTF-8 cannot be stored; give one line")
    try:
        return msgspec.convert({"tag": tag, "memo": memo or None}, Status)
    except msgspec.ValidationError as error:
        raise StatusError(f"the status is not valid: {error}") from None


def read(path: Path) -> Status | None:
    """None where there is no file. Raises StatusError for one that holds no status or cannot be read."""
    try:
        return load(path)
    except FileNotFoundError:
        return None
    except StatusFileError as error:
        raise StatusError(f"STATUS_FILE={path}: {error}") from None


def write(path: Path, status: Status | None) -> None:
    """Replace the file whole, synced; None takes it away. Raises StatusError, also where it is no regular file: as
    root, a device would be gone."""
    target = Path(os.path.realpath(path))  # a link stays a link
    try:
        with suppress(FileNotFoundError):
            check_regular(target.stat(), target)
        if status is None:
            target.unlink(missing_ok=True)
        else:
            _replace(target, msgspec.json.encode(status) + b"\n")
    except OSError as error:
        advice = "set STATUS_FILE to a file in a directory that exists and that you may write to"
        raise StatusError(f"STATUS_FILE={path}: cannot be written ({error.strerror}); {advice}") from None


def _replace(path: Path, content: bytes) -> None:
    """A reader sees the old content or the new one, also after a power cut."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(file.fileno(), MODE)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def remembered(path: Path) -> Status | None:
    """What to come back to after a run: the status there is; None where there is none, or nonsense."""
    try:
        return read(path)
    except StatusError:
        return None


@contextmanager
def during(path: Path, tag: str, memo: str | None = None, *, final: Status | None = None) -> Iterator[None]:
    """`tag` and `memo` while the block runs (it may `write` others); on any end `final`, else what was there before.

    A signal ends the block only where it is turned into an exception. Raises StatusError.
    """
    before = remembered(path)
    write(path, make(tag, memo))
    try:
        yield
    finally:
        write(path, final if final is not None else before)


# The command ----------------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`set TAG [MEMO]`, `show`, `clear`."""
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    setting = actions.add_parser(
        "set",
        help="say what this host is doing from now on",
        description="Every sample of this host carries tag and memo from the next scrape on, until they are changed.",
        epilog='example: gpumon status set prod "inference (Open-WebUI/ollama)"',
    )
    setting.add_argument("tag", metavar="TAG", help=f"{', '.join(SUGGESTED)}, or a word of your own")
    setting.add_argument("memo", metavar="MEMO", nargs="?", help="free text, for example what is being run")
    show = actions.add_parser("show", help="what is set", epilog="example: gpumon status show --json")
    show.add_argument("--json", action="store_true", help="one JSON object on stdout")
    clear = actions.add_parser("clear", help="samples carry no status any more", epilog="example: gpumon status clear")
    for action in (setting, show, clear):
        action.add_argument("--status-file", type=Path, metavar="FILE", help="default: STATUS_FILE")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Exit code 1: no usable status (show), or the file cannot be written."""
    path: Path = args.status_file or settings.status_file
    hint = None if args.status_file else misplaced(settings, "status_file")
    try:
        if args.action == "show":
            return _show(path, as_json=args.json, hint=hint)
        wanted = make(args.tag, args.memo) if args.action == "set" else None
        nonsense = _nonsense(path)
        write(path, wanted)
        holder = status_lock.holder(path)
    except StatusError as error:
        print(f"gpumon status: {error}", file=sys.stderr)
        return 1
    print(_line(path, args.tag, args.memo) if args.action == "set" else f"no status any more ({path.absolute()})")
    if nonsense:
        print(f"gpumon status: {nonsense}: it is replaced", file=sys.stderr)
    if holder:
        print(f"gpumon status: warning: a burn or benchmark (process {holder}) holds the status: its next phase "
              "overwrites this, and its end puts back what was there before it", file=sys.stderr)  # fmt: skip
    if hint:
        done = "written" if args.action == "set" else "cleared"
        print(f"gpumon status: warning: {path.absolute()} was {done}, which a collector may not look at: {hint}",
              file=sys.stderr)  # fmt: skip
    return 0


def _nonsense(path: Path) -> str | None:
    """What is wrong with the file that is there, if anything."""
    try:
        read(path)
    except StatusError as error:
        return str(error)
    return None


def _show(path: Path, *, as_json: bool, hint: str | None) -> int:
    try:
        status = read(path)
        problem = None if status is not None else f"{path.absolute()} does not exist: samples carry no status"
    except StatusError as error:
        status, problem = None, str(error)
    if status is None or problem is not None:
        if as_json:
            print(json.dumps({"file": str(path.absolute()), "problem": problem}))
        advice = hint or 'set one with `gpumon status set idle "baseline"`'
        print(f"gpumon status: {problem}; {advice}", file=sys.stderr)
        return 1
    since = dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC).isoformat(timespec="seconds")
    if as_json:
        print(json.dumps({"file": str(path.absolute()), "tag": status.tag, "memo": status.memo, "since": since}))
    else:
        print(f"{_line(path, status.tag, status.memo)}  since {since}")
    return 0


def _line(path: Path, tag: str | None, memo: str | None) -> str:
    return f"{tag or '(no tag)'}{f'  {memo}' if memo else ''}  ({path.absolute()})"
