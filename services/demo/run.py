"""Role `demo`: start the pipeline, show it at work, check at the end that every published event is a row."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import psycopg

from services.demo.ledger import Ledger, verdict
from services.demo.pipeline import Pipeline, Plan
from services.demo.process import RoleFailedError
from services.demo.watch import Progress, look
from services.embedded.broker import EmbeddedBrokerError
from services.embedded.timescale import EmbeddedTimescaleError
from services.ops.lifecycle import stop_on_signals
from services.settings import Settings

REPORT_EVERY_SECONDS = 1.0
LEGEND = (
    "samples/s: values scraped. rows: one per GPU and scrape. lag: events in Kafka and not yet in the database "
    "(a scrape on its way is normal). freshness: seconds from scrape to commit."
)
DRAIN_WITHIN_SECONDS = 60.0
"""After the collector has stopped: the time the sink gets to write what is still in the broker."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpus", type=int, default=8, help="simulated GPUs (default: %(default)s)")
    parser.add_argument("--hosts", type=int, help="hosts they stand in (default: 2, or one for every 8 GPUs)")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between scrapes (default: %(default)g)")
    parser.add_argument("--seconds", type=float, help="end by itself after so long (default: until Ctrl-C)")
    parser.add_argument("--data-dir", type=Path, help="keep the database here over restarts (default: in memory)")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end, progress on stderr")


def run(args: argparse.Namespace, settings: Settings) -> int:
    problem = _check(args)
    if problem:
        sys.stderr.write(f"gpumon demo: {problem}\n")
        return 2
    logging.getLogger("services.embedded").setLevel(logging.WARNING)  # what the embedded servers say is in their logs
    stop = stop_on_signals()
    scratch = Path(tempfile.mkdtemp(prefix="gpumon-demo-"))
    try:
        plan = _plan(args, settings, scratch)
    except OSError as error:
        return _failed(
            f"--data-dir {args.data_dir or settings.data_dir}: {error.strerror}; give a directory to write to"
        )
    pipeline = Pipeline(plan, settings, _say)
    try:
        pipeline.start()
        code = _show(pipeline, settings, args, stop)
    except (RoleFailedError, EmbeddedBrokerError, EmbeddedTimescaleError, OSError, psycopg.Error) as error:
        code = _failed(f"{error}\nlogs: {plan.directory / 'logs'}")
    finally:
        pipeline.stop()
        _say("stopped")
    if code == 0:
        shutil.rmtree(scratch, ignore_errors=True)
    return code


def _failed(message: str) -> int:
    sys.stderr.write(f"gpumon demo: {message}\n")
    return 1


def _check(args: argparse.Namespace) -> str | None:
    if args.gpus < 1 or (args.hosts is not None and not 1 <= args.hosts <= args.gpus):
        return f"--gpus {args.gpus} --hosts {args.hosts}: at least one GPU, and at most as many hosts as GPUs"
    if args.interval <= 0 or (args.seconds is not None and args.seconds <= 0):
        return "--interval and --seconds must be greater than 0"
    return None


def _plan(args: argparse.Namespace, settings: Settings, scratch: Path) -> Plan:
    data = args.data_dir or settings.data_dir
    if data is not None:
        data.mkdir(parents=True, exist_ok=True)
        data = data.resolve()  # the roles run elsewhere
    return Plan(
        gpus=args.gpus,
        hosts=args.hosts or max(min(2, args.gpus), -(-args.gpus // 8)),
        interval=args.interval,
        directory=data or scratch,
        database=data / "pgdata" if data else None,
    )


def _say(text: str) -> None:
    """Progress is for people: stderr, so that --json leaves stdout to the program that reads it."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _show(pipeline: Pipeline, settings: Settings, args: argparse.Namespace, stop: threading.Event) -> int:
    """The live line until it is time to stop; then drain, count, judge. Exit code 0 only when nothing is missing."""
    ledger = Ledger(pipeline, settings)
    found = ledger.open()
    _say(
        f"other commands see this demo with: export KAFKA_BOOTSTRAP={pipeline.bootstrap} TIMESCALE_DSN='{pipeline.dsn}'"
    )
    if found:
        _say(f"the database holds {found:,} rows of these GPUs, of earlier runs; rows below count from now")
    _say(LEGEND)
    last = _follow(pipeline, args.seconds, stop)
    pipeline.stop_role("collector")
    drained = ledger.drain(DRAIN_WITHIN_SECONDS)
    last = look(pipeline.roles, previous=last)
    pipeline.stop_role("sink")
    result = verdict(ledger.close(), _with_last_scrape(last, pipeline), drained=drained)
    if args.json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        _say("  ".join(f"{name}={value}" for name, value in result.items()))
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
