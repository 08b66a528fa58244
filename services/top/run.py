"""Role `top`: GPUs in the terminal. On a screen it stays and renews itself; elsewhere it prints plain tables."""

from __future__ import annotations

import argparse
import io
import logging
import math
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from rich.console import Console
from rich.live import Live

from services.andon import AlertConfig, AndonSystem
from services.ops.clock import SystemClock
from services.ops.lifecycle import stop_on_signals, unless_stopped
from services.settings import Settings
from services.top import serve
from services.top.frame import Frame, View, ViewError
from services.top.keys import Bell, keyboard
from services.top.screen import ORDERS, State, draw, press
from services.top.stream import Printer, note, show
from services.top.watch import Watcher, look

SOURCES = ("auto", "nvml", "nvidia-smi", "mock")
_REDRAW = 1.0
"""Seconds between two drawings while nothing comes: ages and the clock go on."""
_LONGEST = 86_400.0
_LAST_PORT = 65_535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--url", help="an exporter, for example http://host:9400/metrics or host:9400")
    source.add_argument("--database", action="store_true", help="the newest samples in TimescaleDB, hottest first")
    source.add_argument("--source", choices=SOURCES, help="of this host's GPUs (EXPORTER_SOURCE)")
    parser.add_argument("--host", action="append", default=[], metavar="NAME", help="only GPUs of this host; repeat")
    parser.add_argument("--limit", type=int, default=200, help="GPUs at most, from the database (default 200)")
    parser.add_argument("--interval", type=float, default=2.0, metavar="SECONDS", help="between two looks (default 2)")
    parser.add_argument("--sort", choices=tuple(ORDERS), help="default: index; from the database: temp")
    parser.add_argument("--once", action="store_true", help="one plain table, then end")
    parser.add_argument("--json", action="store_true", help="one JSON document a line instead of the screen")
    parser.add_argument("--prometheus", action="store_true", help="serve what is shown on /metrics as well")
    parser.add_argument("--port", type=int, default=serve.DEFAULT_PORT, help="of --prometheus (default 9090)")
    parser.add_argument("--prefix", help="of its metrics (default EXPORTER_PREFIX, or gpumon)")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Exit code 1: `--once`, and the source could not be read; 2: wrong arguments."""
    refused = _refused(args)
    if refused is not None:
        return _wrong(refused)
    try:
        view = open_view(args, settings)
    except ViewError as error:
        return _wrong(str(error))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 shows ? in place of blocks
    stale = max(3 * args.interval, 10.0, 3 * settings.interval if args.database else 0.0)
    order = args.sort or ("temp" if args.database else "index")
    state = State(view.name, args.interval, stale, AndonSystem(AlertConfig.of(settings)), order)
    if args.once:
        return _once(view, state, args)
    with _served(state, settings, args):
        return (_stream if args.json or not sys.stdout.isatty() else _screen)(view, state, args)


def _refused(args: argparse.Namespace) -> str | None:
    """What is wrong with the numbers given."""
    if not (math.isfinite(args.interval) and 0 < args.interval <= _LONGEST):
        return f"--interval {args.interval:g}: more than 0 and at most {_LONGEST:g} s (a day)"
    if args.limit <= 0:
        return f"--limit {args.limit}: more than nothing, please"
    if not 0 <= args.port <= _LAST_PORT:
        return f"--port {args.port}: from 0 to {_LAST_PORT}"
    return None


def _wrong(reason: str) -> int:
    print(f"gpumon top: {reason}", file=sys.stderr)
    return 2


def open_view(args: argparse.Namespace, settings: Settings) -> View:
    """Each source is imported when it is asked for. Raises ViewError."""
    if args.database:
        from services.top.database import DatabaseView  # noqa: PLC0415

        return DatabaseView(settings, tuple(args.host), args.limit)
    if args.url:
        from services.top.exporter import ExporterView  # noqa: PLC0415

        return OfHosts(ExporterView(args.url, settings), tuple(args.host))
    from services.top.local import LocalView  # noqa: PLC0415

    chosen = settings.model_copy(update={"exporter_source": args.source}) if args.source else settings
    return OfHosts(LocalView(chosen), tuple(args.host))


class OfHosts(View):
    """A view's GPUs of some hosts; of all, where none are named."""

    def __init__(self, view: View, hosts: tuple[str, ...]) -> None:
        self._view, self._hosts = view, hosts

    @property
    def name(self) -> str:
        return self._view.name

    def read(self) -> Frame:
        frame = self._view.read()
        if not self._hosts:
            return frame
        rows = tuple(row for row in frame.rows if row.host in self._hosts)
        if not rows:
            raise ViewError(f"{frame.source} shows no GPU of {', '.join(self._hosts)}, but of {_few(frame.hosts)}")
        return replace(frame, rows=rows, total=len(rows))

    def close(self) -> None:
        self._view.close()


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# --- plain ----------------------------------------------------------------------------------------------------------


def _once(view: View, state: State, args: argparse.Namespace) -> int:
    note(state, unless_stopped(lambda: look(view)))
    view.close()
    show(state, SystemClock().time(), as_json=args.json)
    return 0 if state.error is None else 1


def _stream(view: View, state: State, args: argparse.Namespace) -> int:
    """A table or document per look, until a signal or until nobody reads."""
    stop, bell, printer = stop_on_signals(), Bell(), Printer(state, SystemClock(), as_json=args.json)
    with Watcher(view, args.interval, bell.ring) as watcher:
        while not stop.is_set():
            bell.wait(0.5, None)
            printer.step(watcher.take())
    return 0


# --- screen ---------------------------------------------------------------------------------------------------------


def _screen(view: View, state: State, args: argparse.Namespace) -> int:
    stop, bell, console, clock = stop_on_signals(), Bell(), Console(), SystemClock()
    with (
        _quiet(),
        keyboard(bell) as keys,
        Live(console=console, screen=True, auto_refresh=False, redirect_stderr=False) as live,
        Watcher(view, args.interval, bell.ring) as watcher,
    ):
        while not stop.is_set():
            for told in watcher.take():
                note(state, told)
            width, height = console.size
            live.update(draw(state, width, height, clock.time()), refresh=True)
            if not all(press(state, key) for key in bell.wait(_REDRAW, keys)):
                break
    return 0


@contextmanager
def _quiet() -> Iterator[None]:
    """A line of log would tear the screen; what matters is shown in its head."""
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@contextmanager
def _served(state: State, settings: Settings, args: argparse.Namespace) -> Iterator[None]:
    with ExitStack() as stack:
        if args.prometheus:
            prefix = args.prefix or settings.exporter_prefix or serve.DEFAULT_PREFIX

            def current() -> tuple[int, str]:
                return serve.render(state, prefix, SystemClock().time())

            stack.enter_context(serve.server(settings.ops_host, args.port, current))
        yield
