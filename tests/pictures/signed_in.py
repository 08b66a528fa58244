"""A door to a Grafana that signs in whoever comes through it: headless Chromium cannot fill in a login form."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Final

_OWN: Final = frozenset({"host", "origin", "referer", "connection", "authorization", "accept-encoding"})
"""Headers of a request that are not handed on: Grafana compares some with the address it was called by."""
_HOPS: Final = frozenset({"transfer-encoding", "connection", "content-length"})
"""Headers of an answer that belong to one connection."""


@contextmanager
def signed_in(host: str, port: int, authorization: str) -> Iterator[str]:
    """Base URL on this machine. Websockets do not get through; Grafana does without."""

    class Door(BaseHTTPRequestHandler):
        def _hand_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kept = {name: value for name, value in self.headers.items() if name.lower() not in _OWN}
            connection = http.client.HTTPConnection(host, port, timeout=60)
            connection.request(self.command, self.path, body, {**kept, "Authorization": authorization})
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _HOPS:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with suppress(ConnectionError):  # the browser does not wait for what comes after its picture
                self.wfile.write(content)

        do_GET = do_POST = do_PUT = _hand_on  # noqa: N815  # the base class names them

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it
            """Hundreds of files are not worth a line each."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
