"""Role `burn`: gpu-burn (or another load) with idle, cool-down, tags and memos around it, and what that did."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from services.burn import detached, tmux
from services.burn import report as reporting
from services.burn.drive import Drive, Outcome
from services.burn.journal import Journal, JournalError
from services.burn.load import LoadError, command
from services.burn.plan import DEFAULT_MAX_TEMP, MARGIN, Plan, limit_of, plan_of
from services.burn.screen import clock_text, open_screen
from services.burn.watch import Watch, called
from services.exporter.choose import open_source
from services.host.arguments import not_negative, positive
from services.host.live import Monitor, State, open_eye
from services.host.status import StatusError
from services.host.stop import Stop
from services.host.tags import Tags
from services.ops.clock import Clock, SystemClock
from services.settings import Settings

PATIENCE = 10.0
"""Seconds for the first reading: NVML answers in milliseconds, nvidia-smi without persistence mode in a few seconds."""


LIMIT_TEXT = f"{MARGIN:g} C below the board's slowdown temperature, {DEFAULT_MAX_TEMP:g} C where it tells none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    phases = parser.add_argument_group("phases, in order; --pre-tag and --pre-memo are those of the burn itself")
    phases.add_argument("--pre-idle-sec", type=not_negative, default=180, metavar="S", help="idle before (default 180)")
    phases.add_argument("--pre-idle-memo", default="pre gpu-burn idle (baseline)", metavar="TEXT")
    phases.add_argument("--sec", type=positive, default=900, metavar="S", help="the burn (default 900)")
    phases.add_argument("--pre-tag", default="bench", metavar="TAG", help="during the burn (default bench)")
    phases.add_argument("--pre-memo", default="gpu-burn (max workload)", metavar="TEXT")
    phases.add_argument(
        "--post-sec", type=not_negative, default=0, metavar="S", help="right after the burn (default 0: no such phase)"
    )
    phases.add_argument("--post-tag", default="idle", metavar="TAG", help="directly after the burn (default idle)")
    phases.add_argument("--post-memo", default="post gpu-burn idle", metavar="TEXT")
    phases.add_argument("--cooldown-sec", type=not_negative, default=600, metavar="S", help="tag idle (default 600)")
    phases.add_argument("--cooldown-memo", default="cooldown idle (post gpu-burn)", metavar="TEXT")
    phases.add_argument(
        "--final-tag", metavar="TAG", help="at the end, however it comes (default: what was set before)"
    )
    phases.add_argument("--final-memo", metavar="TEXT")
    load = parser.add_argument_group("load")
    load.add_argument("--load", choices=("gpu_burn", "torch", "none"), default="gpu_burn",
                      help="none: tags and times only, for a load of your own (default: program GPU_BURN)")  # fmt: skip
    load.add_argument("--load-args", type=_words, default=(), metavar="ARGS",
                      help="passed on to gpu_burn, for example --load-args='-tc -m 90%%'")  # fmt: skip
    load.add_argument("--max-temp", type=positive, metavar="C",
                      help=f"end the run above this (default: {LIMIT_TEXT})")  # fmt: skip
    load.add_argument("--exporter", metavar="URL",
                      help="temperatures from there only (default: this host's exporter, at EXPORTER_HOST and "
                           "EXPORTER_PORT, else the driver)")  # fmt: skip
    parser.add_argument("--tmux", action="store_true",
                        help="in a tmux session of its own, which stays to show the summary; this terminal may be "
                             "closed")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true",
                        help="print the plan, do nothing; exit code 1 where the load would fail")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout at the end; all else on stderr")
    parser.add_argument("--name", help=argparse.SUPPRESS)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Exit code: 0 done; 1 the load failed, GPUs are faulty or too hot, or a tag was not set; 2 it cannot start; 130
    ended by Ctrl-C. With --tmux 0: it has begun; with --dry-run 1: the load would fail."""
    name = args.name or f"burn-{dt.datetime.now().astimezone():%Y%m%d-%H%M%S}"
    try:
        plan = plan_of(args)
        if args.dry_run:
            return _dry_run(plan, settings, as_json=args.json)
        load = command(settings, plan.load, plan.burn_seconds, plan.load_args)
        if args.tmux:
            return detached.run(args, name, plan, settings, SystemClock())
        return _run(args, settings, plan, load, name)
    except (StatusError, LoadError, JournalError, tmux.TmuxError) as error:
        print(f"gpumon burn: {error}", file=sys.stderr)
        return 2


@dataclass(frozen=True, slots=True)
class _Session:
    """What a run is made of."""

    settings: Settings
    plan: Plan
    load: tuple[list[str], Path | None]
    journal: Journal
    tags: Tags
    monitor: Monitor
    stop: Stop
    console: Console
    clock: Clock
    json: bool


def _run(
    args: argparse.Namespace, settings: Settings, plan: Plan, load: tuple[list[str], Path | None], name: str
) -> int:
    clock = SystemClock()
    journal = Journal(settings.log_dir, name, clock)
    session = _Session(
        settings=settings,
        plan=plan,
        load=load,
        journal=journal,
        tags=Tags(settings.status_file, plan.final, journal.tell),
        monitor=Monitor(lambda: open_eye(settings, args.exporter, open_source, clock), clock=clock),
        stop=Stop(),
        console=Console(stderr=args.json),
        clock=clock,
        json=args.json,
    )
    try:
        with session.stop:
            outcome = _drive(session)
        return _report(session, outcome)
    except BaseException as error:
        journal.note(f"ended by {type(error).__name__}: {error}")
        raise
    finally:
        journal.close()


