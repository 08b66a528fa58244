"""The configuration that a demo writes for a Prometheus of the owner's."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from mock_dcgm.run import write_targets
from services.demo import prometheus
from services.demo.ports import METRICS
from tests.support.prerequisites import missing

COMPOSE = Path(__file__).parents[3] / "docker" / "prometheus.yml"
PORTS = {"mock": 9490, "collector": 9491, "sink": 9492}


def text(directory: Path) -> str:
    write_targets(directory / "targets.json", "127.0.0.1", 9400, ["gpu-node-000", "gpu-node-001"])
    return prometheus.configuration(json.loads((directory / "targets.json").read_text()), PORTS)


def jobs(directory: Path) -> dict[str, Any]:
    return {job["job_name"]: job for job in yaml.safe_load(text(directory))["scrape_configs"]}


def test_jobs_are_called_as_in_compose(tmp_path: Path) -> None:
    """The Pipeline dashboard shows them by that name."""
    compose = {job["job_name"] for job in yaml.safe_load(COMPOSE.read_text())["scrape_configs"]}
    assert jobs(tmp_path).keys() == compose - {"grafana", "prometheus"}


def test_every_role_is_scraped_where_it_listens(tmp_path: Path) -> None:
    assert prometheus.JOBS.keys() == METRICS.keys()
    for role, name in prometheus.JOBS.items():
        assert jobs(tmp_path)[name]["static_configs"] == [{"targets": [f"127.0.0.1:{PORTS[role]}"]}]


def test_each_host_of_the_mock_is_an_instance_of_its_own(tmp_path: Path) -> None:
    job = jobs(tmp_path)["dcgm"]
    (rule,) = job["relabel_configs"]
    paths = [group["labels"]["__metrics_path__"] for group in job["static_configs"]]
    assert [re.fullmatch(rule["regex"], path)[1] for path in paths] == ["gpu-node-000", "gpu-node-001"]  # type: ignore[index]  # a None fails the test as well
    assert {target for group in job["static_configs"] for target in group["targets"]} == {"127.0.0.1:9400"}


def test_promtool_accepts_it_alone_and_included(tmp_path: Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        missing("prometheus", "no `promtool` in PATH (Debian: apt-get install prometheus --no-install-recommends)")
    own = tmp_path / "prometheus.yml"
    own.write_text(text(tmp_path))
    including = tmp_path / "owner.yml"
    including.write_text(yaml.safe_dump({"scrape_config_files": [str(own)]}))
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    number = re.search(r"version (\d+)\.(\d+)", version.stdout + version.stderr)
    assert number is not None
    takes_files = (int(number[1]), int(number[2])) >= (2, 43)  # scrape_config_files
    for path in [own, including] if takes_files else [own]:
        checked = subprocess.run([program, "check", "config", str(path)], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr
