"""A real HTTP server that speaks Ollama's API, streaming included; what it does wrong is set per model."""

from __future__ import annotations

import asyncio
import json
import threading
from types import TracebackType
from typing import Any, Self

from aiohttp import web

TOKENS = 5
FINAL = {
    "done": True,
    "done_reason": "stop",
    "response": "",
    "context": [1, 2, 3],
    "total_duration": 700_000_000,
    "load_duration": 100_000_000,
    "prompt_eval_count": 40,
    "prompt_eval_duration": 200_000_000,
    "eval_count": 90,
    "eval_duration": 360_000_000,
}
"""Less than a second in all: an answer that comes at once cannot have taken much longer."""


def tag(name: str, size: int, digest: str | None = None, **more: Any) -> dict[str, Any]:
    """One entry of /api/tags."""
    return {
        "name": name,
        "model": name,
        "modified_at": "2026-01-04T00:00:00Z",
        "size": size,
        "digest": digest or f"sha256:{name}",
        "details": {"family": "qwen2", "parameter_size": "7B", "quantization_level": "Q4_K_M"},
        **more,
    }


class OllamaServer:
    """A context. `behaviour`: model -> cut, error, http500, slow, garbage, hang; every other answers as it should."""

    def __init__(self, models: list[dict[str, Any]], behaviour: dict[str, str] | None = None) -> None:
        self.models = models
        self.behaviour = behaviour or {}
        self.lines: dict[str, bytes] = {}
        """Model -> what it answers instead, byte for byte."""
        self.requests: list[dict[str, Any]] = []
        """Bodies of /api/generate with a prompt."""
        self.unloaded: list[str] = []
        self.asked = threading.Event()
        """A generation has begun."""
        self.release = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release.set()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _serve(self) -> None:
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        app = web.Application()
        app.router.add_get("/api/tags", self._tags)
        app.router.add_post("/api/generate", self._generate)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _tags(self, _request: web.Request) -> web.Response:
        return web.json_response({"models": self.models})

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        name = body["model"]
        if not body.get("prompt"):
            self.unloaded.append(name)
            return web.json_response({"model": name, "response": "", "done": True, "done_reason": "unload"})
        self.requests.append(body)
        self.asked.set()
        how = self.behaviour.get(name, "")
        if name not in [model["name"] for model in self.models]:
            return web.json_response({"error": f"model '{name}' not found"}, status=404)
        if how == "http500":
            return web.json_response({"error": "CUDA error: out of memory"}, status=500)
        if name in self.lines:
            return web.Response(body=self.lines[name])
        return await self._stream(request, name, how)

    async def _stream(self, request: web.Request, name: str, how: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for number in range(TOKENS):
            await response.write(_line(model=name, response=f"tok{number} ", done=False))
            if number == 2 and how:
                await self._misbehave(request, response, how)
        await response.write(_line(model=name, **FINAL))
        await response.write_eof()
        return response

    async def _misbehave(self, request: web.Request, response: web.StreamResponse, how: str) -> None:
        if how == "cut":
            assert request.transport is not None
            request.transport.abort()
        elif how == "ends":
            await response.write_eof()
        elif how == "error":
            await response.write(_line(error="an error was encountered while running the model"))
        elif how == "garbage":
            await response.write(b"<html>bad gateway</html>\n")
        elif how in ("slow", "hang"):
            while not self.release.is_set():
                await asyncio.sleep(0.02)


def _line(**document: Any) -> bytes:
    return json.dumps(document).encode() + b"\n"
