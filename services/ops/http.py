"""A small HTTP server in a thread of its own: fixed paths, answers made when asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Self

Answer = tuple[int, str, bytes]
"""Status, content type, body."""
Routes = Mapping[str, Callable[[], Answer]]

EXPOSITION: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Content type of Prometheus' text format."""
_SILENCE: Final = 10.0
"""Seconds; a client that says nothing costs a thread and a descriptor as long as it likes."""


class OpsError(OSError):
    """The address cannot be listened on; `filename` says which setting gives it."""

    def __str__(self) -> str:
        return f"{self.filename}: cannot listen there ({self.strerror}); give another port"


class RouteServer:
    """Use as a context manager. Raises OpsError; `setting` is what gives the address, for its message."""

    def __init__(self, host: str, port: int, routes: Routes, *, name: str, setting: str) -> None:
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(routes))
        except OSError as error:
            raise OpsError(error.errno, error.strerror, setting) from None
        self._thread = threading.Thread(target=self._server.serve_forever, name=name, daemon=True)

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


def _handler(routes: Routes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _SILENCE

        def do_GET(self) -> None:
            route = routes.get(self.path.partition("?")[0])
            known = ", ".join(routes)
            status, kind, body = route() if route else (404, "text/plain", f"try {known}\n".encode())
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it
            """Probes and scrapes every few seconds are not worth a line."""

    return Handler
