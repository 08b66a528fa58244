"""`gpumon grafana import` against a server that answers, and remembers, as Grafana's HTTP API documents."""

from __future__ import annotations

import base64
import json
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from services.__main__ import main
from services.grafana import client
from tests.support.certificates import Authority
from tests.support.grafana_server import ADMIN, TOKEN, VIEWER_TOKEN, FakeGrafana, Reply
from tests.support.processes import free_port

# --- what it does -----------------------------------------------------------------------------------------------------


def test_first_run_creates_second_leaves_all_alone(grafana: FakeGrafana, run: Any) -> None:
    first = run(grafana, "--json")
    assert first.code == 0, first.err
    assert first.statuses == {"host": "created", "pipeline": "created"}
    assert first.document["folder"] == {
        "uid": "gpu-health-monitor",
        "title": "GPU Health Monitor",
        "status": "created",
    }
    assert {d["uid"] for d in first.document["dashboards"]} == set(grafana.dashboards)
    assert {kept["folderUid"] for kept in grafana.dashboards.values()} == {"gpu-health-monitor"}
    assert first.document["dashboards"][0]["url"] == f"{grafana.url}/d/gpu-telemetry/gpu-telemetry"
    grafana.requests.clear()
    second = run(grafana, "--json")
    assert second.code == 0
    assert second.statuses == {"host": "unchanged", "pipeline": "unchanged"}
    assert second.document["folder"]["status"] == "found"
    assert grafana.writes() == []
    assert [len(kept["versions"]) for kept in grafana.dashboards.values()] == [1, 1]


def test_data_source_is_in_place_of_its_variable_everywhere(grafana: FakeGrafana, run: Any) -> None:
    run(grafana)
    stored = grafana.dashboards["gpu-telemetry"]["dashboard"]
    assert "_DS_UID" not in json.dumps(stored)
    assert stored["panels"][0]["targets"][0]["datasource"]["uid"] == "gpu-telemetry-ds"
    assert [v["name"] for v in stored["templating"]["list"]] == ["host"], "a picker that steers nothing"
    assert "gpu-prometheus" in json.dumps(grafana.dashboards["gpu-pipeline"]["dashboard"])


def test_what_somebody_changed_is_written_again_as_a_new_version(grafana: FakeGrafana, run: Any) -> None:
    run(grafana)
    kept = grafana.dashboards["gpu-telemetry"]
    kept["dashboard"]["panels"][0]["title"] = "Mine"
    kept["versions"].append({"version": 2, "message": ""})
    again = run(grafana, "--json")
    assert again.statuses == {"host": "updated", "pipeline": "unchanged"}
    assert kept["dashboard"]["panels"][0]["title"] != grafana.dashboards["gpu-telemetry"]["dashboard"]["panels"][0]
    assert grafana.dashboards["gpu-telemetry"]["dashboard"]["panels"][0]["title"] == "A"


def test_what_was_moved_comes_back(grafana: FakeGrafana, run: Any) -> None:
    run(grafana)
    grafana.dashboards["gpu-telemetry"]["folderUid"] = ""
    grafana.dashboards["gpu-pipeline"]["folderUid"] = "ops"
    grafana.dashboards["gpu-pipeline"]["dashboard"]["panels"] = []
    grafana.dashboards["gpu-pipeline"]["versions"].append({"version": 2, "message": ""})
    dry = run(grafana, "--dry-run", "--json")
    assert set(dry.statuses.values()) == {"would be updated"}
    moved = run(grafana, "--json")
    assert set(moved.statuses.values()) == {"updated"}
    reasons = ["moved from the root", "moved from ops, and its content replaced"]
    assert [[d["reason"] for d in said.document["dashboards"]] for said in (dry, moved)] == [reasons, reasons]
    assert {kept["folderUid"] for kept in grafana.dashboards.values()} == {"gpu-health-monitor"}
    assert [d["reason"] for d in run(grafana, "--json").document["dashboards"]] == [None, None]


class WithFolderTitles(FakeGrafana):
    """`meta.folderTitle`, which Grafana gives beside the uid."""

    async def _get_dashboard(self, request: web.Request) -> web.Response:
        answer = await super()._get_dashboard(request)
        document = json.loads(answer.text or "{}")
        if "meta" in document:
            document["meta"]["folderTitle"] = "Operations" if document["meta"]["folderUid"] else "General"
        return web.json_response(document, status=answer.status)


