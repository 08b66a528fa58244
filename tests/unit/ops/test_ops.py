"""What every service serves about itself."""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Gauge

from services.ops.health import Heartbeat, OpsError, OpsServer
from services.ops.logging import JsonFormatter, TextFormatter
from tests.support.clock import HandClock


def test_heartbeat_dies_after_its_limit_and_revives() -> None:
    clock = HandClock()
    heart = Heartbeat(5, clock)
    clock.sleep(5)
    assert heart.problem() is None
    clock.sleep(1)
    assert heart.problem() == "main loop has not turned for 6 s"
    heart.beat()
    assert heart.problem() is None


@pytest.fixture
def server() -> Iterator[OpsServer]:
    registry = CollectorRegistry()
    Gauge("answer", "x", registry=registry).set(42)
    with OpsServer("127.0.0.1", 0, live=lambda: None, ready=lambda: "database is away", registry=registry) as ops:
        yield ops


def _get(server: OpsServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_endpoints(server: OpsServer) -> None:
    assert "answer 42.0" in _get(server, "/metrics")[1]
    assert _get(server, "/livez") == (200, '{"status": "ok"}')
    assert _get(server, "/readyz") == (503, '{"status": "failed", "reason": "database is away"}')
    assert _get(server, "/nothing") == (404, "try /metrics, /livez, /readyz\n")


def test_log_lines_carry_their_fields() -> None:
    record = logging.makeLogRecord({"name": "sink", "msg": "batch of %d", "args": (3,), "levelname": "INFO", "lag": 7})
    document = json.loads(JsonFormatter().format(record))
    assert (document["message"], document["lag"], document["service"]) == ("batch of 3", 7, "sink")
    assert TextFormatter().format(record).endswith("sink: batch of 3 lag=7")


def test_a_taken_port_is_refused_by_name(server: OpsServer) -> None:
    with pytest.raises(OpsError, match=f"OPS_HOST=127.0.0.1 OPS_PORT={server.port}: cannot listen there"):
        OpsServer("127.0.0.1", server.port, live=lambda: None, ready=lambda: None, registry=CollectorRegistry())
