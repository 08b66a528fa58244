"""A real Prometheus scrapes the exporter; the queries of dcgm-exporter's Grafana dashboard (12239) find their data."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator

import pytest

from tests.integration.exporter.process import ExporterProcess
from tests.support.prometheus_server import PrometheusServer

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
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """A Prometheus that scrapes an exporter with two mock H100."""
    directory = tmp_path_factory.mktemp("prometheus")
    with ExporterProcess(directory, "--mock", "H100=2", NODE_NAME="dock") as exporter:
        target = urllib.parse.urlsplit(exporter.ready().url).netloc
        with PrometheusServer(directory, CONFIG.format(target=target)) as server:
            yield server.until_up("gpu")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("selector", SELECTORS)
def test_dashboard_panels_have_data(prometheus: PrometheusServer, metric: str, selector: str) -> None:
    found = prometheus.query(f"max({metric}{selector}) by (Hostname, gpu, UUID)")
    assert sorted(result["metric"]["gpu"] for result in found) == ["0", "1"]
    assert {result["metric"]["Hostname"] for result in found} == {"dock"}
    assert prometheus.query(f"avg({metric}{selector})")


def test_dashboard_variables(prometheus: PrometheusServer) -> None:
    for label, expected in (("Hostname", ["dock"]), ("gpu", ["0", "1"])):
        assert prometheus.api(f"label/{label}/values", **{"match[]": "DCGM_FI_DEV_GPU_TEMP"}) == expected


def test_types_and_help_arrive(prometheus: PrometheusServer) -> None:
    told = prometheus.api("metadata")
    assert told["DCGM_FI_DEV_GPU_TEMP"] == [{"type": "gauge", "help": "GPU temperature (in C).", "unit": ""}]
    assert told["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"][0]["type"] == "counter"
    assert told["gpumon_exporter_reads_total"][0]["type"] == "counter"


def test_rules_on_our_own_series(prometheus: PrometheusServer) -> None:
    assert prometheus.query("gpumon_exporter_up == 1")
    assert prometheus.query('gpumon_field_missing{reason="unsupported"}')
    assert not prometheus.query("gpumon_gpu_lost")
