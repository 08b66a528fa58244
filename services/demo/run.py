"""Role `demo`: start the pipeline, show it at work, check at the end that every published event is a row."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from services.ops.lifecycle import stop_on_signals
from services.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpus", type=int, default=8, help="simulated GPUs (default: %(default)s)")
    parser.add_argument("--hosts", type=int, help="hosts they stand in (default: 2, or one for every 8 GPUs)")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between scrapes (default: %(default)g)")
    parser.add_argument("--seconds", type=float, help="end by itself after so long (default: until Ctrl-C)")
    parser.add_argument("--data-dir", type=Path, help="keep the database here over restarts (default: in memory)")
    parser.add_argument(
        "--seed",
        type=int,
        help="the GPUs' UUIDs follow from it (default: 0, so that they are the same each time; with KAFKA_BOOTSTRAP or "
        "TIMESCALE_DSN set a random one: another demo may report there)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end, progress on stderr")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Exit code: 0 every event is a row, 1 failed, 2 wrong command line, 130 (128 + signal) stopped early."""
    problem = _check(args)
    if problem:
        sys.stderr.write(f"gpumon demo: {problem}\n")
        return 2
    stop = stop_on_signals()
    from services.demo.session import run as session  # noqa: PLC0415  # takes long: a Ctrl-C must find our handler

    return session(args, settings, stop)


def _check(args: argparse.Namespace) -> str | None:
    if args.gpus < 1 or (args.hosts is not None and not 1 <= args.hosts <= args.gpus):
        return f"--gpus {args.gpus} --hosts {args.hosts}: at least one GPU, and at most as many hosts as GPUs"
    if args.interval <= 0 or (args.seconds is not None and args.seconds <= 0):
        return "--interval and --seconds must be greater than 0"
    return None
