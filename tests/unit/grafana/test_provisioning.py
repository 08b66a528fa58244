"""What docker-compose gives to Grafana: both data sources, the folder, the home dashboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from grafana import build

ROOT = Path(__file__).parents[3]
PROVISIONING = ROOT / "grafana" / "provisioning"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "docker-compose.yml").read_text())


def _sources() -> dict[str, dict[str, Any]]:
    files = [yaml.safe_load(path.read_text()) for path in sorted((PROVISIONING / "datasources").glob("*.yml"))]
    return {source["uid"]: source for file in files for source in file["datasources"]}


def test_dashboards_find_their_data_sources() -> None:
    """What a dashboard has chosen to begin with is what is provisioned, of that kind."""
    sources = _sources()
    for name in build.DASHBOARDS:
        document = json.loads((build.FOLDER / name).read_text())
        chosen = [v for v in document["templating"]["list"] if v["type"] == "datasource"]
        assert len(chosen) == 1
        found = sources[chosen[0]["current"]["value"]]
        assert (found["type"], found["name"]) == (chosen[0]["query"], chosen[0]["current"]["text"])


def test_one_data_source_is_the_default() -> None:
    assert [uid for uid, source in _sources().items() if source["isDefault"]] == ["gpu-telemetry-ds"]


def test_prometheus_is_the_one_of_compose_with_its_interval() -> None:
    source = _sources()["gpu-prometheus"]
    config = yaml.safe_load((ROOT / "docker" / "prometheus.yml").read_text())
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in COMPOSE["services"]
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]


def test_home_is_the_fleet() -> None:
    home = Path(COMPOSE["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "gpu-health.yml").read_text())["providers"]
    assert str(home.parent) == provider["options"]["path"]
    assert home.name == "gpu-fleet.json"
    assert home.name in build.DASHBOARDS
    assert provider["folder"]
