"""Every PromQL of the committed dashboards on a real Prometheus that scrapes the real services.

Mock, collector, broker, sink and database run as `gpumon demo` runs them; a `gpumon exporter` stands beside them. One
target does not answer and some messages are no events, so that there is something to count. What is empty even so is on
a short list, with its reason; its name must be one that the services have.
"""

from __future__ import annotations

import re
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from confluent_kafka import Producer

from services.demo.pipeline import OF_ITS_OWN, Pipeline, Plan
from services.embedded.timescale import EmbeddedTimescaleError, require_node
from services.settings import load
from tests.integration.exporter.process import ExporterProcess
from tests.integration.exporter.test_prometheus import METRICS
from tests.support.grafana_dashboards import Query, Source, committed
from tests.support.prerequisites import missing
from tests.support.processes import ServerError, free_port, wait_until
from tests.support.prometheus_server import PrometheusServer

pytestmark = pytest.mark.timescale

COMPOSE: Final = Path(__file__).parents[3] / "docker" / "prometheus.yml"
QUERIES: Final = [query for board in committed() for query in board.queries() if query.source is Source.PROMETHEUS]
WITHIN: Final = 60.0
"""Seconds; the machine is shared."""
GPUS, HOSTS = 4, 2
WINDOWS: Final = {"__rate_interval": "10s", "__range": "60s", "__interval": "5s"}
"""Of Grafana's variables: at least four scrapes of a second, as Grafana takes."""
EMPTY: Final = {
    "gpumon_collector_missed_ticks_total": "no scrape is left out while the machine keeps up",
    "gpumon_collector_delivery_failures_total": "the broker is there all the time",
    "gpumon_sink_retries_total": "the database is there all the time",
    "gpumon_exporter_read_failures_total": "the mock's readings do not fail",
}


@dataclass(frozen=True, slots=True)
class World:
    prometheus: PrometheusServer
    dead_target: str
    bootstrap: str
    topic: str

    def reject(self) -> None:
        """Send messages that are no events, until Prometheus has seen their number grow."""
        producer = Producer({"bootstrap.servers": self.bootstrap})

        def counted() -> bool:
            producer.produce(self.topic, b"this is no event")
            producer.flush(5)
            found = self.prometheus.query("sum(increase(gpumon_sink_dead_letters_total[60s]))")
            return bool(found) and float(found[0]["value"][1]) > 0

        wait_until(counted, within=WITHIN, what="dead letters in Prometheus")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    try:
        require_node()
    except EmbeddedTimescaleError as error:
        missing("timescale", str(error))
    directory = tmp_path_factory.mktemp("promql")
    dead = f"127.0.0.1:{free_port()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OF_ITS_OWN, "TARGETS", dead)  # beside the mock's target file
        patch.delenv("TIMESCALE_DSN", raising=False)
        patch.delenv("KAFKA_BOOTSTRAP", raising=False)
        settings = load(mock_port=free_port())
        pipeline = Pipeline(Plan(GPUS, HOSTS, 1.0, directory, None), settings, lambda _text: None, threading.Event())
        try:
            pipeline.start()
            with ExporterProcess(directory, "--mock", "H100=2", NODE_NAME="dock") as exporter:
                own = urllib.parse.urlsplit(exporter.ready().url).netloc
                with PrometheusServer(directory, configuration(pipeline, directory, own)) as server:
                    server.until_up("dcgm", "collector", "timescale-sink", "mock-dcgm", "exporter", within=WITHIN)
                    found = World(server, dead, pipeline.bootstrap, settings.kafka_topic)
                    found.reject()
                    yield found
        finally:
            pipeline.stop()


