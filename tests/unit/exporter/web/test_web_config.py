"""The web configuration file: what is taken, and what each wrong one is told."""

from __future__ import annotations

import logging
import os
import ssl
import subprocess
from pathlib import Path

import pytest

from services.exporter.web.config import WebConfig, WebConfigError, load
from tests.support.certificates import Authority
from tests.unit.exporter.xid.clocks import HandClock

HASH = "$2b$04$" + "a" * 53


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    authority.issue("server")
    authority.issue("other")
    return authority.folder


@pytest.fixture
def folder(tmp_path: Path, certificates: Path) -> Path:
    for file in certificates.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "web.yml"
    path.write_text(text)
    return path


TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "basic_auth_users: {}\n"])
def test_an_empty_file_is_plain_http_for_everybody(tmp_path: Path, text: str) -> None:
    config = load(write(tmp_path, text))
    assert (config.ssl_context, config.scheme) == (None, "http")


def test_certificates_lie_beside_the_file(folder: Path) -> None:
    config = load(write(folder, TLS))
    assert config.scheme == "https"
    context = config.ssl_context
    assert context is not None
    assert (context.minimum_version, context.maximum_version) == (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    assert context.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("VerifyClientCertIfGiven", ssl.CERT_OPTIONAL), ("RequireAndVerifyClientCert", ssl.CERT_REQUIRED)],
)
def test_clients_are_asked_for_a_certificate(folder: Path, kind: str, mode: ssl.VerifyMode) -> None:
    more = f"  client_ca_file: ca.crt\n  client_auth_type: {kind}\n  min_version: TLS13\n"
    context = load(write(folder, TLS + more)).ssl_context
    assert context is not None
    assert context.verify_mode is mode
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert "test authority" in str(context.get_ca_certs())


def test_http2_is_taken_because_clients_settle_for_http_1(tmp_path: Path) -> None:
    assert load(write(tmp_path, "http_server_config:\n  http2: true\n")).scheme == "http"


WRONG = [
    ("tls_server_config:\n  cert_fil: x\n", "tls_server_config.cert_fil: unknown key; allowed are cert_file, key_file"),
    (
        "tls_config: {}\n",
        "tls_config: unknown key; allowed are tls_server_config, http_server_config, basic_auth_users",
    ),
    (TLS + "  cipher_suites: [TLS_AES_128_GCM_SHA256]\n", "tls_server_config.cipher_suites: not offered"),
    (TLS + "  client_allowed_sans: [a]\n", "tls_server_config.client_allowed_sans: not offered"),
    ("http_server_config:\n  headers: {X-Frame-Options: deny}\n", "http_server_config.headers: not offered"),
    ("tls_server_config:\n  cert_file: server.crt\n", "tls_server_config.key_file: Field required"),
    (TLS + "  min_version: TLS10\n", "tls_server_config.min_version: Input should be 'TLS12' or 'TLS13'"),
    (TLS + "  min_version: TLS13\n  max_version: TLS12\n", "min_version is above max_version"),
    (TLS + "  client_auth_type: RequestClientCert\n", "tls_server_config.client_auth_type: Input should be"),
    (TLS + "  client_auth_type: RequireAndVerifyClientCert\n", "needs client_ca_file"),
    (TLS + "  client_ca_file: ca.crt\n", "client_ca_file without client_auth_type"),
    (TLS.replace("server.key", "none.key"), "none.key: No such file or directory"),
    (TLS.replace("server.key", "other.key"), "other.key: KEY_VALUES_MISMATCH"),
    (TLS.replace("server.crt", "server.key"), "server.key, key_file"),
    (
        "basic_auth_users:\n  prometheus: secret\n",
        "the value of 'prometheus' is no bcrypt hash; make one with: htpasswd",
    ),
    (f"basic_auth_users:\n  'a:b': {HASH}\n", "'a:b' is no user name"),
    ("basic_auth_users: [a]\n", "basic_auth_users: Input should be a valid dictionary"),
    ("- a\n", "expected tls_server_config and basic_auth_users, found a list"),
    ("a: [\n", "no YAML"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_file_is_told_what_is_wrong(folder: Path, text: str, message: str) -> None:
    with pytest.raises(WebConfigError) as error:
        load(write(folder, text))
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert "secret" not in str(error.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(WebConfigError, match=r"none.yml: No such file or directory"):
        load(tmp_path / "none.yml")


def test_an_encrypted_key_is_refused_and_nobody_is_asked(folder: Path) -> None:
    subprocess.run(
        ["openssl", "ec", "-aes256", "-passout", "pass:x", "-in", "server.key", "-out", "locked.key"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    with pytest.raises(WebConfigError, match=r"locked\.key"):
        load(write(folder, TLS.replace("server.key", "locked.key")))


def refreshed(config: WebConfig, clock: HandClock) -> WebConfig:
    clock.advance(2)
    config.refresh()
    return config


def test_a_broken_change_keeps_the_old_state_and_is_logged_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = HandClock()
    path = write(folder, TLS + f"basic_auth_users:\n  prometheus: {HASH}\n")
    config = load(path, clock)
    before = config._state
    write(folder, "nonsense: 1\n")
    refreshed(config, clock)
    refreshed(config, clock)
    assert config._state is before
    assert [r.levelno for r in caplog.records] == [logging.ERROR]
    assert "the old web configuration stays in force" in caplog.text
    write(folder, TLS)
    assert refreshed(config, clock)._state.auth is None


def test_the_files_are_looked_at_once_a_second(folder: Path) -> None:
    clock = HandClock()
    config = load(write(folder, TLS), clock)
    write(folder, TLS + f"basic_auth_users:\n  prometheus: {HASH}\n")
    clock.advance(0.5)
    config.refresh()
    assert config._state.auth is None
    clock.advance(0.6)
    config.refresh()
    assert config._state.auth is not None


def test_a_certificate_and_its_key_that_are_replaced_one_after_the_other(folder: Path) -> None:
    clock = HandClock()
    config = load(write(folder, TLS), clock)
    before = config._state.context
    (folder / "server.crt").write_bytes((folder / "other.crt").read_bytes())
    assert refreshed(config, clock)._state.context is before
    (folder / "server.key").write_bytes((folder / "other.key").read_bytes())
    assert refreshed(config, clock)._state.context is not before


def test_the_kind_of_tls_stays_and_users_change_all_the_same(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = HandClock()
    config = load(write(folder, TLS), clock)
    before = config._state.context
    write(folder, f"basic_auth_users:\n  prometheus: {HASH}\n")
    refreshed(config, clock)
    assert config._state.context is before
    assert config._state.auth is not None
    assert "with a restart only" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [("[" * 5_000, "nested too deep"), ("[" * 100_000, "larger than 65536 bytes"), ("\t", "no YAML")],
)
def test_nonsense_is_refused_in_words(folder: Path, text: str, message: str) -> None:
    with pytest.raises(WebConfigError, match=message):
        load(write(folder, text))


@pytest.mark.timeout(10)
@pytest.mark.parametrize("name", ["web.yml", "server.crt", "server.key"])
def test_a_fifo_is_not_waited_for(folder: Path, name: str) -> None:
    path = write(folder, TLS)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(WebConfigError, match=f"{name}: it is a FIFO, not a regular file"):
        load(path)
