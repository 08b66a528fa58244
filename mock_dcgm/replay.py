"""Recorded expositions, served byte for byte: `/metrics` gives one after the other, one per scrape.

`/hosts/{name}/metrics`, with the file's name without its ending, always gives that one file.
"""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from mock_dcgm.server import compress, send
from services.ops.serving import accepts_gzip


class ReplayError(Exception):
    """A recording cannot be read."""


class Recordings:
    """Bodies in turn; after the last one the last again, or the first with `loop`."""

    def __init__(self, files: list[Path], *, loop: bool) -> None:
        try:
            self._bodies = [(path, path.read_bytes()) for path in files]
        except OSError as error:
            raise ReplayError(f"recording {error.filename}: {error.strerror}") from None
        self._loop, self._next = loop, 0

    def names(self) -> list[str]:
        """One name per file: its own without the ending; equal names are numbered."""
        stems = [path.stem for path, _ in self._bodies]
        return [stem if stems.count(stem) == 1 else f"{stem}-{i}" for i, stem in enumerate(stems)]

    def named(self, name: str) -> bytes | None:
        found = [body for given, (_, body) in zip(self.names(), self._bodies, strict=True) if given == name]
        return found[0] if found else None

    def next(self) -> bytes:
        body = self._bodies[self._next][1]
        last = self._next == len(self._bodies) - 1
        self._next = (0 if self._loop else self._next) if last else self._next + 1
        return body


def application(recordings: Recordings) -> web.Application:
    """The routes of a replay."""

    async def metrics(request: web.Request) -> web.StreamResponse:
        name = request.match_info.get("host")
        body = recordings.next() if name is None else recordings.named(name)
        if body is None:
            return web.json_response({"error": f"no recording {name!r}"}, status=404)
        gzip = accepts_gzip(request)
        return await send(request, compress((body,)) if gzip else (body,), gzip=gzip)

    async def health(_request: web.Request) -> web.Response:
        return web.Response(text="OK")

    async def index(_request: web.Request) -> web.Response:
        lines = "".join(f"GET /hosts/{name}/metrics\n" for name in recordings.names())
        return web.Response(text=f"Recorded expositions\n\nGET /metrics      the next one\n{lines}GET /health\n")

    app = web.Application()
    app.add_routes([
        web.get("/", index), web.get("/health", health), web.get("/metrics", metrics),
        web.get("/hosts/{host}/metrics", metrics),
    ])  # fmt: skip
    return app
