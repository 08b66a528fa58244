"""A create that succeeded behind a proxy's time-out is done, not a conflict: what is there is read back."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.support.grafana_server import ADMIN, FakeGrafana, Reply

TIMED_OUT = Reply(504, "<html><title>504 Gateway Time-out</title></html>")
MAKE = ["--create-datasource", "--ds-user", "grafana", "--ds-password", "db-secret"]
LOGIN = ["--user", ADMIN[0], "--password", ADMIN[1], "--json"]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)


@pytest.mark.parametrize("times", [1, 9])
@pytest.mark.parametrize("kind", ["POST /api/datasources", "POST /api/folders", "POST /api/dashboards/db"])
def test_what_succeeded_unheard_is_done(grafana: FakeGrafana, run: Any, kind: str, times: int) -> None:
    """Said once and then again by a conflict; or said at every attempt."""
    grafana.data_sources.clear()
    grafana.lost = [(kind, TIMED_OUT)]
    if times > 1:
        grafana.on_lost = lambda: grafana.always.update({kind: TIMED_OUT})
    done = run(grafana, *MAKE, *LOGIN, "--only", "host", token=None)
    assert done.code == 0, done.err
    assert done.document["data_sources"][0]["status"] == "created"
    assert done.document["folder"]["status"] == "created"
    assert done.statuses == {"host": "created"}
    assert grafana.lost == []
    assert (len(grafana.data_sources), len(grafana.folders), len(grafana.dashboards)) == (1, 1, 1)
    grafana.always.clear()
    again = run(grafana, *MAKE, *LOGIN, "--only", "host", token=None)
    assert again.statuses == {"host": "unchanged"}


@pytest.mark.parametrize("kind", ["POST /api/datasources", "POST /api/folders", "POST /api/dashboards/db"])
def test_what_was_done_when_the_line_went_dead_is_done(grafana: FakeGrafana, run: Any, kind: str) -> None:
    grafana.data_sources.clear()
    grafana.lost = [(kind, Reply(0))]
    done = run(grafana, *MAKE, *LOGIN, "--only", "host", token=None)
    assert done.code == 0, done.err
    assert done.statuses == {"host": "created"}
    assert (done.document["data_sources"][0]["status"], done.document["folder"]["status"]) == ("created", "created")


def test_an_update_that_succeeded_unheard_is_done(grafana: FakeGrafana, run: Any) -> None:
    run(grafana)
    kept = grafana.dashboards["gpu-telemetry"]
    kept["dashboard"]["panels"][0]["title"] = "Mine"
    kept["versions"].append({"version": 2, "message": ""})
    grafana.lost = [("POST /api/dashboards/db", TIMED_OUT)]
    grafana.on_lost = lambda: grafana.always.update({"POST /api/dashboards/db": TIMED_OUT})
    assert run(grafana, "--only", "host", "--json").statuses == {"host": "updated"}


def test_two_imports_at_once(grafana: FakeGrafana, run: Any) -> None:
    """Between our look and our write another one makes the same: a conflict with what we wanted is none."""

    def first(body: dict[str, Any]) -> None:
        grafana.before_create = None
        grafana.add_folder(body)

    grafana.before_create = first
    done = run(grafana, "--only", "host", "--json")
    assert done.code == 0, done.err
    assert done.document["folder"]["status"] == "found"


def test_another_folder_took_the_uid_meanwhile(grafana: FakeGrafana, run: Any) -> None:
    grafana.before_create = lambda body: grafana.add_folder({**body, "title": "Theirs"})
    refused = run(grafana, "--only", "host")
    assert refused.code == 1
    assert "title is 'Theirs', not 'GPU Health Monitor'" in refused.err
    assert "--folder-uid gpu-health-monitor" in refused.err


def test_a_data_source_that_is_not_what_was_wanted(grafana: FakeGrafana, run: Any) -> None:
    """It came between the list and the create."""
    grafana.data_sources.clear()
    grafana.always["GET /api/datasources"] = Reply(200, "[]", {"Content-Type": "application/json"})
    grafana.add_data_source("gpu-telemetry-ds", "gpu-telemetry")
    grafana.data_sources[0] |= {"url": "elsewhere:5432", "user": "grafana"}
    refused = run(grafana, *MAKE, *LOGIN, "--only", "host", token=None)
    assert refused.code == 1
    assert "url is 'elsewhere:5432'" in refused.err
    assert grafana.dashboards == {}


@pytest.mark.parametrize(
    ("folder", "panels", "words"),
    [
        ("ops", None, "what is there now lies in ops: look at it"),
        ("gpu-health-monitor", [], "differs in panels"),
        ("ops", [], "what is there now lies in ops and differs in panels"),
    ],
)
def test_a_dashboard_that_is_not_what_was_wanted(
    grafana: FakeGrafana, run: Any, folder: str, panels: list[Any] | None, words: str
) -> None:
    """Ours failed unheard, and somebody else wrote under its uid meanwhile."""
    run(grafana, "--only", "host")
    kept = grafana.dashboards.pop("gpu-telemetry")
    kept["folderUid"] = folder
    if panels is not None:
        kept["dashboard"]["panels"] = panels
        kept["versions"].append({"version": 2, "message": ""})
    grafana.lost = [("POST /api/dashboards/db", TIMED_OUT)]
    grafana.on_lost = lambda: grafana.dashboards.update({"gpu-telemetry": kept})
    refused = run(grafana, "--only", "host")
    assert refused.code == 1
    assert words in refused.err
    assert "run the import again" in refused.err


def test_a_failure_that_is_not_tried_again_is_looked_after_too(grafana: FakeGrafana, run: Any) -> None:
    """524: what some proxies of the open Internet say for their time-out."""
    grafana.lost = [("POST /api/folders", Reply(524)), ("POST /api/dashboards/db", Reply(524))]
    done = run(grafana, "--only", "host", "--json")
    assert done.code == 0, done.err
    assert (done.document["folder"]["status"], done.statuses) == ("created", {"host": "created"})


def test_what_never_came_to_be_is_said_as_it_was(grafana: FakeGrafana, run: Any) -> None:
    grafana.always["POST /api/dashboards/db"] = TIMED_OUT
    refused = run(grafana, "--only", "host")
    assert refused.code == 1
    assert "504 Gateway Time-out" in refused.err
    assert json.dumps(grafana.dashboards) == "{}"
