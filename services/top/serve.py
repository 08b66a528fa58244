"""What is shown, for Prometheus: `<prefix>_gpu_temperature_celsius{device="0"}` and the like on /metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Self

from services.exporter import prefixed
from services.ops.health import OpsError
from services.top.frame import Frame

DEFAULT_PORT: Final = 9090
DEFAULT_PREFIX: Final = "gpumon"
_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"


def render(frame: Frame | None, prefix: str) -> tuple[int, str]:
    """HTTP status and body. The one label is the GPU's index, so several hosts cannot be told apart."""
    if frame is None:
        return 503, "the GPUs cannot be read at the moment\n"
    if len(frame.hosts) > 1:
        return 503, f"{len(frame.hosts)} hosts, but GPUs are only numbered here: choose one with --host\n"
    return 200, prefixed.render(prefix, [row.reading() for row in frame.rows if row.lost is None])


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
