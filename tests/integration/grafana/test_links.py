"""`gpumon grafana import` without a Prometheus: no link leads to a dashboard that is not there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.grafana import dashboards
from services.grafana.dashboards import without_links
from tests.integration.grafana.conftest import STAND_INS
from tests.support.grafana_server import FakeGrafana, Reply

COMMITTED = dashboards.committed()
PIPELINE = "gpu-pipeline"
LINK = {"title": "Pipeline", "type": "link", "url": f"/d/{PIPELINE}?from=now-1h"}
OTHER = {"title": "Longer", "type": "link", "url": f"/d/{PIPELINE}-of-others"}
DATA_LINK = {"title": "Its sink", "url": f"/d/{PIPELINE}"}


@pytest.fixture(autouse=True)
def linked(monkeypatch: pytest.MonkeyPatch, surroundings: None) -> None:
    """The small dashboards, the first with links at the top and in a field."""
    host, pipeline = STAND_INS
    model = {**host.model, "links": [LINK, OTHER]}
    model["panels"] = [*host.model["panels"], {"id": 2, "fieldConfig": {"defaults": {"links": [DATA_LINK, OTHER]}}}]
    monkeypatch.setattr(dashboards, "committed", lambda: [dashboards.Dashboard("host", host.file, model), pipeline])


def stored(grafana: FakeGrafana) -> str:
    return json.dumps(grafana.dashboards["gpu-telemetry"]["dashboard"])


def prometheus_goes(grafana: FakeGrafana) -> None:
    grafana.data_sources[:] = [s for s in grafana.data_sources if s["type"] != "prometheus"]


def test_links_are_left_out_and_come_back(grafana: FakeGrafana, run: Any) -> None:
    prometheus_goes(grafana)
    first = run(grafana, "--json")
    assert first.statuses == {"host": "created", "pipeline": "skipped"}
    assert [d["without_links_to"] for d in first.document["dashboards"]] == [[PIPELINE], []]
    assert LINK["url"] not in stored(grafana)
    assert f'"{DATA_LINK["url"]}"' not in stored(grafana)
    assert stored(grafana).count(OTHER["url"]) == 2
    again = run(grafana, "--json")
    assert again.statuses == {"host": "unchanged", "pipeline": "skipped"}
    assert again.document["dashboards"][0]["without_links_to"] == [PIPELINE]
    assert run(grafana, "--only", "host", "--json").statuses == {"host": "unchanged"}
    grafana.add_data_source("gpu-prometheus", "Prometheus", "prometheus")
    back = run(grafana, "--json")
    assert back.statuses == {"host": "updated", "pipeline": "created"}
    assert [d["without_links_to"] for d in back.document["dashboards"]] == [[], []]
    assert LINK["url"] in stored(grafana)
    assert f'"{DATA_LINK["url"]}"' in stored(grafana)
    assert run(grafana, "--json").statuses == {"host": "unchanged", "pipeline": "unchanged"}


def test_people_are_told(grafana: FakeGrafana, run: Any) -> None:
    prometheus_goes(grafana)
    for arguments in (["--dry-run"], []):
        assert run(grafana, *arguments).out.splitlines()[-1].startswith(f"links to {PIPELINE} are left out")
    grafana.add_data_source("gpu-prometheus", "Prometheus", "prometheus")
    assert "left out" not in run(grafana).out


def test_links_stay_where_it_is_there_already(grafana: FakeGrafana, run: Any) -> None:
    run(grafana)
    prometheus_goes(grafana)
    again = run(grafana, "--json")
    assert again.statuses == {"host": "unchanged", "pipeline": "skipped"}
    assert again.document["dashboards"][0]["without_links_to"] == []
    assert "left out" not in run(grafana).out


def test_links_stay_to_what_this_login_may_not_see(grafana: FakeGrafana, run: Any) -> None:
    prometheus_goes(grafana)
    grafana.always[f"GET /api/dashboards/uid/{PIPELINE}"] = Reply(403, '{"message": "no"}')
    assert run(grafana, "--json").statuses == {"host": "created", "pipeline": "skipped"}
    assert LINK["url"] in stored(grafana)


def test_it_is_asked_for_once_and_only_without_prometheus(grafana: FakeGrafana, run: Any) -> None:
    run(grafana, "--only", "host")
    assert not any(PIPELINE in path for _, path, _ in grafana.requests)
    prometheus_goes(grafana)
    run(grafana)
    assert sum(PIPELINE in path for _, path, _ in grafana.requests) == 1


@pytest.mark.parametrize("dashboard", COMMITTED, ids=lambda d: d.name)
def test_committed_dashboards_lead_nowhere_then(dashboard: dashboards.Dashboard) -> None:
    """All but the pipeline itself lead to it, and only by such links; everything else is as it was."""
    before = json.dumps(dashboard.model)
    after = without_links(dashboard.model, [PIPELINE])
    assert f"/d/{PIPELINE}" not in json.dumps(after)
    assert json.dumps(dashboard.model) == before
    assert (after != dashboard.model) == (dashboard.uid != PIPELINE)
    assert {**after, "links": 0} == {**dashboard.model, "links": 0}
    assert without_links(dashboard.model, []) == dashboard.model