def configuration(pipeline: Pipeline, directory: Path, exporter: str) -> str:
    """Compose's own, every second, with the addresses of this machine; no Grafana is here to be scraped."""
    document: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    document["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    addresses = {
        "collector": f"127.0.0.1:{pipeline.roles['collector'].ops_port}",
        "timescale-sink": f"127.0.0.1:{pipeline.roles['sink'].ops_port}",
        "mock-dcgm": f"127.0.0.1:{pipeline.roles['mock'].ops_port}",
        "prometheus": "@self@",
    }
    jobs = {job["job_name"]: job for job in document["scrape_configs"] if job["job_name"] != "grafana"}
    assert jobs.keys() == addresses.keys() | {"dcgm"}, "docker/prometheus.yml has jobs that this test does not know"
    jobs["dcgm"]["file_sd_configs"] = [{"files": [str(directory / "targets.json")], "refresh_interval": "1s"}]
    for name, address in addresses.items():
        jobs[name] = {"job_name": name, "static_configs": [{"targets": [address]}]}
    jobs["exporter"] = {"job_name": "exporter", "static_configs": [{"targets": [exporter]}]}
    return yaml.safe_dump({**document, "scrape_configs": list(jobs.values())})


def expanded(expression: str) -> str:
    """With Grafana's own variables put in. Any other is an error: the dashboard has none for PromQL."""
    result = re.sub(r"\$(__\w+)", lambda match: WINDOWS[match[1]], expression)
    assert "$" not in result
    return result


def metrics_of(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:gpumon_\w+|up)\b", expression))


def base(metric: str) -> str:
    """As Prometheus' metadata has it: a histogram without the names of its series."""
    return re.sub(r"_(bucket|count|sum)$", "", metric)


def test_there_are_queries() -> None:
    assert len(QUERIES) >= 20


@pytest.mark.parametrize("query", QUERIES, ids=lambda q: q.name)
def test_panel_has_data(world: World, query: Query) -> None:
    expression = expanded(query.sql)
    excused = metrics_of(expression) & EMPTY.keys()
    if excused:
        known = world.prometheus.api("metadata")
        assert {base(m) for m in metrics_of(expression)} <= known.keys() | {"up"}, (
            f"{query.name}: no service has that metric"
        )
        world.prometheus.query(expression)  # it can be computed; empty or not
        return
    try:
        wait_until(lambda: has_numbers(world, expression), within=WITHIN, what="data")
    except ServerError:
        pytest.fail(f"{query.name} has no data: {expression}", pytrace=False)


def has_numbers(world: World, expression: str) -> bool:
    found = world.prometheus.query(expression)
    return bool(found) and all(result["value"][1] != "NaN" for result in found)


def test_every_excuse_is_needed() -> None:
    used = set[str]().union(*(metrics_of(query.sql) for query in QUERIES))
    assert EMPTY.keys() <= used


def value(world: World, title: str) -> float:
    (query,) = (q for q in QUERIES if q.title == title and q.kind == "stat")
    (result,) = world.prometheus.query(expanded(query.sql))
    return float(result["value"][1])


def test_numbers_are_the_pipelines(world: World) -> None:
    """Four GPUs a second; the target nobody listens at is down; its address is on the panel; messages were rejected."""
    wait_until(lambda: 2 < value(world, "Rows per second") < 6, within=WITHIN, what="four samples a second")
    assert value(world, "Targets down") == 1
    assert value(world, "Database") == 1
    world.reject()
    assert value(world, "Dead letters") > 0
    assert 0 < value(world, "Freshness") < 10
    up = world.prometheus.query("gpumon_collector_up")
    assert [r["metric"]["target"] for r in up if r["value"][1] == "0" and world.dead_target in r["metric"]["target"]]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("job", ["dcgm", "exporter"])
def test_dashboard_12239_on_the_mock_and_on_the_exporter(world: World, metric: str, job: str) -> None:
    """dcgm-exporter's own dashboard: its panels choose by instance and gpu, its variables list both."""
    found = world.prometheus.query(f'{metric}{{job="{job}", instance=~".+", gpu=~"0|1"}}')
    hosts = {result["metric"]["Hostname"] for result in found}
    assert len(hosts) == (HOSTS if job == "dcgm" else 1)
    assert {result["metric"]["gpu"] for result in found} == {"0", "1"}
    match = {"match[]": f'DCGM_FI_DEV_GPU_TEMP{{job="{job}"}}'}
    assert world.prometheus.api("label/instance/values", **match)
    assert world.prometheus.api("label/gpu/values", **match) == ["0", "1"]
