"""A real Prometheus scrapes the exporter; the queries of dcgm-exporter's Grafana dashboard (12239) find their data."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.exporter.process import WITHIN, ExporterProcess
from tests.support.prerequisites import missing
from tests.support.processes import KillWithParent, free_port, wait_until

METRICS = (
    "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_SM_CLOCK",
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
)
"""Of the dashboard's panels, older and newer revision together."""
SELECTORS = ('{instance=~".+", gpu=~"0|1"}', '{Hostname=~"dock", gpu=~"0|1"}')
"""The older revision chooses by the target, the newer by the host."""
CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
- job_name: gpu
  static_configs: [{{targets: ["{target}"]}}]
"""


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Prometheus that scrapes an exporter with two mock H100."""
    program = shutil.which("prometheus")
    if program is None:
        missing("prometheus", "no `prometheus` in PATH (Debian: apt-get install prometheus --no-install-recommends)")
    directory = tmp_path_factory.mktemp("prometheus")
    port = free_port()
    with ExporterProcess(directory, "--mock", "H100=2", NODE_NAME="dock") as exporter:
        target = urllib.parse.urlsplit(exporter.ready().url).netloc
        (directory / "prometheus.yml").write_text(CONFIG.format(target=target))
        with (directory / "prometheus.log").open("wb") as log:
            server = subprocess.Popen(
                [
                    program,
                    f"--config.file={directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=log,
            )
        guard = KillWithParent(server.pid)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: scraped(url), within=WITHIN, what=f"a scrape; {directory / 'prometheus.log'}")
            yield url
        finally:
            server.kill()
            server.wait()
            guard.release()


def query(url: str, expression: str) -> list[dict[str, Any]]:
    parameters = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"{url}/api/v1/query?{parameters}", timeout=WITHIN) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return found


def scraped(url: str) -> bool:
    try:
        return [result["value"][1] for result in query(url, 'up{job="gpu"}')] == ["1"]
    except OSError:
        return False


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("selector", SELECTORS)
def test_dashboard_panels_have_data(prometheus: str, metric: str, selector: str) -> None:
    found = query(prometheus, f"max({metric}{selector}) by (Hostname, gpu, UUID)")
    assert sorted(result["metric"]["gpu"] for result in found) == ["0", "1"]
    assert {result["metric"]["Hostname"] for result in found} == {"dock"}
    assert query(prometheus, f"avg({metric}{selector})")


def test_dashboard_variables(prometheus: str) -> None:
    for label, expected in (("Hostname", ["dock"]), ("gpu", ["0", "1"])):
        match = urllib.parse.urlencode({"match[]": "DCGM_FI_DEV_GPU_TEMP"})
        with urllib.request.urlopen(f"{prometheus}/api/v1/label/{label}/values?{match}") as answer:
            assert json.load(answer)["data"] == expected


def test_types_and_help_arrive(prometheus: str) -> None:
    with urllib.request.urlopen(f"{prometheus}/api/v1/metadata") as answer:
        told = json.load(answer)["data"]
    assert told["DCGM_FI_DEV_GPU_TEMP"] == [{"type": "gauge", "help": "GPU temperature (in C).", "unit": ""}]
    assert told["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"][0]["type"] == "counter"
    assert told["gpumon_exporter_reads_total"][0]["type"] == "counter"


def test_rules_on_our_own_series(prometheus: str) -> None:
    assert query(prometheus, "gpumon_exporter_up == 1")
    assert query(prometheus, 'gpumon_field_missing{reason="unsupported"}')
    assert not query(prometheus, "gpumon_gpu_lost")
