"""For the tests of `gpumon grafana import`: two small dashboards, the command, a server that answers as Grafana."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.__main__ import main
from services.grafana import dashboards
from services.grafana.dashboards import Dashboard
from tests.support.grafana_server import ADMIN, TOKEN, VIEWER_TOKEN, FakeGrafana

SETTINGS = ("GRAFANA_URL", "GRAFANA_TOKEN", "GRAFANA_USER", "GRAFANA_PASSWORD", "GRAFANA_DS_PASSWORD", "PGHOST",
            "TIMESCALE_DSN", "PGPORT", "PGDATABASE", "PGSSLMODE", "REQUESTS_CA_BUNDLE")  # fmt: skip


def model(uid: str, title: str, variable: str, kind: str) -> dict[str, Any]:
    source = {"type": kind, "uid": f"${{{variable}}}"}
    return {
        "uid": uid,
        "title": title,
        "schemaVersion": 41,
        "refresh": "30s",
        "templating": {
            "list": [
                {"type": "datasource", "name": variable, "query": kind, "current": {"value": "x"}},
                {"type": "query", "name": "host", "datasource": source},
            ]
        },
        "panels": [{"id": 1, "title": "A", "datasource": source, "targets": [{"datasource": source}]}],
    }


STAND_INS = (
    Dashboard("host", "gpu-telemetry.json", model("gpu-telemetry", "GPU Telemetry", "GRAFANA_DS_UID", "postgres")),
    Dashboard("pipeline", "gpu-pipeline.json", model("gpu-pipeline", "Pipeline", "PROMETHEUS_DS_UID", "prometheus")),
)


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(dashboards, "committed", lambda: list(STAND_INS))
    monkeypatch.setattr(dashboards, "names", lambda: ["host", "pipeline"])


@pytest.fixture
def grafana(surroundings: None) -> Iterator[FakeGrafana]:
    with FakeGrafana() as server:
        server.add_data_source("gpu-telemetry-ds", "gpu-telemetry")
        server.add_data_source("gpu-prometheus", "Prometheus", "prometheus")
        yield server


class Said:
    """What one run printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def statuses(self) -> dict[str, str]:
        return {d["name"]: d["status"] for d in self.document["dashboards"]}


@pytest.fixture
def run(surroundings: None, capsys: pytest.CaptureFixture[str]) -> Any:
    def command(server: FakeGrafana | str, *arguments: str, token: str | None = TOKEN) -> Said:
        url = server if isinstance(server, str) else server.url
        login = ["--token", token] if token else []
        code = main(["grafana", "import", "--url", url, *login, *arguments])
        out, err = capsys.readouterr()
        for secret in (TOKEN, VIEWER_TOKEN, ADMIN[1], "db-secret"):
            assert secret not in out + err
        return Said(code, out, err)

    return command
