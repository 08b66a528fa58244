"""docker-compose.yml: what every service must have, checked on the file as written (anchors and merges resolved)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.__main__ import ROLES
from services.settings import Settings

DOCKER = Path(__file__).parents[3] / "docker"
ROOT = DOCKER.parent
TEXT = (DOCKER / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
ONE_SHOT = {name for name, service in SERVICES.items() if service["restart"] == "no"}
KNOWN_NAMES = {"kafka", "timescaledb", "grafana", "mock-dcgm", "collector", "timescale-sink"}
ROOT_IN_THE_CONTAINER = {"dcgm-exporter"}
"""NVIDIA's exporter reads profiling counters as root with SYS_ADMIN only."""

each_service = pytest.mark.parametrize("name", SERVICES)


def test_the_names_users_know_are_there() -> None:
    assert set(SERVICES) >= KNOWN_NAMES


def test_no_version_key_and_no_name_key() -> None:
    """`version:` is obsolete for compose v2; `name:` is refused by 1.29."""
    assert "version" not in COMPOSE
    assert "name" not in COMPOSE


@each_service
def test_image_is_pinned(name: str) -> None:
    tag = SERVICES[name]["image"].rpartition(":")[2]
    assert re.search(r"\d+\.\d+", tag), f"{name}: {SERVICES[name]['image']} is not pinned to a version"


def test_base_image_is_pinned() -> None:
    bases = re.findall(r"^FROM (\S+)", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    assert bases == ["python:3.11-slim-bookworm"]


@each_service
def test_has_a_probe_or_completes(name: str) -> None:
    service = SERVICES[name]
    if name in ONE_SHOT:
        assert "healthcheck" not in service
        return
    probe = service["healthcheck"]
    assert probe["test"][0] == "CMD"
    assert {"interval", "timeout", "retries", "start_period"} <= set(probe)


@each_service
def test_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in service["tmpfs"]
    assert service["logging"]["options"]["max-size"], "logs must not fill the disk"


@each_service
def test_is_not_root(name: str) -> None:
    if name in OURS:
        assert "\nUSER 10001:10001\n" in (DOCKER / "Dockerfile").read_text()
    else:
        root = SERVICES[name]["user"].split(":")[0] == "0"
        assert root == (name in ROOT_IN_THE_CONTAINER)


@each_service
def test_is_bounded_in_memory_and_in_time_to_stop(name: str) -> None:
    assert re.search(r"\d+[mg]\}?$", SERVICES[name]["mem_limit"])
    assert re.fullmatch(r"\d+s", SERVICES[name]["stop_grace_period"])


@each_service
def test_lives_in_the_network_of_its_own(name: str) -> None:
    assert SERVICES[name]["networks"] == ["gpumon"]
    assert COMPOSE["networks"] == {"gpumon": {"driver": "bridge"}}


@each_service
def test_ports_are_open_on_this_machine_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert port.startswith("127.0.0.1:"), f"{name}: {port}"


def test_published_ports_differ_within_a_profile() -> None:
    for profile in ("mock", "gpu"):
        active = [s for s in SERVICES.values() if s.get("profiles", [profile]) == [profile]]
        published = [port.split(":", 1)[1] for service in active for port in service.get("ports", [])]
        assert len(published) == len(set(published)) >= 5


def test_named_volumes_are_declared_and_used() -> None:
    used = {v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", []) if not v.startswith(".")}
    assert used == set(COMPOSE["volumes"])


def test_bind_mounts_exist_and_are_read_only() -> None:
    for name, service in SERVICES.items():
        for volume in (v for v in service.get("volumes", []) if v.startswith(".")):
            source = re.sub(r"\$\{\w+:-(\w+)\}", r"\1", volume.removesuffix(":ro")).rpartition(":")[0]
            assert (DOCKER / source).exists(), f"{name}: {source} does not exist"
            assert volume.endswith(":ro"), f"{name}: {volume} is writable"


def test_secrets_come_from_the_environment_without_a_default() -> None:
    secrets = [
        (name, key, str(value))
        for name, service in SERVICES.items()
        for key, value in (service.get("environment") or {}).items()
        if "PASSWORD" in key
    ]
    assert len(secrets) >= 4
    for name, key, value in secrets:
        assert re.fullmatch(r"\$\{\w+_PASSWORD:\?[^}]+\}", value), f"{name}: {key} is {value}"


def test_waiting_is_by_condition() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert how == {"condition": expected}, f"{name} -> {other}"
            assert "profiles" not in SERVICES[other], f"{name} cannot wait for {other}: its profile may be off"


def test_one_image_many_roles() -> None:
    assert len({service["image"] for service in OURS.values()}) == 1
    assert {service["command"][0] for service in OURS.values()} <= {role.name for role in ROLES}


def test_every_role_sees_every_setting() -> None:
    """Settings are checked against each other at start; a role that lacks one would judge differently."""
    left_out = {
        "pgpassword", "timescale_dsn",  # secrets: only where needed
        "grafana_token", "grafana_password", "grafana_ds_password",
        "kafka_group_instance_id",      # two replicas must not share it
        "kafka_replication_factor",     # one broker
        "status_file", "data_dir", "log_dir", "gpu_burn",  # not for containers
    }  # fmt: skip
    expected = {name.upper() for name in set(Settings.model_fields) - left_out}
    for name, service in OURS.items():
        assert set(service["environment"]) - {"PGPASSWORD"} == expected, name


def test_passwords_reach_only_who_needs_them() -> None:
    holders = {name for name, s in SERVICES.items() if any("PASSWORD" in key for key in s.get("environment") or {})}
    assert holders == {"timescaledb", "migrate", "roles", "timescale-sink", "grafana"}


def test_a_profile_swaps_the_mock_for_a_real_exporter() -> None:
    assert SERVICES["mock-dcgm"]["profiles"] == ["mock"]
    assert SERVICES["dcgm-exporter"]["profiles"] == ["gpu"]
    for profile, service in (("mock", "mock-dcgm"), ("gpu", "dcgm-exporter")):
        groups = yaml.safe_load((DOCKER / "targets" / profile / "exporters.yml").read_text())
        assert [target for group in groups for target in group["targets"]] == [f"{service}:9400"]


def test_broker_does_not_make_topics_by_itself() -> None:
    assert SERVICES["kafka"]["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
