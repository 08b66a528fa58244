"""Settings: the names users know, refused early and in words when they make no sense."""

from __future__ import annotations

import subprocess
import sys

import psycopg
import pytest

from services.settings import SettingsError, load, seconds


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "TIMESCALE_DSN", "TARGETS"):
        monkeypatch.delenv(name, raising=False)


def test_defaults_are_the_documented_ones() -> None:
    s = load()
    assert (s.interval, s.poll_interval, s.batch_size, s.batch_timeout) == (10, 10, 5000, 0.5)
    assert (s.kafka_topic, s.kafka_topic_invalid) == ("gpu-metrics-raw", "gpu-metrics-invalid")
    assert (s.pgdatabase, s.pguser, s.pgsslmode) == ("gpu_health", "gpu_monitor", "prefer")


def test_lists_come_from_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TARGETS", "a:9400, b:9400,")
    assert load().targets == ("a:9400", "b:9400")


def test_sample_interval_sec_is_used_where_collection_interval_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_INTERVAL_SEC", "30")
    assert load().interval == 30
    monkeypatch.setenv("COLLECTION_INTERVAL", "5")
    assert load().interval == 5


def test_dsn_from_parts_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "p w")
    assert psycopg.conninfo.conninfo_to_dict(load().dsn)["password"] == "p w"
    monkeypatch.setenv("TIMESCALE_DSN", "postgresql://u@h/d")
    assert load().dsn == "postgresql://u@h/d"


def test_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "secret")
    assert "secret" not in repr(load())


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"BATCH_SIZE": "abc"}, ["BATCH_SIZE", "abc", "integer"]),
        ({"RACK": "r\udcff"}, ["RACK='r\\udcff'", "UTF-8"]),
        ({"EXPORTER_MOCK": "P40=1,X1"}, ["EXPORTER_MOCK='P40=1,X1'", "unknown model 'X1'", "P40"]),
        ({"EXPORTER_MOCK": "P40=0"}, ["EXPORTER_MOCK='P40=0'", "count"]),
        ({"BATCH_TIMEOUT": "0"}, ["BATCH_TIMEOUT", "greater than 0"]),
        ({"SHARD_INDEX": "2", "SHARD_COUNT": "2"}, ["SHARD_INDEX=2", "SHARD_COUNT=2", "smaller"]),
        ({"SCRAPE_TIMEOUT": "20"}, ["SCRAPE_TIMEOUT=20", "COLLECTION_INTERVAL=10"]),
        ({"MAX_AGE": "700000"}, ["MAX_AGE", "RETENTION"]),
        ({"KAFKA_TOPIC": "gpu-events"}, ["KAFKA_TOPIC_EVENTS", "different"]),
        ({"COMPRESS_AFTER": "7 days"}, ["COMPRESS_AFTER", "CHUNK_INTERVAL", "RETENTION"]),
        ({"RETENTION_1MIN": "1 day"}, ["RETENTION_1MIN"]),
        ({"RETENTION": "a while"}, ["RETENTION", "a while"]),
        ({"LOG_LEVEL": "LOUD"}, ["LOG_LEVEL", "LOUD", "INFO"]),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_impossible_is_refused_with_name_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: list[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        load()
    assert all(word in str(refused.value) for word in words), str(refused.value)


def test_a_role_refuses_to_start_on_a_bad_setting() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services", "catalogue"],
        env={"BATCH_SIZE": "-1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("gpumon: BATCH_SIZE='-1': ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["EXPORTER_STALE_AFTER", "EXPORTER_INTERVAL", "NVIDIA_SMI_TIMEOUT", "POLL_INTERVAL"])
@pytest.mark.parametrize("value", ["inf", "nan", "-inf", "1e9", "0"])
def test_seconds_are_a_finite_number_within_a_year(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        load()


@pytest.mark.parametrize(("text", "length"), [("30 minutes", 1800), ("1 hour", 3600), ("7days", 604800)])
def test_interval_length(text: str, length: float) -> None:
    assert seconds(text) == length
