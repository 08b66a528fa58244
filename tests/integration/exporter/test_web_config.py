"""TLS and basic authentication of a real server, with clients that are not ours: Python's ssl, and urllib."""

from __future__ import annotations

import asyncio
import base64
import http.client
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import bcrypt
import pytest
from aiohttp import web

from services.exporter.web import config as web_config
from services.exporter.web.config import WebConfig
from tests.support.certificates import Authority

HASH = bcrypt.hashpw(b"secret", bcrypt.gensalt(10)).decode()  # the cost of `htpasswd -C 10`
TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
USERS = f"basic_auth_users:\n  prometheus: {HASH}\n"
MUTUAL = TLS + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path)
    made.issue("server")
    made.issue("client", "prometheus")
    return made


@contextmanager
def serving(config: WebConfig) -> Iterator[int]:
    """The port of a server in a thread, with /metrics behind `config`."""
    loop = asyncio.new_event_loop()

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(text="up 1\n")

    async def start() -> tuple[web.AppRunner, int]:
        app = web.Application(middlewares=[config.middleware])
        app.router.add_get("/metrics", metrics)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=config.ssl_context).start()
        return runner, runner.addresses[0][1]

    runner, port = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(timeout=10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=10)
        loop.close()


def configured(authority: Authority, text: str) -> WebConfig:
    path = authority.folder / "web.yml"
    path.write_text(text)
    return web_config.load(path)


def client_context(authority: Authority, certificate: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if certificate is not None:
        context.load_cert_chain(authority.folder / f"{certificate}.crt", authority.folder / f"{certificate}.key")
    return context


def get(url: str, context: ssl.SSLContext | None = None, credentials: str | None = None) -> tuple[int, str]:
    request = urllib.request.Request(url)
    if credentials is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(credentials.encode()).decode())
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, str(error.headers.get("WWW-Authenticate"))


def served_certificate(authority: Authority, port: int) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        client_context(authority).wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        return secure.getpeercert(binary_form=True) or b""


def test_metrics_over_tls(authority: Authority) -> None:
    with serving(configured(authority, TLS)) as port:
        assert get(f"https://localhost:{port}/metrics", client_context(authority)) == (200, "up 1\n")
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            get(f"https://localhost:{port}/metrics", ssl.create_default_context())
        with pytest.raises((OSError, http.client.HTTPException)):
            get(f"http://localhost:{port}/metrics")


def test_tls_below_1_2_is_refused(authority: Authority) -> None:
    with serving(configured(authority, TLS + "  min_version: TLS13\n")) as port:
        old = client_context(authority)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(urllib.error.URLError, match="SSL"):
            get(f"https://localhost:{port}/metrics", old)


def test_clients_need_a_certificate_of_the_authority(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stranger = Authority(tmp_path_factory.mktemp("stranger"))
    stranger.issue("stranger")
    for suffix in ("crt", "key"):
        (authority.folder / f"stranger.{suffix}").write_bytes((stranger.folder / f"stranger.{suffix}").read_bytes())
    with serving(configured(authority, MUTUAL)) as port:
        url = f"https://localhost:{port}/metrics"
        assert get(url, client_context(authority, "client")) == (200, "up 1\n")
        for certificate in (None, "stranger"):
            with pytest.raises((OSError, http.client.HTTPException)):
                get(url, client_context(authority, certificate))


def test_passwords_over_tls_and_without(authority: Authority) -> None:
    for text, scheme in ((TLS + USERS, "https"), (USERS, "http")):
        with serving(configured(authority, text)) as port:
            url = f"{scheme}://localhost:{port}/metrics"
            context = client_context(authority) if scheme == "https" else None
            assert get(url, context, "prometheus:secret") == (200, "up 1\n")
            for wrong in ("prometheus:wrong", "nobody:secret", None):
                assert get(url, context, wrong) == (401, 'Basic realm="gpumon", charset="UTF-8"')
            assert get(url.replace("metrics", "none"), context)[0] == 401  # who is not let in learns no paths


def test_a_scrape_after_the_first_costs_no_hash(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    real, checked = bcrypt.checkpw, list[bytes]()

    def counting(password: bytes, hashed: bytes) -> bool:
        checked.append(hashed)
        return real(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", counting)
    with serving(configured(authority, USERS)) as port:
        for _ in range(20):
            assert get(f"http://localhost:{port}/metrics", None, "prometheus:secret")[0] == 200
    assert len(checked) == 1


def test_guesses_do_not_hold_up_the_scraper(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    real, hashing, go_on = bcrypt.checkpw, threading.Event(), threading.Event()

    def slow(password: bytes, hashed: bytes) -> bool:
        if password != b"secret":
            hashing.set()
            go_on.wait(10)
        return real(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", slow)
    with serving(configured(authority, USERS)) as port, ThreadPoolExecutor(4) as guessers:
        url = f"http://localhost:{port}/metrics"
        assert get(url, None, "prometheus:secret")[0] == 200
        guesses = [guessers.submit(get, url, None, f"prometheus:{number}") for number in range(4)]
        assert hashing.wait(10)
        assert get(url, None, "prometheus:secret")[0] == 200
        assert not any(guess.done() for guess in guesses)
        go_on.set()
        assert {guess.result()[0] for guess in guesses} == {401}


def test_a_renewed_certificate_holds_from_the_next_connection_on(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_config, "LOOK", 0.0)
    with serving(configured(authority, TLS)) as port:
        before = served_certificate(authority, port)
        authority.issue("server")
        after = served_certificate(authority, port)
        assert after != before
        assert after == ssl.PEM_cert_to_DER_cert((authority.folder / "server.crt").read_text())


def test_a_renewed_authority_of_clients_holds_too(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_config, "LOOK", 0.0)
    successor = Authority(tmp_path_factory.mktemp("successor"))
    successor.issue("successor")
    for name in ("successor.crt", "successor.key"):
        (authority.folder / name).write_bytes((successor.folder / name).read_bytes())
    (authority.folder / "clients.crt").write_bytes(authority.certificate.read_bytes())
    with serving(configured(authority, MUTUAL.replace("ca.crt", "clients.crt"))) as port:
        url = f"https://localhost:{port}/metrics"
        assert get(url, client_context(authority, "client"))[0] == 200
        (authority.folder / "clients.crt").write_bytes(successor.certificate.read_bytes())
        assert get(url, client_context(authority, "successor"))[0] == 200
        with pytest.raises((OSError, http.client.HTTPException)):
            get(url, client_context(authority, "client"))


def test_a_changed_user_holds_at_once(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_config, "LOOK", 0.0)
    config = configured(authority, USERS)
    with serving(config) as port:
        url = f"http://localhost:{port}/metrics"
        assert get(url, None, "prometheus:secret")[0] == 200
        changed = bcrypt.hashpw(b"changed", bcrypt.gensalt(4)).decode()
        (authority.folder / "web.yml").write_text(f"basic_auth_users:\n  prometheus: {changed}\n")
        assert get(url, None, "prometheus:secret")[0] == 401
        assert get(url, None, "prometheus:changed")[0] == 200
