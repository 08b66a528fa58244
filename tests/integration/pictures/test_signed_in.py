"""The door through which the browser reaches a Grafana: signed in, and as if Grafana had been called itself."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.pictures.signed_in import signed_in


class Echo(BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        answer = json.dumps({"path": self.path, "headers": dict(self.headers), "body": body}).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Set-Cookie", "a=1")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    Thread(target=server.serve_forever, daemon=True).start()
    yield "127.0.0.1", server.server_address[1]
    server.shutdown()
    server.server_close()


def test_requests_are_handed_on_signed_in(echo: tuple[str, int]) -> None:
    with signed_in(*echo, "Basic abc") as base:
        headers = {"Origin": base, "Authorization": "Basic other", "X-Grafana-Org-Id": "1"}
        request = urllib.request.Request(f"{base}/api/ds/query?x=1", b"{}", headers, method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            told = json.load(answer)
            assert (answer.status, answer.headers["Set-Cookie"]) == (201, "a=1")
    assert (told["path"], told["body"]) == ("/api/ds/query?x=1", "{}")
    assert told["headers"]["Authorization"] == "Basic abc"
    assert told["headers"]["Host"] == f"{echo[0]}:{echo[1]}"
    assert "Origin" not in told["headers"], "Grafana compares it with the address it was called by"
    assert told["headers"]["X-Grafana-Org-Id"] == "1" or told["headers"]["X-grafana-org-id"] == "1"
