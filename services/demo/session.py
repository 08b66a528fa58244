"""One demo from its directory to its verdict."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import signal
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
from confluent_kafka import KafkaException

from services.demo.directory import HeldError, held
from services.demo.ledger import Balance, Ledger, shortfalls, verdict
from services.demo.pipeline import Pipeline, Plan
from services.demo.process import RoleFailedError, StoppedError
from services.demo.watch import Progress, look
from services.embedded.broker import EmbeddedBrokerError
from services.embedded.timescale import EmbeddedTimescaleError
from services.settings import Settings

REPORT_EVERY_SECONDS = 1.0
LEGEND = (
    "samples/s: values scraped. rows: one per GPU and scrape. lag: events in Kafka and not yet in the database "
    "(a scrape on its way is normal). freshness: seconds from scrape to commit."
)
DRAIN_WITHIN_SECONDS = 60.0
"""After the collector has stopped: the time the sink gets to write what is still in the broker."""
FAILURES = (RoleFailedError, EmbeddedBrokerError, EmbeddedTimescaleError, KafkaException, OSError, psycopg.Error)


def run(args: argparse.Namespace, settings: Settings, stop: threading.Event) -> int:
    """Exit code of the role. What is in a temporary directory stays only where somebody has to look at it."""
    logging.getLogger("services.embedded").setLevel(logging.WARNING)  # what the embedded servers say is in their logs
    scratch = Path(tempfile.mkdtemp(prefix="gpumon-demo-"))
    wanted = args.data_dir or settings.data_dir
    try:
        plan = _plan(args, settings, scratch)
        with held(plan.directory):
            code = _attempt(plan, settings, args, stop)
        if code == 1:
            _say(f"logs: {plan.directory / 'logs'}")
    except HeldError as error:
        code = _failed(str(error))
    except OSError as error:
        code = _failed(f"--data-dir {wanted}: {error.strerror}; give a directory to write to")
    if code != 1 or not any(scratch.iterdir()):
        shutil.rmtree(scratch, ignore_errors=True)
    return code


def _attempt(plan: Plan, settings: Settings, args: argparse.Namespace, stop: threading.Event) -> int:
    pipeline = Pipeline(plan, settings, _say, stop)
    last_word = "stopped"
    try:
        pipeline.start()
        return _show(pipeline, settings, args, stop)
    except StoppedError:
        last_word = "stopped before it had begun"
        return _status_of_signal()
    except FAILURES as error:
        return _failed(str(pipeline.cause(error)))
    finally:
        pipeline.stop()
        _say(last_word)


def _status_of_signal() -> int:
    """As a shell gives it. `stop_on_signals` has given the signal that came its default effect again."""
    came = (n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL)
    return 128 + next(came, signal.SIGINT)


def _failed(message: str) -> int:
    sys.stderr.write(f"gpumon demo: {message}\n")
    return 1


def _plan(args: argparse.Namespace, settings: Settings, scratch: Path) -> Plan:
    data = args.data_dir or settings.data_dir
    if data is not None:
        data = data.resolve()  # the roles run elsewhere
    return Plan(
        gpus=args.gpus,
        hosts=args.hosts or max(min(2, args.gpus), -(-args.gpus // 8)),
        interval=args.interval,
        directory=data or scratch,
        database=data / "pgdata" if data else None,
        seed=args.seed,
    )


def _say(text: str) -> None:
    """Progress is for people: stderr, so that --json leaves stdout to the program that reads it."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _show(pipeline: Pipeline, settings: Settings, args: argparse.Namespace, stop: threading.Event) -> int:
    """The live line until it is time to stop; then drain, count, judge. Exit code 0 only when nothing is missing."""
    with closing(Ledger(pipeline, settings)) as ledger:
        found = ledger.open()
        _say(f"other commands see this demo with: {pipeline.export}")
        if found:
            _say(f"the database holds {found:,} rows of these GPUs, of earlier runs; rows below count from now")
        _say(LEGEND)
        last = _follow(pipeline, args.seconds, stop)
        pipeline.stop_role("collector")
        drained = ledger.drain(DRAIN_WITHIN_SECONDS, pipeline.check)
        last = look(pipeline.roles, previous=last)
        pipeline.stop_role("sink")
        balance, last = ledger.balance(), _with_last_scrape(last, pipeline)
    if stop.is_set() and not _has_begun(balance, last):
        raise StoppedError
    return _judge(balance, last, drained=drained, as_json=args.json)


def _has_begun(balance: Balance, last: Progress) -> bool:
    """Whether a target was scraped, or tried in vain."""
    return balance.published > 0 or last.scraped > 0 or last.targets_down > 0


def _judge(balance: Balance, last: Progress, *, drained: bool, as_json: bool) -> int:
    result = verdict(balance, last, drained=drained)
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        _say("  ".join(f"{name}={value}" for name, value in result.items()))
    for shortfall in shortfalls(balance, last, drained=drained):
        _say(f"not ok: {shortfall}")
    return 0 if result["ok"] else 1


def _with_last_scrape(last: Progress, pipeline: Pipeline) -> Progress:
    """The collector's own last word counts what it scraped after our last look."""
    record = pipeline.roles["collector"].last_record("stopped")
    return replace(last, scraped=float(str(record["samples"]))) if record else last


def _follow(pipeline: Pipeline, seconds: float | None, stop: threading.Event) -> Progress:
    started = time.monotonic()
    before = look(pipeline.roles)
    while not stop.wait(REPORT_EVERY_SECONDS):
        pipeline.check()
        now = look(pipeline.roles, previous=before)
        _say(now.line(before))
        before = now
        if seconds is not None and time.monotonic() - started >= seconds:
            break
    return before
