"""One target, one deadline, one result: against servers that really misbehave."""

from __future__ import annotations

import asyncio
import time

import pytest

from services.collector.scrape import ScrapeFailedError, Scraper
from services.collector.targets import Target, parse_static
from tests.integration.collector.exporters import Exporters, exposition
from tests.support.processes import free_port

TIMEOUT = 0.5


def fetch(*targets: Target, max_bytes: int = 10**7, timeout: float = TIMEOUT) -> list[bytes | BaseException]:
    async def main() -> list[bytes | BaseException]:
        scraper = Scraper(timeout, max_bytes)
        try:
            return await asyncio.gather(*(scraper.fetch(target) for target in targets), return_exceptions=True)
        finally:
            await scraper.close()

    return asyncio.run(main())


def failure(target: Target, **options: float) -> ScrapeFailedError:
    [result] = fetch(target, **options)  # type: ignore[arg-type]  # numbers either way
    assert isinstance(result, ScrapeFailedError), result
    return result


@pytest.mark.parametrize("path", ["/metrics", "/gzip", "/slow"])
def test_a_whole_body(exporters: Exporters, path: str) -> None:
    assert fetch(parse_static(exporters.target(path)), timeout=30.0) == [exposition(1)]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/cut", "truncated"),
        ("/chunks-cut", "truncated"),
        ("/gzip-bad", "bad_encoding"),
        ("/404", "http_status"),
        ("/500", "http_status"),
        ("/not-http", "not_http"),
        ("/goodbye", "disconnected"),
        ("/bomb", "too_large"),
        ("/endless", "too_large"),
    ],
)
def test_what_went_wrong_has_a_name(exporters: Exporters, path: str, reason: str) -> None:
    """With time enough: twenty megabytes take a busy machine more than half a second."""
    assert failure(parse_static(exporters.target(path)), timeout=30.0).reason == reason


@pytest.mark.parametrize("path", ["/hang", "/drip"])
def test_who_takes_too_long_is_left(exporters: Exporters, path: str) -> None:
    started = time.monotonic()
    assert failure(parse_static(exporters.target(path))).reason == "timeout"
    assert TIMEOUT <= time.monotonic() - started < TIMEOUT + 10


def test_nobody_listens() -> None:
    assert failure(parse_static(f"127.0.0.1:{free_port()}")).reason == "refused"


def test_no_such_host() -> None:
    assert failure(parse_static("no-such-host.invalid:9400"), timeout=5.0).reason == "unknown_host"


def test_the_bound_counts_decompressed_bytes(exporters: Exporters) -> None:
    size = len(exposition(1))
    assert fetch(parse_static(exporters.target("/gzip")), max_bytes=size) == [exposition(1)]
    assert failure(parse_static(exporters.target("/gzip")), max_bytes=size - 1).reason == "too_large"


def test_no_target_waits_for_another(exporters: Exporters) -> None:
    started = time.monotonic()
    paths = ["/hang"] * 20 + ["/slow"] * 20 + ["/metrics"] * 20
    results = fetch(*(parse_static(exporters.target(path)) for path in paths), timeout=3.0)
    assert time.monotonic() - started < 9  # one after another they would take a minute
    assert [isinstance(result, bytes) for result in results] == [False] * 20 + [True] * 40


def test_it_asks_as_prometheus_does_and_keeps_the_connection(exporters: Exporters) -> None:
    async def twice() -> None:
        scraper = Scraper(1.0, 10**6)
        for _ in range(2):
            await scraper.fetch(parse_static(exporters.target()))
        await scraper.close()

    asyncio.run(twice())
    request = exporters.requests[0].decode()
    assert "application/openmetrics-text;version=1.0.0" in request
    assert "Accept-Encoding: gzip" in request
    assert "X-Prometheus-Scrape-Timeout-Seconds: 1" in request


def test_credentials_in_the_url_are_sent_as_basic_auth(exporters: Exporters) -> None:
    fetch(parse_static(f"http://user:secret@{exporters.address}/metrics"))
    assert b"Authorization: Basic dXNlcjpzZWNyZXQ=" in exporters.requests[0]