def test_the_folder_it_was_in_is_named(run: Any) -> None:
    with WithFolderTitles() as server:
        server.add_data_source("gpu-telemetry-ds", "gpu-telemetry")
        run(server, "--only", "host")
        server.dashboards["gpu-telemetry"]["folderUid"] = "x7Ops"
        assert run(server, "--only", "host").out.endswith("/gpu-telemetry  (moved from Operations)\n")
        server.dashboards["gpu-telemetry"]["folderUid"] = ""
        assert run(server, "--only", "host").out.endswith("/gpu-telemetry  (moved from the root)\n")


def test_a_grafana_that_rewrites_dashboards_is_still_left_alone(grafana: FakeGrafana, run: Any) -> None:
    """min_refresh_interval, a newer schema: read back it differs, but our version is the newest."""
    grafana.on_save = lambda m: m.update(refresh="1m", schemaVersion=42)
    run(grafana)
    assert run(grafana, "--json").statuses == {"host": "unchanged", "pipeline": "unchanged"}
    grafana.dashboards["gpu-telemetry"]["versions"].append({"version": 2, "message": "by hand"})
    assert run(grafana, "--json").statuses == {"host": "updated", "pipeline": "unchanged"}


def test_the_same_content_is_left_alone_whoever_saved_it(grafana: FakeGrafana, run: Any) -> None:
    run(grafana)
    grafana.dashboards["gpu-telemetry"]["versions"].append({"version": 2, "message": "restored by hand"})
    assert run(grafana, "--json").statuses == {"host": "unchanged", "pipeline": "unchanged"}


def test_dry_run_writes_nothing_and_says_what_it_would_do(grafana: FakeGrafana, run: Any) -> None:
    would = run(grafana, "--dry-run", "--json")
    assert would.code == 0
    assert would.statuses == {"host": "would be created", "pipeline": "would be created"}
    assert would.document["folder"]["status"] == "would be created"
    assert grafana.writes() == []
    run(grafana)
    grafana.dashboards["gpu-telemetry"]["dashboard"]["title"] = "Mine"
    grafana.dashboards["gpu-telemetry"]["versions"].append({"version": 2, "message": ""})
    assert run(grafana, "--dry-run", "--json").statuses == {"host": "would be updated", "pipeline": "unchanged"}


def test_only_some(grafana: FakeGrafana, run: Any) -> None:
    assert run(grafana, "--only", "host", "--json").statuses == {"host": "created"}


def test_root_and_a_folder_of_another_alphabet(grafana: FakeGrafana, run: Any) -> None:
    run(grafana, "--only", "host", "--folder", "")
    assert grafana.dashboards["gpu-telemetry"]["folderUid"] == ""
    assert grafana.folders == []
    assert run(grafana, "--only", "host", "--folder", "GPU の監視").code == 0
    assert [f["title"] for f in grafana.folders] == ["GPU の監視"]
    assert run(grafana, "--only", "host", "--folder", "GPU の監視", "--json").statuses == {"host": "unchanged"}


def test_a_folder_of_that_title_is_used_whatever_its_uid(grafana: FakeGrafana, run: Any) -> None:
    """The one that provisioning made has a random uid; it may be on the second page of the list."""
    grafana.folders = [{"id": n, "uid": f"u{n}", "title": f"t{n}"} for n in range(1000)]
    grafana.folders.append({"id": 7, "uid": "Xk2Rnd9", "title": "GPU Health Monitor"})
    assert run(grafana, "--only", "host", "--json").document["folder"]["uid"] == "Xk2Rnd9"
    assert len(grafana.folders) == 1001


def test_under_a_sub_path(run: Any) -> None:
    with FakeGrafana(sub_path="/grafana") as server:
        server.add_data_source("gpu-telemetry-ds", "gpu-telemetry")
        done = run(server, "--only", "host", "--json")
        assert done.code == 0
        assert done.document["dashboards"][0]["url"] == f"{server.url}/d/gpu-telemetry/gpu-telemetry"


