"""`.env.example` at the root: the runbook's names are there, all are settings, and a copy of it works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.settings import Settings, load

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / ".env.example"
RUNBOOK = {"PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGSSLMODE", "SAMPLE_INTERVAL_SEC"}


def test_the_names_of_the_runbook_and_only_settings() -> None:
    text = EXAMPLE.read_text()
    assert set(re.findall(r"^([A-Z_]+)=", text, re.MULTILINE)) >= RUNBOOK
    assert {name.lower() for name in re.findall(r"^#?([A-Z_]+)=", text, re.MULTILINE)} <= set(Settings.model_fields)


def test_a_copy_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(env_file=EXAMPLE)
    assert (settings.destination, settings.interval, settings.targets) == ("timescaledb", 10.0, ("127.0.0.1:9400",))
    monkeypatch.setenv("DESTINATION", "kafka")
    assert load(env_file=EXAMPLE).destination == "kafka"


def test_what_must_not_be_committed_is_ignored() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {".env", "status.json", "logs/", "spool/", "bench_results/"} <= set(ignored)
