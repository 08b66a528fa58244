"""The exporter over HTTP. Every answer comes from memory: nothing here waits for a driver."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any, Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware

from services.exporter.page import EMPTY, WORTHWHILE, Page
from services.exporter.sampler import Status
from services.ops.serving import accepts_gzip

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""dcgm-exporter sends none, and Prometheus 3 refuses a scrape without one unless told which to take."""
_NOSNIFF: Final = {"X-Content-Type-Options": "nosniff"}
_PATHS: Final = {
    "/metrics": "the exposition",
    "/health": "OK while readings are fresh, else 503 and why",
    "/livez": "the exporter runs",
    "/readyz": "readings are fresh",
    "/snapshot": "the whole nvidia-smi document of each GPU (JSON)",
}

Snapshots = Callable[[], dict[str, Any]]
"""The body of /snapshot."""


class Site:
    """The routes."""

    def __init__(
        self,
        status: Callable[[], Status],
        page: Callable[[], Page],
        tail: Callable[[Status], str],
        snapshots: Snapshots,
    ) -> None:
        """`page`: what holds while the reading is fresh; `tail`: what is said at each scrape, however old it is."""
        self._status, self._page, self._tail, self._snapshots = status, page, tail, snapshots

    def application(self, *middlewares: Middleware) -> web.Application:
        app = web.Application(middlewares=middlewares)
        app.add_routes([
            web.get("/", self.index), web.get("/metrics", self.metrics), web.get("/health", self.health),
            web.get("/livez", self.live), web.get("/readyz", self.ready), web.get("/snapshot", self.snapshot),
        ])  # fmt: skip
        return app

    async def metrics(self, request: web.Request) -> web.Response:
        status = self._status()
        page = self._page() if status.fresh else EMPTY
        tail = self._tail(status).encode()
        headers = {**_NOSNIFF, "Content-Type": CONTENT_TYPE, "Vary": "Accept-Encoding"}
        if accepts_gzip(request) and len(page) + len(tail) > WORTHWHILE:
            return web.Response(body=page.gzip(tail), headers={**headers, "Content-Encoding": "gzip"})
        return web.Response(body=page.plain(tail), headers=headers)

    async def health(self, _request: web.Request) -> web.Response:
        problem = self._status().problem
        return web.Response(text="OK" if problem is None else f"{problem}\n", status=200 if problem is None else 503)

    async def live(self, _request: web.Request) -> web.Response:
        """That this is answered is the answer: a hung driver is no reason to restart the exporter."""
        return _verdict(None)

    async def ready(self, _request: web.Request) -> web.Response:
        return _verdict(self._status().problem)

    async def snapshot(self, request: web.Request) -> web.Response:
        response = web.Response(body=msgspec.json.encode(self._snapshots()), content_type="application/json")
        if accepts_gzip(request):
            response.enable_compression(web.ContentCoding.gzip)
        return response

    async def index(self, _request: web.Request) -> web.Response:
        rows = "".join(f'<li><a href="{path}">{path}</a>: {text}</li>' for path, text in _PATHS.items())
        status = self._status()
        state = "readings are fresh" if status.problem is None else status.problem
        page = (
            "<!doctype html><html lang=en><head><title>GPU exporter</title></head><body><h1>GPU exporter</h1>"
            f"<p>Source: {status.source or 'none'}; {html.escape(state)}</p><ul>{rows}</ul></body></html>"
        )
        return web.Response(text=page, content_type="text/html")


def _verdict(problem: str | None) -> web.Response:
    body = {"status": "ok"} if problem is None else {"status": "failed", "reason": problem}
    return web.json_response(body, status=200 if problem is None else 503)
