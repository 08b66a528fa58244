"""One target, one deadline, one result: the body of its exposition, or why there is none."""

from __future__ import annotations

import asyncio
import errno
import io
import ssl
import zlib
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import urljoin

import aiohttp

from services.collector.targets import Target

ACCEPT: Final = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
"""What Prometheus sends: exporters answer us as they answer it."""
_READ_BUFFER: Final = 1024 * 1024
"""Bytes aiohttp buffers before it stops reading; its 64 KiB would cost a 10,000-GPU body hundreds of pauses."""

_PIECE: Final = 1024 * 1024
"""Bytes decompressed at a time: gzip makes a thousand bytes of one, so no part may be decompressed whole."""
SNAPSHOT_MAX_BYTES: Final = 32 * 1024 * 1024
"""Bytes of all documents of a host: `nvidia-smi -q -x` of sixteen GPUs has about one million."""


class ScrapeFailedError(Exception):
    """No body. `reason` is one of a few words (a metric label), `detail` a sentence for the log."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Scraper:
    """All targets share one HTTP session: connections are kept open between scrapes."""

    def __init__(self, timeout: float, max_bytes: int) -> None:
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._headers = {
            "Accept": ACCEPT,
            "Accept-Encoding": "gzip",
            "User-Agent": "gpumon-collector",
            "X-Prometheus-Scrape-Timeout-Seconds": f"{timeout:g}",
        }
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=3600, ttl_dns_cache=30),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # one deadline, around everything
            read_bufsize=_READ_BUFFER,
            auto_decompress=False,  # it would decompress a part whole before the bound is looked at
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        await self._session.close()

    async def fetch(self, target: Target) -> bytes:
        """The body, decompressed. Raises ScrapeFailedError within the timeout."""
        return await self._within(target.url, self._max_bytes, "MAX_SCRAPE_BYTES")

    async def fetch_snapshot(self, target: Target) -> bytes:
        """The same of `/snapshot` of the same exporter."""
        size = min(SNAPSHOT_MAX_BYTES, self._max_bytes)
        return await self._within(snapshot_url(target.url), size, "the bound on snapshots")

    async def _within(self, url: str, max_bytes: int, bound: str) -> bytes:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._fetch(url, max_bytes, bound)
        except TimeoutError:
            raise ScrapeFailedError("timeout", f"no complete answer within {self._timeout:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise classify(error) from None

    async def _fetch(self, url: str, max_bytes: int, bound: str) -> bytes:
        async with self._session.get(url, headers=self._headers) as response:
            if response.status != 200:
                raise ScrapeFailedError("http_status", f"HTTP {response.status} {response.reason or ''}".strip())
            encoding = response.headers.get("Content-Encoding", "")
            try:
                return await gather(response.content.iter_any(), encoding, max_bytes, bound)
            except ScrapeFailedError:
                response.close()
                raise


def snapshot_url(url: str) -> str:
    """`https://user:secret@gpu-7:9400/metrics?x=1` -> the same with `/snapshot`."""
    return urljoin(url, "snapshot")


async def gather(parts: AsyncIterator[bytes], encoding: str, max_bytes: int, bound: str = "MAX_SCRAPE_BYTES") -> bytes:
    """The parts of an answer as one body of at most `max_bytes`, decompressed. Raises ScrapeFailedError."""
    body = io.BytesIO()  # gives its memory away as bytes in the end: the body is never there twice
    async for piece in _plain(parts, encoding.strip().lower()):
        if body.tell() + len(piece) > max_bytes:
            raise ScrapeFailedError("too_large", f"more than {bound}={max_bytes} after decompression")
        body.write(piece)
    return body.getvalue()


def _plain(parts: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    if encoding in ("", "identity"):
        return parts
    if encoding in ("gzip", "x-gzip"):
        return _decompressed(parts)
    raise ScrapeFailedError("bad_encoding", f"Content-Encoding {encoding[:40]!r}, where gzip was asked for")


async def _decompressed(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pieces of at most `_PIECE` bytes; between those of one part, other targets have their turn."""
    stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    async for part in parts:
        rest = part
        while rest and not stream.unused_data:
            try:
                yield stream.decompress(rest, _PIECE)
            except zlib.error as error:
                raise ScrapeFailedError("bad_encoding", str(error)) from None
            rest = stream.unconsumed_tail
            if rest:
                await asyncio.sleep(0)
        if stream.unused_data:
            raise ScrapeFailedError("bad_encoding", "more follows the end of the gzip stream")
    if not stream.eof:
        raise ScrapeFailedError("truncated", "the gzip stream has no end")


_BY_TYPE: Final[tuple[tuple[type[Exception], str], ...]] = (
    (aiohttp.ClientConnectorDNSError, "unknown_host"),
    (aiohttp.ClientSSLError, "tls"),
    (ssl.SSLError, "tls"),
    (aiohttp.ServerDisconnectedError, "disconnected"),
    (aiohttp.ClientPayloadError, "truncated"),
    (aiohttp.TooManyRedirects, "http_status"),
    (aiohttp.ClientResponseError, "not_http"),
    (aiohttp.InvalidURL, "bad_url"),
    (ConnectionResetError, "disconnected"),
)
_BY_ERRNO: Final = {
    errno.ECONNREFUSED: "refused",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ETIMEDOUT: "timeout",
    errno.ECONNRESET: "disconnected",
    errno.EMFILE: "no_file_descriptors",
    errno.ENFILE: "no_file_descriptors",
}


def classify(error: Exception) -> ScrapeFailedError:
    """Name what went wrong with one of a few words."""
    detail = " ".join(str(error).split())[:200] or type(error).__name__
    number = error.errno if isinstance(error, OSError) else None
    for kind, reason in _BY_TYPE:
        if isinstance(error, kind):
            return ScrapeFailedError(reason, detail)
    return ScrapeFailedError(_BY_ERRNO.get(number or 0, "connection"), detail)
