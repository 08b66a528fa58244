"""When it stops half-way, what it says then; and what is provisioned, old or elsewhere."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.grafana.conftest import STAND_INS
from tests.support.grafana_server import ADMIN, FakeGrafana, Reply

MAKE = ["--create-datasource", "--ds-user", "grafana", "--ds-password", "db-secret"]
LOGIN = ["--user", ADMIN[0], "--password", ADMIN[1]]


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("kind", ["POST /api/dashboards/db", "GET /api/dashboards/uid/gpu-telemetry"])
def test_a_login_that_ends_half_way_ends_all(grafana: FakeGrafana, run: Any, kind: str, status: int) -> None:
    grafana.always[kind] = Reply(status, '{"message": "token expired"}')
    refused = run(grafana, "--json")
    assert refused.code == 1
    assert refused.statuses == {"host": "failed", "pipeline": "not tried"}
    assert refused.document["ok"] is False
    assert not any("gpu-pipeline" in path for _, path, _ in grafana.requests)
    assert refused.err.count("\n") == 1, refused.err
    for words in ("stopped at GPU Telemetry", str(status), "token expired", "not tried: Pipeline", "again is safe"):
        assert words in refused.err
    assert "already done: folder GPU Health Monitor created" in refused.err


def test_what_was_done_before_is_said(grafana: FakeGrafana, run: Any) -> None:
    grafana.always["GET /api/dashboards/uid/gpu-pipeline"] = Reply(401, '{"message": "token expired"}')
    refused = run(grafana)
    assert refused.code == 1
    assert "already done: folder GPU Health Monitor created, GPU Telemetry created" in refused.err
    assert list(grafana.dashboards) == ["gpu-telemetry"]
    grafana.always.clear()
    assert run(grafana, "--json").statuses == {"host": "unchanged", "pipeline": "created"}


def test_a_server_that_goes_away_half_way(grafana: FakeGrafana, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the rest would wait for its own time-out."""
    grafana.breaks.add("GET /api/dashboards/uid/gpu-telemetry")
    refused = run(grafana, "--json")
    assert refused.statuses == {"host": "failed", "pipeline": "not tried"}
    assert refused.err.count("\n") == 1


def test_after_the_data_source_before_the_folder(grafana: FakeGrafana, run: Any) -> None:
    grafana.data_sources.clear()
    grafana.always["POST /api/folders"] = Reply(403, '{"message": "no"}')
    refused = run(grafana, *MAKE, *LOGIN, token=None)
    assert refused.code == 1
    assert "already done: data source gpu-telemetry created" in refused.err
    assert "again is safe" in refused.err
    assert refused.err.count("\n") == 1


def test_nothing_done_is_not_said_to_be_something(grafana: FakeGrafana, run: Any) -> None:
    grafana.always["POST /api/folders"] = Reply(403, '{"message": "no"}')
    assert "already done" not in run(grafana).err


# --- provisioned ------------------------------------------------------------------------------------------------------


def test_a_provisioned_data_source_that_matches(
    grafana: FakeGrafana, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOST", "db.example")
    grafana.data_sources[0] |= {
        "readOnly": True,
        "url": "db.example:5432",
        "user": "grafana",
        "jsonData": {"database": "gpu_health", "sslmode": "disable"},
    }
    done = run(grafana, *MAKE, *LOGIN, token=None)
    assert done.code == 0
    assert "data source gpu-telemetry (uid gpu-telemetry-ds): found, provisioned; nothing to do\n" in done.out
    assert done.err == ""
    grafana.data_sources[0]["user"] = "other"
    done = run(grafana, *MAKE, *LOGIN, token=None)
    assert "user is 'other', not 'grafana'" in done.err
    assert "provisioned" in done.err
    assert "delete it" not in done.err, "Grafana refuses that for a provisioned one"


def test_dashboards_provisioned_from_our_own_files(grafana: FakeGrafana, run: Any) -> None:
    """They have the picker of the data source, which the import would replace."""
    for dashboard in STAND_INS:
        stored = {**dashboard.model, "id": 5, "version": 1, "refresh": "1m"}
        kept = {"dashboard": stored, "folderUid": "theirs", "versions": []}
        grafana.dashboards[dashboard.uid] = kept
        grafana.provisioned[dashboard.uid] = dashboard.file
    done = run(grafana, "--json")
    assert done.code == 0, done.err
    assert done.statuses == {"host": "unchanged", "pipeline": "unchanged"}
    assert done.document["dashboards"][0]["reason"] == "provisioned; nothing to do"
    grafana.dashboards["gpu-telemetry"]["dashboard"]["panels"] = []
    refused = run(grafana)
    assert refused.code == 1
    assert "provisions it from a file (gpu-telemetry.json)" in refused.err
    assert "(provisioned; nothing to do)" in refused.out


def test_a_provisioned_dashboard_that_refuses_only_at_the_save(grafana: FakeGrafana, run: Any) -> None:
    """Its `meta.provisioned` is not seen by every version and login."""
    grafana.always["POST /api/dashboards/db"] = Reply(400, '{"message": "Cannot save provisioned dashboard"}')
    refused = run(grafana, "--json")
    assert refused.statuses == {"host": "failed", "pipeline": "failed"}, "that is of each by itself"
    assert refused.err.count("provisions it from a file") == 2


# --- old --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["10.4.19", "7.5.17", "9.0.0-beta1"])
def test_an_old_grafana(grafana: FakeGrafana, run: Any, version: str) -> None:
    grafana.version = version
    refused = run(grafana)
    assert refused.code == 1
    assert f"Grafana {version}" in refused.err
    assert "11 or newer" in refused.err
    assert grafana.writes() == []


@pytest.mark.parametrize("version", ["11.0.0", "12.3.0-pre", "13.1.0+security-01", "main", ""])
def test_a_grafana_that_is_new_enough_or_does_not_say(grafana: FakeGrafana, run: Any, version: str) -> None:
    grafana.version = version
    assert run(grafana, "--dry-run").code == 0


@pytest.mark.parametrize("route", ["GET /api/folders", "POST /api/folders", "GET /api/datasources"])
def test_a_route_that_is_not_there(grafana: FakeGrafana, run: Any, route: str) -> None:
    grafana.always[route] = Reply(404, json.dumps({"message": "Not found"}))
    refused = run(grafana)
    assert refused.code == 1
    assert route.split()[1] in refused.err
    assert "11 or newer" in refused.err
