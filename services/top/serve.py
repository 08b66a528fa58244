"""What is shown, for Prometheus: `<prefix>_gpu_temperature_celsius{device="0"}` and the like on /metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from services.exporter import prefixed
from services.ops.http import EXPOSITION, Answer, RouteServer
from services.top.judge import duration
from services.top.screen import State

DEFAULT_PORT: Final = 9090
DEFAULT_PREFIX: Final = "gpumon"


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


def server(host: str, port: int, current: Callable[[], tuple[int, str]]) -> RouteServer:
    """Serves what `current` gives. Raises OpsError where the port is taken."""

    def metrics() -> Answer:
        status, body = current()
        return status, EXPOSITION, body.encode()

    return RouteServer(host, port, {"/metrics": metrics}, name="prometheus", setting=f"--port {port}")
