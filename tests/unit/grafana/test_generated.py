"""The committed JSON is what the code builds, and works the way the operators' runbook uses it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from grafana import build
from tests.support.grafana_dashboards import DIRECTORY, committed

RUNBOOK = [
    ("Current Temperature", "stat"),
    ("Current Status", "stat"),
    ("Max Temp", "stat"),
    ("Avg Temp", "stat"),
    ("GPU", "stat"),
    ("Total Samples", "stat"),
    ("GPU Temperature", "timeseries"),
    ("Status Timeline", "state-timeline"),
    ("Temperature by Status", "timeseries"),
    ("Temperature Distribution by Status", "barchart"),
    ("Samples by Status", "piechart"),
    ("Recent Status Changes", "table"),
]
"""The operators' runbook, section 5.4: name for name, kind for kind."""


@pytest.fixture(scope="module")
def host() -> Any:
    return json.loads((DIRECTORY / "gpu-telemetry.json").read_text())


def test_committed_json_is_what_the_code_builds() -> None:
    assert build.outdated(build.FOLDER) == [], "run `make dashboards` and commit what it writes"


def test_every_json_file_is_a_dashboard_of_the_code() -> None:
    """Grafana would load a stray one, too."""
    assert {path.name for path in DIRECTORY.rglob("*.json")} == set(build.DASHBOARDS)
    assert {f"{dashboard.uid}.json" for dashboard in committed()} == set(build.DASHBOARDS)


def test_check_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    assert build.main(["--check"]) == 1
    assert "make dashboards" in capsys.readouterr().err
    assert build.main([]) == 0
    assert build.main(["--check"]) == 0


def test_the_twelve_panels_of_the_runbook(host: Any) -> None:
    assert [(panel["title"], panel["type"]) for panel in host["panels"][:12]] == RUNBOOK


def test_the_runbooks_settings(host: Any) -> None:
    assert host["uid"] == "gpu-telemetry"
    assert host["time"] == {"from": "now-6h", "to": "now"}
    assert (host["refresh"], host["timezone"]) == ("30s", "browser")
    variables = {v["name"]: v for v in host["templating"]["list"]}
    assert (variables["host"]["type"], variables["host"]["label"]) == ("query", "Host")
    assert variables["GRAFANA_DS_UID"]["current"]["value"] == "gpu-telemetry-ds"


def test_the_runbooks_looks(host: Any) -> None:
    panels = {str(panel["title"]): panel for panel in host["panels"]}
    defaults = panels["Current Temperature"]["fieldConfig"]["defaults"]
    assert [step["value"] for step in defaults["thresholds"]["steps"]] == [None, 60, 75, 85]
    lines = panels["GPU Temperature"]["fieldConfig"]["defaults"]
    assert [step["value"] for step in lines["thresholds"]["steps"][1:]] == [75, 85]
    assert lines["custom"]["thresholdsStyle"] == {"mode": "dashed"}
    assert panels["Temperature by Status"]["fieldConfig"]["defaults"]["custom"]["drawStyle"] == "points"
    assert panels["Samples by Status"]["options"]["pieType"] == "donut"


@pytest.mark.parametrize("name", build.DASHBOARDS)
def test_the_runbooks_sed(name: str) -> None:
    """`sed "s/\\${GRAFANA_DS_UID}/${DS_UID}/g"` leaves valid JSON that names the data source everywhere."""
    command = ["sed", "s/\\${GRAFANA_DS_UID}/the-uid/g", str(DIRECTORY / name)]
    changed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "${GRAFANA_DS_UID}" not in changed
    assert json.loads(changed)["uid"] == name.removesuffix(".json")
    assert ('"uid": "the-uid"' in changed) == (name != "gpu-pipeline.json")


def test_docs_name_every_dashboard_and_panel() -> None:
    text = (DIRECTORY.parent / "docs" / "dashboards.md").read_text()
    named = {title.strip() for cell in text.split("|") for title in cell.split(", ")}
    for dashboard in committed():
        assert {dashboard.title, f"`{dashboard.uid}`"} <= named, "name it in docs/dashboards.md"
        missing = {panel["title"] for panel in dashboard.panels()} - named
        assert missing == set(), f"panels of {dashboard.title}: name it in docs/dashboards.md"
