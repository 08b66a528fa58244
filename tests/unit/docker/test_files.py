"""The files around docker-compose.yml: image, probes, exporter's counters, Prometheus, Grafana, compose.sh."""

from __future__ import annotations

import csv
import os
import shutil
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from services.contract.catalogue import METRICS
from services.ops.health import OpsServer
from tests.support.processes import free_port

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "docker"
PROBE = ["bash", str(DOCKER / "probe-http.sh")]
KAFKA_PROBE = ["bash", str(DOCKER / "kafka" / "probe.sh")]
KNOWN_COMMANDS = ("bash", "sed", "od", "tr", "dirname", "mv", "tail", "cat", "head", "env")


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, env=environment or None)


# --- Dockerfile -------------------------------------------------------------------------------------------------------


def test_dependencies_are_a_layer_of_their_own_below_the_code() -> None:
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    locked = next(i for i, line in enumerate(lines) if "--require-hashes" in line)
    code = [i for i, line in enumerate(lines) if line.startswith("COPY") and ("services" in line or "schema" in line)]
    assert code
    assert min(code) > locked


def test_everything_the_image_copies_is_let_through() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word.removeprefix("./")
        for line in (DOCKER / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY")
        for word in line.split()[1:-1]
    }
    assert copied == allowed


# --- probes -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ops() -> Iterator[tuple[int, list[str | None]]]:
    problem: list[str | None] = [None]
    server = OpsServer("127.0.0.1", 0, live=lambda: None, ready=lambda: problem[0], registry=CollectorRegistry())
    with server:
        yield server.port, problem


def test_http_probe_follows_readyz(ops: tuple[int, list[str | None]]) -> None:
    port, problem = ops
    good = run([*PROBE, str(port), "/readyz"])
    assert (good.returncode, good.stdout) == (0, '200 {"status": "ok"}\n')
    problem[0] = "no assignment yet"
    bad = run([*PROBE, str(port), "/readyz"])
    assert bad.returncode != 0
    assert "no assignment yet" in bad.stdout


def test_http_probe_fails_where_nobody_listens() -> None:
    assert run([*PROBE, str(free_port()), "/readyz"]).returncode != 0


@pytest.mark.parametrize(
    ("answer", "healthy"),
    [
        (bytes([0, 0, 0, 10, 0, 0, 0, 1, 0, 0]) + bytes(8), True),
        (bytes([0, 0, 0, 10, 0, 0, 0, 1, 0, 35]) + bytes(8), False),  # error code 35, UNSUPPORTED_VERSION
        (b"HTTP/1.0 400 Bad Request\r\n\r\n", False),
        (b"", False),
    ],
    ids=["broker", "error", "not a broker", "hangs up"],
)
def test_kafka_probe_wants_an_answer(answer: bytes, healthy: bool) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        seen: list[bytes] = []

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                while len(b"".join(seen)) < 14:
                    seen.append(connection.recv(64))
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        result = run([*KAFKA_PROBE, "127.0.0.1", str(server.getsockname()[1])])
        thread.join()
    assert (result.returncode == 0) is healthy
    assert b"".join(seen) == bytes([0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 255, 255])


# --- dcgm-exporter ----------------------------------------------------------------------------------------------------


def test_counters_file_is_the_catalogue() -> None:
    lines = (DOCKER / "dcgm-exporter" / "counters.csv").read_text().splitlines()
    rows = list(csv.reader(line for line in lines if not line.startswith("#")))
    # dcgm-exporter refuses the whole file when one line has not three columns.
    assert {len(row) for row in rows} == {3}
    metrics = [tuple(row) for row in rows if row[1] != "label"]
    assert metrics == [(m.dcgm, m.exposition_type, m.help) for m in METRICS]
    assert ["DCGM_FI_DRIVER_VERSION", "label"] in [row[:2] for row in rows]


# --- Prometheus and Grafana -------------------------------------------------------------------------------------------


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_prometheus_scrapes_every_service_of_ours() -> None:
    config = _yaml(DOCKER / "prometheus.yml")
    static = {t for job in config["scrape_configs"] for c in job.get("static_configs", []) for t in c["targets"]}
    services = _yaml(DOCKER / "docker-compose.yml")["services"]
    ours = {n for n, s in services.items() if "build" in s and s["restart"] != "no" and "profiles" not in s}
    assert {f"{name}:9090" for name in ours} <= static
    (dcgm,) = [job for job in config["scrape_configs"] if job["job_name"] == "dcgm"]
    collector = services["collector"]["environment"]["TARGETS_FILES"]
    assert dcgm["file_sd_configs"] == [{"files": [collector]}], "one list of exporters for both"


