"""Answers of the wrong shape, without an end, with codes for the terminal: one clear line, never a traceback."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from services.grafana import folders, transport
from tests.integration.grafana.raw_server import OK, RawServer
from tests.support.grafana_server import TOKEN, FakeGrafana, Reply

JSON = {"Content-Type": "application/json"}
WRONG = {
    "GET /api/health": ["[]", "1", "null", "{}", '{"database": []}', '{"database": "ok", "version": {}}'],
    "GET /api/datasources": ["{}", "null", "[null]", '[{"uid": 1, "name": "n", "type": "postgres"}]', '["x"]'],
    "GET /api/folders/gpu-health-monitor": ["[]", "{}", '{"uid": "u", "title": null}', '{"uid": 7, "title": "t"}'],
    "GET /api/folders": ["{}", '"x"', "[1]", '[{"uid": "u"}]', '[{"uid": "u", "title": []}]'],
    "POST /api/folders": ["[]", '{"uid": "gpu-health-monitor"}', '{"uid": null, "title": "GPU Health Monitor"}'],
    "GET /api/dashboards/uid/gpu-telemetry": [
        '{"dashboard": {}, "meta": {"provisioned": "yes"}}',
        "[]",
        '{"dashboard": []}',
        '{"dashboard": {}, "meta": null}',
    ],
    "GET /api/dashboards/uid/gpu-telemetry/versions": [
        '{"versions": 5}',
        "[1]",
        '"x"',
        '{"versions": [{"message": 1}]}',
    ],
    "POST /api/dashboards/db": ["[]", "null", '{"url": 5}'],
}


@pytest.mark.parametrize(("kind", "body"), [(kind, body) for kind, bodies in WRONG.items() for body in bodies])
def test_a_wrong_shape_is_one_clear_line(grafana: FakeGrafana, run: Any, kind: str, body: str) -> None:
    if kind.endswith("versions"):
        run(grafana, "--only", "host")
        grafana.dashboards["gpu-telemetry"]["dashboard"]["panels"] = []
    grafana.always[kind] = Reply(200, body, JSON)
    refused = run(grafana, "--only", "host")
    assert refused.code == 1
    assert refused.err.count("\n") == 1, refused.err
    assert "does not answer as Grafana" in refused.err
    assert kind.split()[1] in refused.err
    assert "pydantic" not in refused.err


@pytest.mark.parametrize("body", ["[" * 200_000, '{"a":' * 100_000, '{"database": "\\ud800"}', "\xff", "9" * 10_000])
def test_json_that_no_grafana_writes(run: Any, body: str) -> None:
    head = OK + f"Content-Length: {len(body)}\r\n\r\n".encode()
    with RawServer([head + body.encode("latin-1")]) as server:
        refused = run(server.url)
    assert refused.code == 1
    assert refused.err.count("\n") == 1, refused.err


def test_a_data_source_of_another_kind_may_be_as_it_likes(grafana: FakeGrafana, run: Any) -> None:
    grafana.add_data_source("x", "X", "some-plugin")
    grafana.data_sources[-1] |= {"jsonData": {"database": 5, "sslmode": []}, "url": None, "user": None}
    grafana.data_sources.append({"uid": "y", "name": "Y", "type": "y", "jsonData": None})
    assert run(grafana, "--only", "host").code == 0


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (OK + b"Content-Length: 1000000\r\n\r\n", b" "),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    ],
    ids=["status", "headers", "body", "chunks"],
)
def test_a_byte_now_and_then(run: Any, first: bytes, then: bytes) -> None:
    """Each comes long before any read times out."""
    with RawServer([]) as server:
        began = time.monotonic()
        refused = run(server.saying(server.slowly(first, then, 0.05)).url, "--timeout", "1")
        took = time.monotonic() - began
    assert refused.code == 1
    assert "within 1 s" in refused.err
    assert "--timeout" in refused.err
    assert took < 5
    assert server.connections == 1


def test_a_body_without_end(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MOST_BYTES", 1024 * 1024)
    with RawServer([]) as server:
        endless = server.slowly(OK + b"\r\n[", b" " * 65536, 0)
        refused = run(server.saying(endless).url)
    assert refused.code == 1
    assert "more than 1 MiB" in refused.err


@pytest.mark.parametrize("body", [b"", b'{"database": "ok"'])
def test_a_body_that_breaks_off(run: Any, body: bytes) -> None:
    with RawServer([OK + b"Content-Length: 100\r\n\r\n" + body]) as server:
        refused = run(server.url)
    assert refused.code == 1
    assert "broke" in refused.err
    assert refused.err.count("\n") == 1


@pytest.mark.parametrize(
    "bytes_", [b"SSH-2.0-OpenSSH_9.6\r\n", b"", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 999999 x\r\n\r\n"]
)
def test_what_is_no_http(run: Any, bytes_: bytes) -> None:
    with RawServer([bytes_]) as server:
        refused = run(server.url)
    assert refused.code == 1
    assert refused.err.count("\n") == 1, refused.err


def test_the_same_page_of_folders_again_and_again(grafana: FakeGrafana, run: Any) -> None:
    page = json.dumps([{"uid": f"u{n}", "title": f"t{n}"} for n in range(1000)])
    grafana.always["GET /api/folders"] = Reply(200, page, JSON)
    refused = run(grafana)
    assert refused.code == 1
    assert "same page" in refused.err
    assert len([path for _, path, _ in grafana.requests if "/api/folders?" in path]) == 2


def test_pages_of_folders_without_end(grafana: FakeGrafana, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MOST_PAGES", 3)
    grafana.folders = [{"id": n, "uid": f"u{n}", "title": f"t{n}"} for n in range(5000)]
    refused = run(grafana)
    assert refused.code == 1
    assert "3000 folders" in refused.err
    assert "--folder-uid" in refused.err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "x", "1e9"])
def test_a_timeout_that_is_none(grafana: FakeGrafana, run: Any, seconds: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run(grafana, "--timeout", seconds)
    assert ended.value.code == 2


# --- what goes to the terminal ----------------------------------------------------------------------------------------

CODES = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202e\u2028"


def harmless(text: str) -> bool:
    return all(char.isprintable() or char == "\n" for char in text)


def test_codes_for_the_terminal_are_shown_not_sent(grafana: FakeGrafana, run: Any) -> None:
    replies = [
        Reply(400, json.dumps({"message": f"no{CODES}"}), JSON),
        Reply(400, f"<title>no{CODES}</title>", {"Content-Type": "text/html"}),
        Reply(302, "", {"Location": "https://sso.example/login\x1b[2J"}),
        Reply(302, "", {"Location": "https://h/\u202ex\x9b"}),
        Reply(200, json.dumps({"database": CODES}), JSON),
        Reply(200, json.dumps({"database": "ok", "version": f"11{CODES}"}), JSON),
    ]
    for reply in replies:
        grafana.next = [reply]
        said = run(grafana)
        assert harmless(said.out + said.err), (reply, said.out, said.err)
    grafana.data_sources[0]["name"] += CODES
    grafana.folders = [{"id": 1, "uid": f"u{CODES}", "title": "GPU Health Monitor"}]
    said = run(grafana, "--dry-run")
    assert harmless(said.out + said.err)
    assert "\\x1b" in said.out


def test_a_terminal_of_another_alphabet(grafana: FakeGrafana, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="iso-8859-1", write_through=True))
    assert run(grafana, "--only", "host", "--folder", "監視 °C").code == 0
    assert b"\\u76e3\\u8996 \xb0C" in written.getvalue()


def test_long_words_are_cut(grafana: FakeGrafana, run: Any) -> None:
    grafana.next = [Reply(400, json.dumps({"message": "x" * 100_000}), JSON)]
    assert len(run(grafana).err) < 1000
    grafana.next = [Reply(302, "", {"Location": f"https://h/{'y' * 5000}"})]
    assert len(run(grafana).err) < 1500
    grafana.data_sources.clear()
    for number in range(200):
        grafana.add_data_source(f"u{number}", "n" * 1000, "loki")
    said = run(grafana)
    assert len(said.err) < 4000
    assert "180 more" in said.err


@pytest.mark.parametrize(
    "location",
    [
        "https://somebody:hunter2@sso.example/login?x=1",
        "https://sso.example/login?access_token=hunter2",
        "https://sso.example/login#access_token=hunter2",
        "//somebody:hunter2@h/grafana/api/health",
        "https://somebody:hunter2@h:3000/grafana/api/health;hunter2?token=hunter2",
        f"https://h/x/{TOKEN}",
        "http://[::1/hunter2@x",
        "https://some/body:hunter2@h/x",
    ],
)
def test_a_redirect_shows_no_secret(grafana: FakeGrafana, run: Any, location: str) -> None:
    grafana.next = [Reply(302, "", {"Location": location})]
    refused = run(grafana)
    assert refused.code == 1
    assert "hunter2" not in refused.err
    assert "somebody" not in refused.err
    assert refused.err.count("\n") == 1


def test_a_link_that_leads_elsewhere_is_not_shown(grafana: FakeGrafana, run: Any) -> None:
    answer = {"uid": "gpu-telemetry", "status": "success", "url": "@evil.example/x"}
    grafana.always["POST /api/dashboards/db"] = Reply(200, json.dumps(answer), JSON)
    said = run(grafana, "--only", "host")
    assert said.code == 0
    assert "evil" not in said.out


# --- files and addresses ----------------------------------------------------------------------------------------------


def test_a_ca_file_that_is_none(run: Any, tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("hello")
    (tmp_path / "empty.pem").write_text("")
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nxxxx\n-----END CERTIFICATE-----\n")
    (tmp_path / "null.pem").write_bytes(b"\0" * 10)
    for name, words in {
        "missing.pem": "No such file",
        ".": "directory",
        "text.pem": "PEM",
        "empty.pem": "PEM",
        "broken.pem": "PEM",
        "null.pem": "PEM",
        "text.pem/x": "ot a directory",
    }.items():
        refused = run("https://127.0.0.1:1", "--ca-file", str(tmp_path / name))
        assert refused.code == 1, name
        assert "--ca-file" in refused.err
        assert words in refused.err, refused.err
        assert refused.err.count("\n") == 1


def test_a_ca_file_that_we_may_not_read(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read all, so the refusal is made by hand."""

    def refuse(path: Path, limit: int) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(transport, "read_regular", refuse)
    refused = run("https://127.0.0.1:1", "--ca-file", str(tmp_path / "ca.pem"))
    assert refused.code == 1
    assert "Permission denied" in refused.err