@pytest.mark.parametrize("how", ["flags", "settings", "url"])
def test_user_and_password(grafana: FakeGrafana, run: Any, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    url, arguments = grafana.url, []
    if how == "flags":
        arguments = ["--user", ADMIN[0], "--password", ADMIN[1]]
    elif how == "settings":
        monkeypatch.setenv("GRAFANA_USER", ADMIN[0])
        monkeypatch.setenv("GRAFANA_PASSWORD", ADMIN[1])
    else:
        url = url.replace("//", f"//{ADMIN[0]}:{ADMIN[1]}@")
    done = run(url, *arguments, "--json", token=None)
    assert done.code == 0, done.err
    assert done.document["url"] == grafana.url


def test_token_and_url_of_the_settings(grafana: FakeGrafana, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFANA_URL", grafana.url)
    monkeypatch.setenv("GRAFANA_TOKEN", TOKEN)
    assert main(["grafana", "import"]) == 0


# --- data sources -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["other-uid", "Another"])
def test_data_source_by_uid_or_name(grafana: FakeGrafana, run: Any, wanted: str) -> None:
    grafana.add_data_source("other-uid", "Another", "postgres")
    run(grafana, "--only", "host", "--datasource", wanted)
    assert "other-uid" in json.dumps(grafana.dashboards["gpu-telemetry"]["dashboard"])


def test_without_prometheus_the_rest_goes(grafana: FakeGrafana, run: Any) -> None:
    grafana.data_sources.pop()
    done = run(grafana, "--json")
    assert done.code == 0
    assert done.statuses == {"host": "created", "pipeline": "skipped"}
    assert "no Prometheus data source" in done.document["dashboards"][1]["reason"]
    refused = run(grafana, "--only", "pipeline")
    assert refused.code == 1
    assert "no Prometheus data source" in refused.err


@pytest.mark.parametrize(
    ("present", "arguments", "words"),
    [
        ([], [], ["no PostgreSQL data source", "none at all", "--create-datasource"]),
        ([("loki", "Loki", "loki")], [], ["Loki (uid loki, loki)"]),
        ([("a", "A", "postgres"), ("b", "B", "postgres")], [], ["several", "A (uid a", "B (uid b", "--datasource"]),
        ([("a", "A", "postgres")], ["--datasource", "zz"], ["'zz'", "A (uid a"]),
        ([("a", "A", "loki")], ["--datasource", "A"], ["loki", "PostgreSQL"]),
    ],
)
def test_no_usable_data_source(
    grafana: FakeGrafana, run: Any, present: list[tuple[str, str, str]], arguments: list[str], words: list[str]
) -> None:
    grafana.data_sources.clear()
    for source in present:
        grafana.add_data_source(*source)
    refused = run(grafana, "--only", "host", *arguments)
    assert refused.code == 1
    assert all(word in refused.err for word in words), refused.err
    assert grafana.writes() == []


def test_data_source_is_made_once(grafana: FakeGrafana, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    grafana.data_sources.clear()
    monkeypatch.setenv("PGHOST", "db.example")
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    flags = ["--only", "host", "--create-datasource", "--ds-user", "grafana", "--ds-password", "db-secret"]
    login = ["--user", ADMIN[0], "--password", ADMIN[1], "--json"]
    dry = run(grafana, *flags, *login, "--dry-run", token=None)
    assert dry.document["data_sources"][0]["status"] == "would be created"
    assert grafana.data_sources == []
    first = run(grafana, *flags, *login, token=None)
    assert first.code == 0, first.err
    assert first.document["data_sources"][0]["status"] == "created"
    (made,) = grafana.data_sources
    assert (made["uid"], made["name"], made["url"]) == ("gpu-telemetry-ds", "gpu-telemetry", "db.example:5432")
    assert (made["user"], made["jsonData"]["sslmode"]) == ("grafana", "verify-full")
    assert made["secureJsonFields"] == {"password": True}
    bodies = [body for method, path, body in grafana.requests if path == "/api/datasources" and method == "POST"]
    assert bodies[0] is not None
    assert bodies[0]["secureJsonData"] == {"password": "db-secret"}
    assert run(grafana, *flags, *login, token=None).document["data_sources"][0]["status"] == "found"
    assert len(grafana.data_sources) == 1


def test_one_that_is_there_is_left_as_it_is(grafana: FakeGrafana, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    grafana.data_sources.clear()
    flags = ["--only", "host", "--create-datasource", "--ds-user", "grafana", "--ds-password", "db-secret"]
    login = ["--user", ADMIN[0], "--password", ADMIN[1]]
    monkeypatch.setenv("PGHOST", "db.example")
    run(grafana, *flags, *login, token=None)
    same = run(grafana, *flags, *login, token=None)
    assert "data source gpu-telemetry (uid gpu-telemetry-ds): found, left as it is\n" in same.out
    assert same.err == ""
    grafana.data_sources[0]["jsonData"] = {"sslmode": "disable"}  # `database` in its older place
    grafana.data_sources[0]["url"] = "db.example"  # the port that Grafana assumes
    assert run(grafana, *flags, *login, token=None).err == ""
    before = json.dumps(grafana.data_sources)
    monkeypatch.setenv("PGHOST", "db2.example")
    monkeypatch.setenv("PGDATABASE", "other")
    monkeypatch.setenv("PGSSLMODE", "require")
    flags[4] = "reader"
    done = run(grafana, *flags, *login, "--json", token=None)
    assert done.code == 0
    (source,) = done.document["data_sources"]
    assert (source["status"], source["reason"]) == ("found", "left as it is")
    assert source["differs"] == [
        "url is 'db.example:5432', not 'db2.example:5432'",
        "user is 'grafana', not 'reader'",
        "database is 'gpu_health', not 'other'",
        "sslmode is 'disable', not 'require'",
    ]
    assert "warning" in done.err
    assert "Connections" in done.err
    assert json.dumps(grafana.data_sources) == before
    monkeypatch.setenv("PGHOST", "/run/postgresql")
    done = run(grafana, *flags, *login, token=None)
    assert "cannot be compared" in done.err
    assert run(grafana, "--only", "host").err == "", "nobody asked for it to be made"


def test_making_a_data_source_needs_an_admin(grafana: FakeGrafana, run: Any) -> None:
    grafana.data_sources.clear()
    refused = run(grafana, "--create-datasource", "--ds-user", "grafana", "--ds-password", "db-secret")
    assert refused.code == 1
    assert "datasources:create" in refused.err
    assert "Admin" in refused.err


def test_a_name_that_is_taken(grafana: FakeGrafana, run: Any) -> None:
    grafana.data_sources.clear()
    grafana.add_data_source("mine", "gpu-telemetry", "loki")
    login = ["--user", ADMIN[0], "--password", ADMIN[1]]
    refused = run(grafana, *login, "--create-datasource", "--ds-user", "g", "--ds-password", "db-secret", token=None)
    assert refused.code == 1
    assert "is there already" in refused.err


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_nobody_answers(run: Any) -> None:
    refused = run(f"http://127.0.0.1:{free_port()}")
    assert refused.code == 1
    assert "Connection refused" in refused.err
    assert refused.err.count("\n") == 1
    assert "no such host" in run("http://nobody.invalid:3000").err


def test_wrong_logins(grafana: FakeGrafana, run: Any) -> None:
    for arguments, words in (
        (["--token", "glsa_wrong"], ["401", "by token", "Invalid API key"]),
        (["--user", "admin", "--password", "wrong"], ["401", "as user admin", "Invalid username or password"]),
        ([], ["needs a login", "GRAFANA_TOKEN"]),
        (["--token", "a b"], ["spaces"]),
        (["--user", "admin"], ["without a password"]),
    ):
        refused = run(grafana, *arguments, token=None)
        assert refused.code == 1
        assert all(word in refused.err for word in words), refused.err


def test_a_server_that_repeats_our_secrets(grafana: FakeGrafana, run: Any) -> None:
    """`run` looks for them in what is printed."""
    grafana.next.append(Reply(401, json.dumps({"message": f"no such token {TOKEN}"})))
    assert "no such token ***" in run(grafana).err
    grafana.next.append(Reply(302, "", {"Location": f"/login?token={TOKEN}"}))
    assert "login page" in run(grafana).err
    grafana.next.append(Reply(200, json.dumps({"hello": TOKEN})))
    assert "does not answer as Grafana's API does" in run(grafana).err


def test_a_password_of_another_alphabet(grafana: FakeGrafana, run: Any) -> None:
    login = base64.b64encode("admin:пароль:1".encode()).decode()
    grafana.logins[f"Basic {login}"] = grafana.logins[f"Bearer {TOKEN}"]
    assert run(grafana, "--user", "admin", "--password", "пароль:1", token=None).code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--token", "x", "--user", "y"], "not both"),
        (["--password", "x"], "without --user"),
        (["--token", "x", "--create-datasource"], "--ds-user"),
        (["--token", "x", "--ds-user", "g"], "--create-datasource"),
    ],
)
def test_a_command_line_that_makes_no_sense(grafana: FakeGrafana, run: Any, arguments: list[str], words: str) -> None:
    refused = run(grafana, *arguments, token=None)
    assert refused.code == 2
    assert words in refused.err
    assert grafana.requests == []


@pytest.mark.parametrize("url", ["localhost:3000", "ftp://x", "http://", "http://h:99999", "http://h/?a=b"])
def test_what_is_no_address(run: Any, url: str) -> None:
    refused = run(url)
    assert refused.code == 1
    assert "is not the address of a Grafana" in refused.err


@pytest.mark.parametrize("page", ["/d/gpu-fleet", "/d/gpu-fleet/gpu-fleet", "/login", "/login/", "/dashboards", "/api"])
@pytest.mark.parametrize(
    "reply",
    [None, Reply(302, "", {"Location": "/login"}), Reply(200, "<!doctype html>", {"Content-Type": "text/html"})],
)
def test_an_address_of_a_page(grafana: FakeGrafana, run: Any, page: str, reply: Reply | None) -> None:
    if reply is not None:
        grafana.next.append(reply)
    refused = run(grafana.url + page)
    assert f"leave out {page.rstrip('/')} (a page in Grafana): --url {grafana.url};" in refused.err
    assert refused.err.count("\n") == 1


def test_an_address_of_a_page_as_the_browser_shows_it(grafana: FakeGrafana, run: Any) -> None:
    refused = run(f"{grafana.url}/sub/d/x/y?orgId=1&from=now-1h")
    assert f"leave out /d/x/y (a page in Grafana): --url {grafana.url}/sub\n" in refused.err
    assert "leave out" not in run("http://login/?a=b").err, "a host's name is no page"


def test_a_sub_path_that_looks_like_a_page(run: Any) -> None:
    with FakeGrafana(sub_path="/d/grafana") as server:
        server.add_data_source("gpu-telemetry-ds", "gpu-telemetry")
        assert run(server, "--only", "host").code == 0


def test_viewer_may_not_write(grafana: FakeGrafana, run: Any) -> None:
    refused = run(grafana, token=VIEWER_TOKEN)
    assert refused.code == 1
    assert "403" in refused.err
    assert "folders:create" in refused.err
    assert "Editor" in refused.err


def test_a_folder_that_is_not_for_us(grafana: FakeGrafana, run: Any) -> None:
    grafana.folders.append({"id": 1, "uid": "gpu-health-monitor", "title": "GPU Health Monitor"})
    grafana.unseen_folders.add("gpu-health-monitor")
    refused = run(grafana)
    assert refused.code == 1
    assert "cannot see" in refused.err


def test_another_dashboard_has_the_title(grafana: FakeGrafana, run: Any) -> None:
    """It is not replaced; the other one still goes."""
    grafana.unique_titles = True
    run(grafana)
    kept = grafana.dashboards.pop("gpu-telemetry")
    grafana.dashboards["theirs"] = kept | {"dashboard": kept["dashboard"] | {"uid": "theirs"}}
    refused = run(grafana, "--json")
    assert refused.code == 1
    assert refused.document["ok"] is False
    assert refused.statuses == {"host": "failed", "pipeline": "unchanged"}
    assert "another dashboard with this title" in refused.err
    assert "theirs" in grafana.dashboards


def test_provisioned_dashboards(grafana: FakeGrafana, run: Any) -> None:
    run(grafana)
    grafana.provisioned["gpu-telemetry"] = "gpu-telemetry.json"
    assert run(grafana, "--json").statuses["host"] == "unchanged"
    grafana.dashboards["gpu-telemetry"]["dashboard"]["title"] = "Older"
    grafana.dashboards["gpu-telemetry"]["versions"].append({"version": 2, "message": ""})
    refused = run(grafana)
    assert refused.code == 1
    assert "provisions it from a file (gpu-telemetry.json)" in refused.err


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ('{"message": "Cannot save provisioned dashboard"}', 400, "provisions it from a file"),
        ('{"message": "x", "status": "version-mismatch"}', 412, "somebody else saved it"),
        ('{"message": "x", "status": "plugin-dashboard"}', 412, "belongs to a plug-in"),
        ('{"message": "folder not found"}', 404, "is gone"),
        ('{"message": "folder not found"}', 400, "is gone"),
        ('{"message": "Dashboard refresh interval is too low"}', 400, "min_refresh_interval"),
        ('{"message": "uid contains illegal characters"}', 400, "HTTP 400"),
        ("<html><title>413 Request Entity Too Large</title></html>", 413, "413 Request Entity Too Large"),
    ],
)
def test_a_save_that_is_refused(grafana: FakeGrafana, run: Any, body: str, status: int, words: str) -> None:
    grafana.always["POST /api/dashboards/db"] = Reply(status, body)
    refused = run(grafana, "--only", "host")
    assert refused.code == 1
    assert words in refused.err


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(404, "404 page not found"), ["not a Grafana", "sub-path"]),
        (Reply(200, "<!doctype html><title>Welcome</title>", {"Content-Type": "text/html"}), ["a web page"]),
        (Reply(200, '{"status": "UP"}'), ["does not answer as Grafana"]),
        (Reply(302, "", {"Location": "https://sso.example/login?rd=x"}), ["login page", "https://sso.example/login"]),
        (Reply(302, "", {"Location": "/login"}), ["login page"]),
        (Reply(308, "", {"Location": "https://h/grafana/api/health"}), ["--url https://h/grafana"]),
        (Reply(400, "Client sent an HTTP request to an HTTPS server."), ["HTTPS server"]),
        (Reply(429, "", {"Retry-After": "3600"}), ["3600 s", "429"]),
    ],
)
def test_what_is_no_grafana(grafana: FakeGrafana, run: Any, reply: Reply, words: list[str]) -> None:
    grafana.next.append(reply)
    refused = run(grafana, "--json")
    assert refused.code == 1
    assert refused.document["ok"] is False
    assert all(word in refused.err for word in words), refused.err
    assert refused.err.count("\n") == 1
    assert len(grafana.requests) == 1


