"""Role `dlq`: list, show and replay dead letters.

Replay sends the original bytes, key and headers back to the source topic, with the header `replayed_from`. A marker in
the topic of dead letters says that it was done, so doing it again does nothing. A letter that was refused *after* a
replay is not replayed again, unless asked for by name with --again: what refuses it is still there.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from services.bus.clients import producer_config, reader_config
from services.ops.clock import SystemClock
from services.settings import Settings
from services.sink.dead_letters import REPLAYED, REPLAYED_FROM, DeadLetter
from services.sink.letter_reader import Letters, NoLettersTopicError, read_all
from services.sink.validate import Reason

log = logging.getLogger("dlq")

CLIENT_ID: Final = "gpumon-dlq"
FLUSH_TIMEOUT: Final = 30.0
"""Seconds for all replayed letters to be acknowledged."""
CHUNK: Final = 10_000
"""Letters sent before waiting: a tenth of what the client queues."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`list`, `show NAME...`, `replay (NAME... | --all)`."""
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    listing = actions.add_parser(
        "list", help="what was refused, and why", epilog="example: gpumon dlq list --reason range"
    )
    show = actions.add_parser(
        "show", help="letters with their bytes", epilog="example: gpumon dlq show gpu-metrics-raw/3/1042"
    )
    replay = actions.add_parser(
        "replay",
        help="send letters back to their topic",
        epilog="example: gpumon dlq replay --reason unsupported_version",
    )
    for action in (listing, replay):
        action.add_argument("--reason", choices=[str(reason) for reason in Reason], help="only these")
        action.add_argument("--limit", type=int, metavar="N", help="at most N, oldest first")
    for action in (listing, show, replay):
        action.add_argument("--json", action="store_true", help="JSON on stdout")
    show.add_argument("names", nargs="+", metavar="topic/partition/offset")
    replay.add_argument("names", nargs="*", metavar="topic/partition/offset")
    replay.add_argument("--all", action="store_true", help="all letters")
    replay.add_argument("--again", action="store_true", help="also what was replayed before")
    replay.add_argument("--dry-run", action="store_true", help="say what would be done")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """0 done, 1 failed, with one line that says why."""
    try:
        return _act(args, settings)
    except (NoLettersTopicError, UnknownLetterError) as error:
        sys.stderr.write(f"gpumon dlq: {error}\n")
    except KafkaException as error:
        sys.stderr.write(f"gpumon dlq: {settings.kafka_bootstrap}: {error.args[0].str()}\n")
    return 1


class UnknownLetterError(Exception):
    """A name on the command line is no letter."""


def _act(args: argparse.Namespace, settings: Settings) -> int:
    consumer = Consumer(reader_config(settings, CLIENT_ID))
    try:
        letters = Letters(read_all(consumer, settings.kafka_topic_invalid, SystemClock()))
    finally:
        consumer.close()
    chosen = choose(letters, getattr(args, "names", []), getattr(args, "reason", None), getattr(args, "limit", None))
    if args.action == "replay":
        if not (args.names or args.reason or args.all):
            sys.stderr.write("gpumon dlq replay: say which: names, --reason, or --all\n")
            return 1
        return _replay(args, settings, letters, chosen)
    if args.json:
        print(json.dumps([to_json(item, letters, value=args.action == "show") for item in chosen], indent=2))
    else:
        _print(chosen, letters, values=args.action == "show")
    return 0


def choose(letters: Letters, names: Iterable[str], reason: str | None, limit: int | None) -> list[DeadLetter]:
    """Letters by name, or all; then by reason; then the oldest `limit`. Raises UnknownLetterError."""
    names = list(names)
    if unknown := [name for name in names if name not in letters.letters]:
        raise UnknownLetterError(f"no such letter: {', '.join(unknown)} (`gpumon dlq list` names them)")
    found = [letters.letters[name] for name in names] if names else list(letters.letters.values())
    return [item for item in found if reason in (None, item.reason)][:limit]


def to_json(item: DeadLetter, letters: Letters, *, value: bool) -> dict[str, Any]:
    """A letter for programs; bytes as text where they are text, else as hex."""
    document: dict[str, Any] = {
        "name": item.name,
        "reason": item.reason,
        "message": item.message,
        "error_class": item.error_class,
        "sqlstate": item.sqlstate or None,
        "time": item.time,
        "key": _text(item.key),
        "published": letters.times[item.name],
        "replayed": item.name in letters.replayed,
        "replayed_from": item.replayed_from or None,
    }
    return document | ({"value": _text(item.value)} if value else {})


def _text(content: bytes | None) -> str | None:
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return f"hex:{content.hex()}"


def _print(chosen: list[DeadLetter], letters: Letters, *, values: bool) -> None:
    for item in chosen:
        done = " (replayed)" if item.name in letters.replayed else ""
        print(f"{item.time}  {item.name}  {item.reason}{done}: {item.message}")
        if values:
            print(f"  key:   {_text(item.key)}\n  value: {_text(item.value)}")
    counts = Counter(item.reason for item in chosen)
    summary = ", ".join(f"{reason} {count}" for reason, count in counts.most_common()) or "none"
    print(f"{len(chosen)} dead letters: {summary}", file=sys.stderr)


def _replay(args: argparse.Namespace, settings: Settings, letters: Letters, chosen: list[DeadLetter]) -> int:
    ready, skipped = [], Counter[str]()
    for item in chosen:
        why_not = None if args.again else refusal_to_replay(item, letters)
        if why_not is None:
            ready.append(item)
        else:
            skipped[why_not] += 1
    failed = 0 if args.dry_run else send(Producer(producer_config(settings, CLIENT_ID)), settings, ready)
    result = {"replayed": len(ready) - failed, "failed": failed, "skipped": dict(skipped), "dry_run": args.dry_run}
    if args.json:
        print(json.dumps(result))
    else:
        rest = "".join(f"; {count} skipped: {why}" for why, count in skipped.items())
        print(f"{len(ready) - failed} {'would be ' if args.dry_run else ''}replayed, {failed} failed{rest}")
    return 1 if failed else 0


def refusal_to_replay(item: DeadLetter, letters: Letters) -> str | None:
    """Why a letter is left where it is; None: replay it."""
    if item.name in letters.replayed:
        return "replayed before"
    if item.replayed_from:
        return "refused again after a replay (--again to insist)"
    if item.source_offset < 0:
        return "no dead letter of a sink"
    return None


def send(producer: Producer, settings: Settings, ready: list[DeadLetter]) -> int:
    """Publish each to its source topic, then its marker. Number of letters Kafka did not take."""
    delivered: list[str] = []
    marked = 0
    for first in range(0, len(ready), CHUNK):
        for item in ready[first : first + CHUNK]:
            _send(producer, item, delivered)
        producer.flush(FLUSH_TIMEOUT)
        for name in delivered[marked:]:
            producer.produce(settings.kafka_topic_invalid, None, None, headers=[(REPLAYED, name.encode())])
        producer.flush(FLUSH_TIMEOUT)
        marked = len(delivered)
    return len(ready) - len(delivered)


def _send(producer: Producer, item: DeadLetter, delivered: list[str]) -> None:
    def answer(error: KafkaError | None, _message: object) -> None:
        if error is None:
            delivered.append(item.name)

    origin = item.replayed_from or item.name
    kept: list[tuple[str, str | bytes | None]] = [(name, value) for name, value in item.headers]
    headers = [header for header in kept if header[0] != REPLAYED_FROM] + [(REPLAYED_FROM, origin)]
    producer.produce(item.source_topic, item.value, item.key, headers=headers, on_delivery=answer)
