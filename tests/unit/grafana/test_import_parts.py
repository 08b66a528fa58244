"""`gpumon grafana import`: the parts without a network."""

from __future__ import annotations

import pytest

from services.grafana import client, dashboards
from services.grafana.credentials import Credentials
from services.grafana.dashboards import content, fingerprint, rendered
from services.grafana.errors import GrafanaError
from services.grafana.folders import uid_of
from services.grafana.sources import request, sslmode
from services.settings import load


def test_committed_dashboards_can_be_rendered() -> None:
    """Each finds its data sources, nothing is left to replace, and people can name it."""
    found = dashboards.committed()
    assert {d.name for d in found} == set(dashboards.names()) >= {"host", "fleet", "gpu", "pipeline"}
    assert len({d.uid for d in found}) == len(found)
    for dashboard in found:
        assert dashboard.sources, f"{dashboard.file} refers to no data source by variable"
        model = rendered(dashboard.model, dict.fromkeys(dashboard.sources, "the-uid"))
        assert model["id"] is None
        assert "_DS_UID}" not in str(model)
        assert content(model) != content(dashboard.model)


def test_rendering_leaves_the_committed_one_alone() -> None:
    model = {"uid": "u", "templating": {"list": []}, "panels": [{"datasource": {"uid": "${GRAFANA_DS_UID}"}}]}
    assert rendered({"url": "/x?ds=${GRAFANA_DS_UID}&y"}, {"GRAFANA_DS_UID": "a"})["url"] == "/x?ds=a&y"
    first = rendered(model, {"GRAFANA_DS_UID": "a"})
    assert first["panels"] == [{"datasource": {"uid": "a"}}]
    assert rendered(model, {"GRAFANA_DS_UID": "b"})["panels"] == [{"datasource": {"uid": "b"}}]


def test_a_variable_without_a_data_source_is_refused() -> None:
    with pytest.raises(ValueError, match="PROMETHEUS_DS_UID"):
        rendered({"panels": ["${PROMETHEUS_DS_UID}"]}, {"GRAFANA_DS_UID": "a"})


def test_fingerprint_is_of_the_content() -> None:
    model = {"title": "t", "panels": [1, 2], "id": None}
    assert fingerprint(model) == fingerprint({"panels": [1, 2], "id": 7, "version": 9, "title": "t"})
    assert fingerprint(model) != fingerprint({**model, "panels": [2, 1]})


@pytest.mark.parametrize(
    ("title", "uid"),
    [
        ("GPU Health Monitor", "gpu-health-monitor"),
        ("  a/b  ", "a-b"),
        ("監視", "gpumon-"),
        ("GPU の監視", "gpumon-"),
        ("x" * 41, "gpumon-"),
        ("!!!", "gpumon-"),
    ],
)
def test_uid_of_a_folder(title: str, uid: str) -> None:
    assert uid_of(title).startswith(uid)
    assert len(uid_of(title)) <= 40
    assert uid_of(title) == uid_of(title) != uid_of(title + "x")


def test_a_login_does_not_show_its_secret() -> None:
    for login in (Credentials(token="glsa_x"), Credentials(user="u", password="s3cret")):
        assert not any(secret in repr(login) for secret in login.secrets)
        assert len(login.secrets) >= 1
    with pytest.raises(GrafanaError, match="line breaks"):
        Credentials(token="glsa_x\n")


def test_short_passwords_do_not_blank_out_every_word() -> None:
    assert "a" not in Credentials(user="u", password="a").secrets


@pytest.mark.parametrize(
    ("dsn", "url", "database", "mode"),
    [
        ("postgresql://u@db.example:5433/gpus?sslmode=require", "db.example:5433", "gpus", "require"),
        ("host=::1 dbname=d", "[::1]:5432", "d", "disable"),
        ("postgresql://u@h", "h:5432", "gpu_health", "disable"),
    ],
)
def test_data_source_of_a_database(
    monkeypatch: pytest.MonkeyPatch, dsn: str, url: str, database: str, mode: str
) -> None:
    for name in ("PGHOST", "PGPORT", "PGDATABASE", "PGSSLMODE"):
        monkeypatch.delenv(name, raising=False)
    body = request(load(timescale_dsn=dsn), "grafana", "secret")
    assert (body["url"], body["jsonData"]["database"], body["database"]) == (url, database, database)
    assert body["jsonData"]["sslmode"] == mode
    assert body["secureJsonData"] == {"password": "secret"}


@pytest.mark.parametrize("host", ["/var/run/postgresql", "a,b"])
def test_a_database_that_grafana_cannot_reach(host: str) -> None:
    with pytest.raises(GrafanaError, match="one host name"):
        request(load(timescale_dsn=f"host={host} dbname=d"), "grafana", "secret")


def test_sslmodes_of_grafana() -> None:
    assert [sslmode(m) for m in ("verify-ca", "prefer", "allow")] == ["verify-ca", "disable", "disable"]


class StoppedClock:
    """1 January 2026, noon."""

    def time(self) -> float:
        return 1767268800.0

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("7", 7.0), ("-1", 0.0), ("Thu, 01 Jan 2026 12:00:20 GMT", 20.0), ("soon", None)],
)
def test_how_long_a_server_wants_us_to_wait(header: str | None, seconds: float | None) -> None:
    assert client._retry_after(header, StoppedClock()) == seconds
