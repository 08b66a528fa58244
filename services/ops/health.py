"""A service on itself: `/metrics` (Prometheus), `/livez` (the loop turns), `/readyz` (it can do its work)."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest

from services.ops.clock import Clock, SystemClock

log = logging.getLogger("ops")


class Heartbeat:
    """Beaten by the main loop; the service lives while the last beat is younger than `limit` seconds."""

    def __init__(self, limit: float, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._limit = limit
        self._last = self._clock.monotonic()

    def beat(self) -> None:
        self._last = self._clock.monotonic()

    def problem(self) -> str | None:
        """None while alive, else what is wrong."""
        age = self._clock.monotonic() - self._last
        return f"main loop has not turned for {age:.0f} s" if age > self._limit else None


Probe = Callable[[], str | None]
"""Returns None when all is well, else one sentence that says what is not."""


class OpsError(OSError):
    """The address of /metrics and the probes cannot be listened on."""

    def __str__(self) -> str:
        return f"{self.filename}: cannot listen there ({self.strerror}); give another port"


class OpsServer:
    """HTTP server in a thread of its own. Use as a context manager."""

    def __init__(
        self, host: str, port: int, *, live: Probe, ready: Probe, registry: CollectorRegistry = REGISTRY
    ) -> None:
        routes: dict[str, Callable[[], tuple[int, str, bytes]]] = {
            "/metrics": lambda: (200, CONTENT_TYPE_LATEST, generate_latest(registry)),
            "/livez": lambda: _verdict(live()),
            "/readyz": lambda: _verdict(ready()),
        }
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(routes))
        except OSError as error:
            raise OpsError(error.errno, error.strerror, f"OPS_HOST={host} OPS_PORT={port}") from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="ops", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        log.info("metrics and probes", extra={"port": self.port})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _verdict(problem: str | None) -> tuple[int, str, bytes]:
    body = {"status": "ok"} if problem is None else {"status": "failed", "reason": problem}
    return (200 if problem is None else 503, "application/json", json.dumps(body).encode())


def _handler(routes: dict[str, Callable[[], tuple[int, str, bytes]]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0  # seconds; a client that says nothing costs a thread and a descriptor as long as it likes

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
            """Probes every few seconds are not worth a log line."""

    return Handler
