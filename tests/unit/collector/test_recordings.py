"""Bodies recorded from real dcgm-exporters: every value of theirs is in its column, exactly.

They are not part of the project. `GPUMON_RECORDINGS_DIR` names a folder of `*.prom` files.
"""

from __future__ import annotations

import datetime as dt
import os
from decimal import Decimal
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.collector.reader import TargetReader
from services.contract.catalogue import BY_DCGM_NAME, METRICS, Kind
from services.contract.event import Event

_VARIABLE = "GPUMON_RECORDINGS_DIR"
_FOLDER = os.environ.get(_VARIABLE)  # noqa: TID251  # the tests' own switch, no setting of the product
RECORDINGS = sorted(Path(_FOLDER).glob("*.prom")) if _FOLDER else []
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

pytestmark = pytest.mark.skipif(not RECORDINGS, reason=f"no recordings: {_VARIABLE} names no folder with *.prom files")


def series(text: str) -> dict[tuple[str, int | None, str], Decimal]:
    """(UUID, MIG instance, column) -> value, read from the text without our parser; values from their own digits."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name if sample.name in BY_DCGM_NAME else sample.name.removesuffix("_total")
            instance = sample.labels.get("GPU_I_ID")
            key = (sample.labels["UUID"], int(instance) if instance else None, BY_DCGM_NAME[name].column)
            found[key] = Decimal(str(sample.value))
    return found


def stored(events: list[Event]) -> dict[tuple[str, int | None, str], Decimal]:
    found = {}
    for event in events:
        for metric in METRICS:
            home = event.gpu.properties if metric.kind is Kind.PROPERTY else event.metrics
            value = getattr(home, metric.column, None)
            if value is not None:
                found[event.gpu.uuid, event.gpu.instance_id, metric.column] = Decimal(str(value))
    return found


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_every_value_in_its_column_and_no_other(path: Path) -> None:
    reading = TargetReader("h:9400", {}).read(path.read_bytes(), NOW)
    expected = series(path.read_text())
    assert stored(reading.events) == expected
    assert reading.samples == len(expected) > 10
    assert all(event.gpu.missing is None and event.extra is None for event in reading.events)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_identity(path: Path) -> None:
    for event in TargetReader("h:9400", {}).read(path.read_bytes(), NOW).events:
        assert event.gpu.uuid.startswith("GPU-")
        assert event.gpu.hostname != "h"
        assert event.gpu.index == 0
        assert event.gpu.device == "nvidia0"
