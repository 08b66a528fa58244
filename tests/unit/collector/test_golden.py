"""Expositions of every variant dcgm-exporter has, with the events that must come of them.

The fixtures are small and written by hand; the expected events beside them were checked by eye against the text.
"""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.collector.reader import TargetReader
from services.contract.event import Event, encode

FOLDER = Path(__file__).parents[2] / "golden" / "exposition"
FIXTURES = sorted(FOLDER.glob("*.prom"))
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def read(path: Path) -> dict[str, Any]:
    """What a reader makes of a fixture, as JSON; `schema_version`, `time` and `source` are the same for all."""
    reading = TargetReader("http://gpu-7:9400/metrics", {"rack": "r1", "team": "x"}).read(path.read_bytes(), NOW)
    events = [json.loads(encode(event)) for event in reading.events]
    for event in events:
        assert event.pop("schema_version") == 1
        assert event.pop("time") == "2026-01-01T00:00:00Z"
        assert event.pop("source") == "http://gpu-7:9400/metrics"
    return {"samples": reading.samples, "non_gpu": reading.non_gpu, "events": events}


def test_enough_fixtures() -> None:
    assert len(FIXTURES) >= 14


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_events(path: Path) -> None:
    assert read(path) == json.loads(path.with_suffix(".json").read_text())


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_second_scrape_is_the_same(path: Path) -> None:
    """The fast path reads what the first scrape's exact path read; nothing happened in between."""
    reader = TargetReader("h:9400", {})
    first, second = (reader.read(path.read_bytes(), NOW) for _ in range(2))
    assert second.events == first.events
    assert second.happenings == []
    assert (second.samples, second.non_gpu) == (first.samples, first.non_gpu)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_events_keep_the_contract(path: Path) -> None:
    """Decoding validates: ranges, lengths and types of every value."""
    for event in TargetReader("h:9400", {}).read(path.read_bytes(), NOW).events:
        assert msgspec.json.decode(encode(event), type=Event) == event