def test_grafana_reads_with_the_role_that_can_only_read() -> None:
    (source,) = _yaml(ROOT / "grafana/provisioning/datasources/gpu-telemetry.yml")["datasources"]
    environment = _yaml(DOCKER / "docker-compose.yml")["services"]["grafana"]["environment"]
    assert source["uid"] == "gpu-telemetry-ds"
    assert source["type"] == "grafana-postgresql-datasource"
    assert "database" not in source, "Grafana 12 and newer ignore it there"
    assert source["jsonData"]["database"] == "$GRAFANA_DB_NAME"
    assert source["secureJsonData"] == {"password": "$GRAFANA_DB_PASSWORD"}
    assert environment["GRAFANA_DB_USER"] == "grafana"
    assert "GRANT gpu_reader TO grafana;" in (DOCKER / "timescaledb" / "roles.sql").read_text()


def test_grafana_loads_dashboards_from_a_folder_that_is_mounted() -> None:
    (provider,) = _yaml(ROOT / "grafana/provisioning/dashboards/gpu-health.yml")["providers"]
    mounts = _yaml(DOCKER / "docker-compose.yml")["services"]["grafana"]["volumes"]
    assert f"../grafana:{provider['options']['path']}:ro" in mounts


# --- compose.sh -------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """compose.sh and .env.example alone, with a PATH that holds nothing else but basic tools."""
    for name in ("compose.sh", ".env.example"):
        shutil.copy(DOCKER / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    for command in KNOWN_COMMANDS:
        found = shutil.which(command)
        assert found
        (tmp_path / "bin" / command).symlink_to(found)
    return tmp_path


def _stub(checkout: Path, name: str, body: str) -> None:
    path = checkout / "bin" / name
    path.write_text(f"#!{shutil.which('bash')}\n{body}\n")
    path.chmod(0o755)


def _compose(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run([str(checkout / "bin/bash"), str(checkout / "compose.sh"), *arguments], PATH=str(checkout / "bin"))


def test_without_docker_it_says_so_and_points_to_the_demo(checkout: Path) -> None:
    result = _compose(checkout, "up")
    assert result.returncode == 1
    assert "Docker is not installed" in result.stdout + result.stderr
    assert "make demo" in result.stderr
    assert not (checkout / ".env").exists()


def test_a_silent_engine_is_named(checkout: Path) -> None:
    _stub(
        checkout,
        "docker",
        'case $1 in compose) exit 0 ;; info) echo "Cannot connect to the daemon" >&2; exit 1 ;; esac',
    )
    result = _compose(checkout, "up")
    assert result.returncode == 1
    assert "Cannot connect to the daemon" in result.stderr
    assert "make demo" in result.stderr


@pytest.mark.parametrize(("port", "refused"), [("19092", True), ("29093", True), ("9093", False)])
def test_a_port_kafka_uses_inside_is_refused(checkout: Path, port: str, refused: bool) -> None:
    _stub(checkout, "docker", 'case $1 in compose) shift; echo "compose $*" ;; esac')
    (checkout / ".env").write_text(f"KAFKA_PORT={port}\n")
    result = _compose(checkout, "up")
    assert ("compose build" not in result.stdout) == refused
    assert (f"KAFKA_PORT={port} is used inside Kafka's container" in result.stderr) == refused
    assert result.returncode == 1 or not refused


@pytest.mark.parametrize("installed", ["docker compose", "docker-compose"])
def test_either_compose_will_do(checkout: Path, installed: str) -> None:
    v2 = installed == "docker compose"
    _stub(checkout, "docker", f"case $1 in compose) {'shift; echo compose $*' if v2 else 'exit 1'} ;; esac")
    _stub(checkout, "docker-compose", 'echo compose "$@"')
    result = _compose(checkout, "ps", "-q")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "compose ps -q"


def test_first_run_writes_random_passwords_that_only_the_owner_reads(checkout: Path) -> None:
    _stub(checkout, "docker", "exit 0")
    assert _compose(checkout, "ps").returncode == 0
    env = checkout / ".env"
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    values = dict(line.split("=", 1) for line in env.read_text().splitlines() if line and line[0] != "#")
    passwords = {name: value for name, value in values.items() if name.endswith("_PASSWORD")}
    assert len(passwords) == len(set(passwords.values())) >= 3
    assert all(len(value) == 32 for value in passwords.values())
    before = env.read_text()
    assert _compose(checkout, "ps").returncode == 0
    assert env.read_text() == before


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed")
def test_docker_compose_takes_the_file(tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],  # noqa: TID251  # a test starts another program with its own PATH
        "POSTGRES_PASSWORD": "a",
        "GRAFANA_DB_PASSWORD": "b",
        "SINK_DB_PASSWORD": "d",
        "GRAFANA_ADMIN_PASSWORD": "c",
        "COMPOSE_PROFILES": "mock",
    }
    compose = ["docker-compose", "-f", str(DOCKER / "docker-compose.yml"), "config", "-q"]
    good = run(compose, **environment)
    assert good.returncode == 0, good.stderr
    del environment["POSTGRES_PASSWORD"]
    (tmp_path / "empty.env").touch()
    missing = run([*compose[:3], "--env-file", str(tmp_path / "empty.env"), *compose[3:]], **environment)
    assert missing.returncode != 0
    assert "docker/.env" in missing.stderr
