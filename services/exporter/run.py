"""`gpumon exporter`: read the GPUs of this host, serve them as dcgm-exporter would."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import ssl
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Middleware

from services.exporter.counters_file import CountersFileError
from services.exporter.exporter import Exporter
from services.exporter.options import Options, OptionsError, add_arguments, options
from services.exporter.reading import SourceError
from services.exporter.server import Site
from services.ops.admission import Admission
from services.ops.lifecycle import unless_stopped
from services.ops.serving import cannot_listen, until_stopped
from services.settings import Settings, SettingsError

__all__ = ["add_arguments", "run"]

log = logging.getLogger("exporter")

_FAREWELL = 1.0
"""Seconds that open requests, and a reading that is under way, get at the end."""


class StartError(Exception):
    """The exporter cannot begin to serve; the message says what to do."""


@dataclass(frozen=True, slots=True)
class _Guard:
    """What the web configuration asks for; empty without one."""

    middlewares: tuple[Middleware, ...] = ()
    ssl_context: ssl.SSLContext | None = None
    refresh: Callable[[], None] = lambda: None


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Exit code: 0 stopped or printed, 1 could not serve or read, 2 wrong flags, settings or counters file."""
    try:
        chosen = options(args, settings)
        exporter = Exporter(chosen)
        return _print(exporter) if chosen.once else _serve(exporter, chosen, _guard(chosen.settings))
    except (OptionsError, SettingsError, CountersFileError) as error:
        print(f"gpumon exporter: {error}", file=sys.stderr)
        return 2
    except (StartError, SourceError) as error:
        print(f"gpumon exporter: {error}", file=sys.stderr)
        return 1


def _print(exporter: Exporter) -> int:
    text = unless_stopped(exporter.once)
    with suppress(BrokenPipeError):  # `| head` is a good reason to stop
        sys.stdout.write(text)
        sys.stdout.flush()
    return 0


def _guard(settings: Settings) -> _Guard:
    if settings.web_config_file is None:
        return _Guard()
    from services.exporter.web import config as web_config  # noqa: PLC0415  # bcrypt and YAML, where they are used

    try:
        config = web_config.load(settings.web_config_file)
    except web_config.WebConfigError as error:
        raise OptionsError(f"web configuration {error}") from None
    return _Guard((config.middleware,), config.ssl_context, config.refresh)


def _serve(exporter: Exporter, chosen: Options, guard: _Guard) -> int:
    asyncio.run(_until_stopped(exporter, chosen.settings, guard))
    if exporter.sampler.crash is not None:
        raise exporter.sampler.crash
    return 0


async def _until_stopped(exporter: Exporter, settings: Settings, guard: _Guard) -> None:
    site = Site(exporter.sampler.status, lambda: exporter.page, exporter.tail, exporter.snapshots)
    application = site.application(*guard.middlewares)
    admission = Admission()
    admission.attach(application)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=_FAREWELL)
    await _listen(runner, admission, settings, guard.ssl_context)
    loop, crashed = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, _Reload(exporter, guard).begin)
    exporter.start(on_crash=lambda: _set(loop, crashed))
    try:
        await until_stopped(asyncio.create_task(_wait(crashed)))
    finally:
        await runner.cleanup()
        exporter.stop(_FAREWELL)


class _Reload:
    """What SIGHUP asks for, in a thread of its own: a file system that hangs holds up neither scrapes nor the end."""

    def __init__(self, exporter: Exporter, guard: _Guard) -> None:
        self._exporter, self._guard = exporter, guard
        self._thread: threading.Thread | None = None
        self._again = False

    def begin(self) -> None:
        self._again = True
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="reload", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while self._again:
            self._again = False
            self._exporter.reload()
            self._guard.refresh()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


def _set(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the loop has ended meanwhile
        loop.call_soon_threadsafe(event.set)


async def _listen(
    runner: web.AppRunner, admission: Admission, settings: Settings, ssl_context: ssl.SSLContext | None
) -> None:
    host, port = settings.exporter_host, settings.exporter_port
    await runner.setup()
    try:
        await admission.listen(runner, host or None, port, ssl_context)
    except OSError as error:
        await runner.cleanup()
        raise StartError(cannot_listen(host, port, "--address or EXPORTER_PORT", error)) from None
    scheme = "http" if ssl_context is None else "https"
    log.info("GPU exporter", extra={"url": f"{scheme}://{_named(host)}:{runner.addresses[0][1]}/metrics"})


def _named(host: str) -> str:
    return f"[{host}]" if ":" in host else host or "0.0.0.0"
