"""A service on itself: `/metrics` (Prometheus), `/livez` (the loop turns), `/readyz` (it can do its work)."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Self

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest

from services.ops.clock import Clock, SystemClock
from services.ops.http import Answer, OpsError, Routes, RouteServer

__all__ = ["Heartbeat", "OpsError", "OpsServer", "Probe"]

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


class OpsServer(RouteServer):
    """/metrics, /livez and /readyz of a service. Use as a context manager."""

    def __init__(
        self, host: str, port: int, *, live: Probe, ready: Probe, registry: CollectorRegistry = REGISTRY
    ) -> None:
        routes: Routes = {
            "/metrics": lambda: (200, CONTENT_TYPE_LATEST, generate_latest(registry)),
            "/livez": lambda: _verdict(live()),
            "/readyz": lambda: _verdict(ready()),
        }
        super().__init__(host, port, routes, name="ops", setting=f"OPS_HOST={host} OPS_PORT={port}")

    def __enter__(self) -> Self:
        super().__enter__()
        log.info("metrics and probes", extra={"port": self.port})
        return self


def _verdict(problem: str | None) -> Answer:
    body = {"status": "ok"} if problem is None else {"status": "failed", "reason": problem}
    return (200 if problem is None else 503, "application/json", json.dumps(body).encode())