def test_a_bundle_of_the_environment_that_is_none(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "missing.pem"))
    refused = run("https://127.0.0.1:1")
    assert refused.code == 1
    assert "REQUESTS_CA_BUNDLE" in refused.err
    assert refused.err.count("\n") == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://a b:3000",
        "http://[::1",
        "http://[zz]:3000",
        "http://h:99999",
        "http://h:0",
        "http://h:x",
        "http://h\nx:3000",
        "http://h:3000/\x1b[2J",
        f"http://{'a' * 64}.example",
        f"http://{'a.' * 200}example",
        "http://xn--\u00e9\u0301\u200d.example",
        "http://\u2603\ufe0f..example",
        "http://..",
        "http://%zz",
        "http://h*",
        "admin:hunter2@grafana:3000",
        "ftp://admin:hun/ter2@grafana",
    ],
)
def test_an_address_that_is_none(run: Any, url: str) -> None:
    refused = run(url)
    assert refused.code == 1
    assert "is not the address of a Grafana" in refused.err
    assert refused.err.count("\n") == 1
    assert "hunter2" not in refused.err
    assert "ter2" not in refused.err
    assert harmless(refused.err)


@pytest.mark.parametrize("flag", ["--folder", "--folder-uid", "--token", "--datasource", "--ca-file", "--url"])
def test_arguments_that_are_no_text(grafana: FakeGrafana, run: Any, flag: str) -> None:
    """What the shell hands over when somebody types bytes that are not UTF-8."""
    refused = run(grafana, flag, "x\udcff")
    assert refused.code == 2
    assert refused.err == f"gpumon grafana import: {flag} is not UTF-8\n"
