"""Ollama's HTTP API, as far as the benchmark needs it: the list of models, a streamed generation, unloading.

Source: Ollama's API documentation (`/api/tags`, `/api/generate`; durations in nanoseconds).
"""

from __future__ import annotations

import asyncio
import json
import os
import reprlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from services.llm_bench.results import Timing, Wall, timing_of
from services.llm_bench.selection import Model, model_of
from services.llm_bench.told import one_line

CONNECT_SECONDS: Final = 5.0
"""A server on the same network accepts within milliseconds."""
UNLOAD_SECONDS: Final = 30.0
"""Freeing the memory takes a second or two; the answer is not waited for longer."""
MAX_LINE: Final = 16 * 1024 * 1024
"""Bytes. The final object lists the context's tokens; a longer line is no answer of Ollama."""


class OllamaError(Exception):
    """A request failed; the message is one line."""


class UnreachableError(OllamaError):
    """Nobody answers at that address."""


class ModelMissingError(OllamaError):
    pass


class Ollama:
    """A context; one request at a time."""

    def __init__(self, url: str, timeout: float) -> None:
        """`timeout`: seconds for one request, from sending it to its last byte."""
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def models(self) -> list[Model]:
        """Everything installed. Raises OllamaError."""
        answer = [line async for line in self._lines("GET", "/api/tags", None, self._timeout)]
        try:
            return [model_of(item) for item in answer[0]["models"] or ()]
        except (LookupError, TypeError, ValueError) as error:
            raise OllamaError(f"{self.url}/api/tags does not answer as Ollama does ({error})") from None

    async def generate(self, model: str, prompt: str, options: Mapping[str, Any], token: Callable[[], None]) -> Timing:
        """One answer; `token` is called for each piece of it. Raises OllamaError."""
        request = {"model": model, "prompt": prompt, "stream": True, "options": dict(options)}
        pieces = 0
        now = asyncio.get_running_loop().time
        begin = first = now()
        async with aclosing(self._lines("POST", "/api/generate", request, self._timeout)) as lines:
            async for line in lines:
                if "error" in line:
                    raise OllamaError(f"Ollama reports after {pieces} tokens: {one_line(line['error'])}")
                if line.get("done", False) is not False:
                    end = now()
                    return _final(line, Wall(end - begin, end - first if pieces else 0.0))
                first = first if pieces else now()
                pieces += 1
                token()
        raise OllamaError(f"the stream ended after {pieces} tokens without its final object")

    async def unload(self, model: str) -> None:
        """Free the GPU's memory now (`keep_alive` 0 without a prompt), so that the next model finds it empty, and its
        load time is measured from disk or page cache. Raises OllamaError."""
        request = {"model": model, "keep_alive": 0}
        async with aclosing(self._lines("POST", "/api/generate", request, UNLOAD_SECONDS)) as lines:
            async for line in lines:
                if "error" in line:
                    raise OllamaError(f"Ollama reports: {one_line(line['error'])}")

    async def _lines(
        self, method: str, path: str, document: Mapping[str, Any] | None, timeout: float
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The objects of an answer: one a line, or one in all."""
        if self._session is None:
            raise RuntimeError("use it as a context")
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_SECONDS)
        try:
            async with self._session.request(method, self.url + path, json=document, timeout=limits) as answer:
                if answer.status != 200:
                    raise _refused(answer.status, await answer.content.read(4096), document)
                async for line in _split(answer.content):
                    yield _object(line)
        except aiohttp.ClientConnectorError as error:
            number = error.os_error.errno or 0  # asyncio's own text repeats the address; of a DNS error it is negative
            reason = os.strerror(number) if number > 0 else error.os_error.strerror or str(error.os_error)
            raise UnreachableError(f"nobody answers at {self.url} ({reason}); is `ollama serve` running?") from None
        except aiohttp.ConnectionTimeoutError:
            raise UnreachableError(f"nobody answers at {self.url} within {CONNECT_SECONDS:g} s") from None
        except aiohttp.InvalidURL:
            raise UnreachableError(f"{self.url!r} is no URL; for example http://127.0.0.1:11434") from None
        except TimeoutError:
            raise OllamaError(f"no end after {timeout:g} s (--timeout)") from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise OllamaError(f"the connection broke: {one_line(str(error)) or type(error).__name__}") from None


def _final(line: Mapping[str, Any], wall: Wall) -> Timing:
    """An answer of which nobody says how many tokens it has is none. Raises OllamaError."""
    if line["done"] is not True:
        raise OllamaError(f"not Ollama's final object: done is {reprlib.repr(line['done'])}")
    timing = timing_of(line, wall)
    if not timing.gen_tokens:
        counted = next((d for d in timing.doubts if d.startswith("eval_count")), None)
        said = f"eval_count is {reprlib.repr(line['eval_count'])}" if "eval_count" in line else "eval_count is missing"
        raise OllamaError(f"its final object counts no generated tokens: {counted or said}")
    return timing


async def _split(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    rest = b""
    async for data in content.iter_any():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.strip():
                yield line
        if len(rest) > MAX_LINE:
            raise OllamaError(f"a line of more than {MAX_LINE} bytes: this is not Ollama")
    if rest.strip():
        yield rest


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise OllamaError(f"not a JSON object: {line[:60].decode(errors='replace')!r}")
    return found


def _refused(status: int, body: bytes, document: Mapping[str, Any] | None) -> OllamaError:
    try:
        said = one_line(json.loads(body)["error"])
    except (ValueError, LookupError, TypeError, RecursionError):
        said = one_line(body[:200].decode(errors="replace")) or "no reason given"
    if status == 404 and document is not None:
        return ModelMissingError(f"{said} (HTTP 404); `ollama pull {document['model']}`")
    return OllamaError(f"HTTP {status}: {said}")
