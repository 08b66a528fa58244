"""What is shown, for Prometheus: `<prefix>_gpu_temperature_celsius{device="0"}` and the like on /metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Self

from services.exporter import prefixed
from services.ops.health import OpsError
from services.top.judge import duration
from services.top.screen import State

DEFAULT_PORT: Final = 9090
DEFAULT_PREFIX: Final = "gpumon"
_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"


def render(state: State, prefix: str, now: float) -> tuple[int, str]:
    """HTTP status and body at `now` (seconds since the epoch). Values older than `state.stale_after` are left out.

    The one label is the GPU's index, so several hosts cannot be told apart.
    """
    frame = state.frame
    if frame is None or state.error is not None:
        return 503, f"the GPUs cannot be read at the moment: {state.error or 'no answer yet'}\n"
    if len(frame.hosts) > 1:
        return 503, f"{len(frame.hosts)} hosts, but GPUs are only numbered here: choose one with --host\n"
    here = [row for row in frame.rows if row.lost is None]
    fresh = [row for row in here if frame.age_of(row, now) <= state.stale_after]
    if here and not fresh:
        youngest = duration(min(frame.age_of(row, now) for row in here))
        return 503, f"{state.source}: the newest values are {youngest} old, which is not the present\n"
    return 200, prefixed.render(prefix, [row.reading() for row in fresh])


class Server:
    """HTTP in a thread of its own. Use as a context manager. Raises OpsError where the port is taken."""

    def __init__(self, host: str, port: int, current: Callable[[], tuple[int, str]]) -> None:
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(current))
        except OSError as error:
            raise OpsError(error.errno, error.strerror, f"--port {port}") from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="prometheus", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(current: Callable[[], tuple[int, str]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.partition("?")[0] == "/metrics"
            status, body = current() if found else (404, "try /metrics\n")
            self.send_response(status)
            self.send_header("Content-Type", _TEXT)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it
            """A scrape every few seconds is not worth a line, least of all across the screen."""

    return Handler