def _drive(session: _Session) -> Outcome:
    """The tag is back when this returns or raises. Raises StatusError, LoadError."""
    session.tags.begin()
    try:
        session.monitor.start(PATIENCE)
        return _watched(session)
    finally:
        session.tags.restore()
        session.monitor.stop()


def _watched(session: _Session) -> Outcome:
    plan, journal, live = session.plan, session.journal, session.monitor.state()
    without = _without_temperature(live)
    if plan.max_temp is not None and without:
        raise LoadError(f"--max-temp cannot be kept: {without}")
    limit, origin = limit_of(plan, [look.slowdown for look in live.looks])
    header = f"gpumon burn  {plan.load}  limit {limit:g} C  log {journal.path}"
    screen = open_screen(session.console, session.monitor, limit, header)
    journal.show_on(screen.say)
    journal.tell(f"run of {clock_text(plan.seconds)}, log {journal.path}")
    journal.tell(
        f"temperatures from {session.monitor.name}; limit {limit:g} C ({origin})"
        if any(look.sample.temp is not None for look in live.looks)
        else f"no live temperature, so no limit is kept: {without}"
    )
    watch = Watch(limit)
    watch.hear(live.looks, session.clock.monotonic())
    drive = Drive(
        plan,
        session.load,
        tags=session.tags,
        journal=journal,
        screen=screen,
        stop=session.stop,
        clock=session.clock,
        monitor=session.monitor,
        watch=watch,
        must_watch=plan.max_temp is not None,
    )
    try:
        return drive.run()
    finally:
        screen.close()
        journal.show_on(None)


def _without_temperature(live: State) -> str:
    """Why the limit cannot be kept for every GPU; empty where it can."""
    if not live.looks:
        return live.problem or "the driver has not answered"
    without = [called(look) for look in live.looks if look.sample.temp is None]
    return f"{', '.join(without)} shows no temperature" if without else ""


def _report(session: _Session, outcome: Outcome) -> int:
    """The tag is back by now, and signals do what they usually do: Ctrl-C only leaves the summary out."""
    journal, stopped = session.journal, session.stop.asked
    wait = None if stopped else session.clock.sleep
    report = reporting.report_of(session.settings, outcome, session.monitor.telemetry(), session.clock, wait)
    document = json.dumps(reporting.as_dict(outcome, report, session.plan.as_dict(), str(journal.path)))
    for line in reporting.text(outcome, report).splitlines():
        journal.note(line)
    files = [f"  log: {journal.path.absolute()}"]
    try:
        journal.summary_path.write_text(document + "\n")
        files.append(f"  JSON: {journal.summary_path.absolute()}")
    except OSError as error:
        print(f"gpumon burn: {journal.summary_path} cannot be written ({error.strerror})", file=sys.stderr)
    width = session.console.width if session.console.is_terminal else None
    shown = reporting.text(outcome, report, width)
    print(shown, *files, sep="\n", file=sys.stderr if session.json else sys.stdout)
    if session.json:
        print(document)
    if stopped:
        return session.stop.exit_code
    return max(reporting.EXIT_CODES[outcome.result], int(session.tags.failed))


def _dry_run(plan: Plan, settings: Settings, *, as_json: bool) -> int:
    problem = _load_problem(plan, settings)
    if as_json:
        print(json.dumps({**_plan_dict(plan, settings), "load_problem": problem}))
    else:
        print(plan_text(plan, settings))
    return 0 if problem is None else 1


def _load_problem(plan: Plan, settings: Settings) -> str | None:
    try:
        command(settings, plan.load, plan.burn_seconds, plan.load_args)
    except LoadError as error:
        return str(error)
    return None


def plan_text(plan: Plan, settings: Settings) -> str:
    problem = _load_problem(plan, settings)
    lines = [f"WARNING: this run would fail: {problem}"] if problem else []
    lines += [f"run of {clock_text(plan.seconds)}, status in {settings.status_file.absolute()}"]
    for phase in plan.phases:
        memo = f"  {phase.status.memo}" if phase.status.memo else ""
        lines.append(f"  {phase.name:<10} {phase.seconds:>6g} s  {phase.status.tag}{memo}")
    final = "what is set now" if plan.final is None else f"{plan.final.tag}  {plan.final.memo or ''}".rstrip()
    lines.append(f"  {'final':<10}           {final}")
    limit = LIMIT_TEXT if plan.max_temp is None else f"{plan.max_temp:g} C"
    lines += [f"load: {_load_text(plan, settings)}", f"limit: {limit}", f"logs: {settings.log_dir.absolute()}"]
    return "\n".join(lines)


def _load_text(plan: Plan, settings: Settings) -> str:
    try:
        argv, _ = command(settings, plan.load, plan.burn_seconds, plan.load_args)
    except LoadError:
        return f"{plan.load}, which would fail"
    return shlex.join(argv) or "none"


def _plan_dict(plan: Plan, settings: Settings) -> dict[str, Any]:
    return {**plan.as_dict(), "status_file": str(settings.status_file), "log_dir": str(settings.log_dir)}


def _words(text: str) -> tuple[str, ...]:
    return tuple(shlex.split(text))