def test_what_passes_is_tried_again_with_limits(
    grafana: FakeGrafana, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    grafana.next = [Reply(429, "", {"Retry-After": "7"}), Reply(503), Reply(502, "<html>"), Reply(500)]
    assert run(grafana).code == 0
    assert waited == [7.0, 1.0, 2.0, 4.0]
    grafana.next = [Reply(503, "<html><title>503 Service Unavailable</title></html>") for _ in range(client.ATTEMPTS)]
    refused = run(grafana)
    assert refused.code == 1
    assert f"HTTP 503 {client.ATTEMPTS} times" in refused.err
    assert grafana.next == []


def test_tls(run: Any, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    with FakeGrafana(tls=context) as server:
        server.add_data_source("gpu-telemetry-ds", "gpu-telemetry")
        refused = run(server)
        assert refused.code == 1
        assert "not trusted" in refused.err
        assert "--ca-file" in refused.err
        assert run(server, "--ca-file", str(authority.certificate)).code == 0
        assert run(server, "--insecure").code == 0
        assert run(server.url.replace("https", "http")).code == 1


def test_https_where_there_is_none(grafana: FakeGrafana, run: Any) -> None:
    assert "try http://" in run(grafana.url.replace("http", "https")).err


def test_words_for_people(grafana: FakeGrafana, run: Any) -> None:
    said = run(grafana)
    assert said.out.splitlines() == [
        f"Grafana 12.3.0 at {grafana.url}",
        "data source gpu-telemetry (uid gpu-telemetry-ds): found",
        "data source Prometheus (uid gpu-prometheus): found",
        "folder GPU Health Monitor (uid gpu-health-monitor): created",
        f"created  GPU Telemetry             {grafana.url}/d/gpu-telemetry/gpu-telemetry",
        f"created  Pipeline                  {grafana.url}/d/gpu-pipeline/pipeline",
    ]
