"""The way with curl, sed and python3 for hosts without this program: as docs/grafana.md has it, and as older runbooks
have it. Both are run as they stand."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.grafana_server import ADMIN, FakeGrafana, Reply
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


def documented() -> str:
    (found,) = [s.text for s in steps((ROOT / "docs" / "grafana.md").read_text()) if "sed " in s.text]
    return found


def typed(commands: str, server: FakeGrafana, *options: str) -> subprocess.CompletedProcess[str]:
    for program in ("bash", "curl", "sed", "python3"):
        if shutil.which(program) is None:
            missing(program, f"{program} is not installed")
    return subprocess.run(
        ["bash", *options, "-c", filled(commands, server)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


WAYS = pytest.mark.parametrize(
    ("commands", "options"), [(COMMANDS, ("-euo", "pipefail")), (documented(), ())], ids=["old", "documented"]
)
"""The documented way needs no options of the shell it is pasted into."""


@WAYS
def test_they_import_the_committed_dashboard(commands: str, options: tuple[str, ...]) -> None:
    with FakeGrafana() as server:
        server.add_data_source("P1A2B3C4", "gpu-telemetry")
        for _ in range(2):
            done = typed(commands, server, *options)
            assert done.returncode == 0, done.stderr
            assert done.stdout.splitlines()[-1].endswith("OK: /d/gpu-telemetry/gpu-telemetry-host"), done.stdout
        stored = server.dashboards["gpu-telemetry"]["dashboard"]
        assert stored["version"] == 2
        assert server.dashboards["gpu-telemetry"]["folderUid"] == ""
        assert "${GRAFANA_DS_UID}" not in json.dumps(stored)
        panels = [p for p in stored["panels"] if p["type"] != "row"]
        assert {p["datasource"]["uid"] for p in panels if "datasource" in p} == {"P1A2B3C4"}


@WAYS
def test_a_wrong_password_ends_them(commands: str, options: tuple[str, ...]) -> None:
    with FakeGrafana() as server:
        done = typed(commands.replace("<GRAFANA_PASSWORD>", "wrong"), server, *options)
        assert done.returncode != 0
        assert "401" in done.stderr
        assert server.dashboards == {}


def test_without_the_data_source_nothing_is_written() -> None:
    with FakeGrafana() as server:
        server.add_data_source("P1A2B3C4", "gpu-telemetry")
        assert typed(documented(), server).returncode == 0
        before = json.dumps(server.dashboards)
        server.requests.clear()
        server.data_sources.clear()
        done = typed(documented(), server)
        assert done.returncode != 0
        assert "404" in done.stderr
        assert "no such data source" in done.stderr
        assert "Traceback" not in done.stderr
        assert "OK" not in done.stdout
        assert server.writes() == []
        assert json.dumps(server.dashboards) == before
        # Where somebody asks for the exit code, bash forgets `set -e`: it stops all the same.
        assert "refused" in typed(f"{documented()} || echo refused", server).stdout
        assert server.writes() == []


def test_the_shell_it_is_pasted_into_lives_on() -> None:
    with FakeGrafana() as server:
        done = typed(f"{documented()}\necho here, $-, $LOGIN", server)
        assert done.stdout.startswith("here, ")
        assert "e" not in done.stdout.split(", ")[1]


def test_it_stays_in_its_folder_and_has_no_dead_picker() -> None:
    with FakeGrafana() as server:
        server.add_data_source("P1A2B3C4", "gpu-telemetry")
        assert typed(documented(), server).returncode == 0
        server.folders.append({"id": 9, "uid": "x7Ops", "title": "Operations"})
        server.dashboards["gpu-telemetry"]["folderUid"] = "x7Ops"
        done = typed(documented(), server)
        assert done.returncode == 0, done.stderr
        assert server.dashboards["gpu-telemetry"]["folderUid"] == "x7Ops"
        stored = server.dashboards["gpu-telemetry"]["dashboard"]
        assert [v["name"] for v in stored["templating"]["list"] if v["type"] == "datasource"] == []
        assert "host" in [v["name"].lower() for v in stored["templating"]["list"]]


def test_it_does_not_guess_the_folder() -> None:
    """A failure to look is not a dashboard that is not there."""
    with FakeGrafana() as server:
        server.add_data_source("P1A2B3C4", "gpu-telemetry")
        answer = json.dumps({"uid": "P1A2B3C4"})
        for commands in (documented(), f"{documented()} || exit 3"):
            server.next = [Reply(200, answer), Reply(500, '{"message": "database is locked"}')]
            done = typed(commands, server)
            assert done.returncode != 0
            assert "HTTP 500" in done.stderr
            assert "database is locked" in done.stderr
        assert server.writes() == []
