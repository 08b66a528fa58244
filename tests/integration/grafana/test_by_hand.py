"""The way with curl, sed and python3 that docs/grafana.md keeps for hosts without this program: run as it stands."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from tests.support.grafana_server import ADMIN, FakeGrafana
from tests.support.prerequisites import missing
from tests.support.runbook import steps

ROOT = Path(__file__).parents[3]
COMMANDS = r"""
DS_UID=$(curl -fSs -u <GRAFANA_USER>:<GRAFANA_PASSWORD> \
  http://<GRAFANA_HOST>:3000/api/datasources/name/gpu-telemetry \
  | python3 -c "import sys,json; print(json.load(sys.stdin)['uid'])")

sed "s/\${GRAFANA_DS_UID}/${DS_UID}/g" grafana/gpu-telemetry.json \
  | python3 -c "
import sys, json
dash = json.load(sys.stdin)
payload = {'dashboard': dash, 'overwrite': True}
json.dump(payload, sys.stdout)
" \
  | curl -fSs -u <GRAFANA_USER>:<GRAFANA_PASSWORD> \
      -X POST http://<GRAFANA_HOST>:3000/api/dashboards/db \
      -H 'Content-Type: application/json' \
      -d @-

curl -fSs -u <GRAFANA_USER>:<GRAFANA_PASSWORD> \
  http://<GRAFANA_HOST>:3000/api/dashboards/uid/gpu-telemetry \
  | python3 -c "import sys,json; d=json.load(sys.stdin); print('OK:', d['meta']['url'])"
"""
"""What users of the runbook have typed since before this repository; it must go on working, character for character."""


def filled(commands: str, server: FakeGrafana) -> str:
    return (
        commands.replace("<GRAFANA_USER>", ADMIN[0])
        .replace("<GRAFANA_PASSWORD>", ADMIN[1])
        .replace("<GRAFANA_HOST>:3000", f"127.0.0.1:{server.port}")
    )


def test_the_documentation_has_these_commands() -> None:
    found = [s.text for s in steps((ROOT / "docs" / "grafana.md").read_text()) if "sed " in s.text]
    assert len(found) == 1
    assert _without_comments(found[0]) == _without_comments(COMMANDS)


def _without_comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_they_import_the_committed_dashboard() -> None:
    for program in ("bash", "curl", "sed", "python3"):
        if shutil.which(program) is None:
            missing(program, f"{program} is not installed")
    with FakeGrafana() as server:
        server.add_data_source("P1A2B3C4", "gpu-telemetry")
        for _ in range(2):
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", filled(COMMANDS, server)],
                cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert done.stdout.endswith("OK: /d/gpu-telemetry/" + done.stdout.rpartition("/")[2])
        stored = server.dashboards["gpu-telemetry"]["dashboard"]
        assert stored["version"] == 2
        assert "${GRAFANA_DS_UID}" not in json.dumps(stored)
        panels = [p for p in stored["panels"] if p["type"] != "row"]
        assert {p["datasource"]["uid"] for p in panels if "datasource" in p} == {"P1A2B3C4"}


def test_a_wrong_password_ends_them() -> None:
    if shutil.which("curl") is None:
        missing("curl", "curl is not installed")
    with FakeGrafana() as server:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", filled(COMMANDS.replace("<GRAFANA_PASSWORD>", "wrong"), server)],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode != 0
        assert "401" in done.stderr
        assert server.dashboards == {}
