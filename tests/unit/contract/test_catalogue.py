"""The catalogue is consistent, and everything written from it is up to date."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import re
from pathlib import Path

import jsonschema
import msgspec
import pytest

from services.contract import document
from services.contract.catalogue import COUNTERS, LABEL_FIELDS, METRICS, PROPERTIES, SAMPLED, Kind, Metric, SqlType
from services.contract.event import SCHEMA_VERSION, Event, Gpu, GpuEvent, Happening, Metrics, Status, encode
from services.contract.row import COLUMNS
from services.contract.sentinels import SENTINELS, Missing

ROOT = Path(__file__).resolve().parents[3]
LIMITS = {SqlType.SMALLINT: 2**15 - 1, SqlType.INTEGER: 2**31 - 1, SqlType.BIGINT: 2**63 - 1}


def test_names_and_ids_are_unique() -> None:
    names = [n for m in METRICS for n in (m.dcgm, m.dcgm_new) if n]
    assert len(set(names)) == len(names)
    assert len({m.column for m in METRICS}) == len(METRICS)
    assert len({m.dcgm_id for m in METRICS}) == len(METRICS)
    assert len({c.name for c in COLUMNS}) == len(COLUMNS)
    assert len(METRICS) == len(SAMPLED) + len(PROPERTIES)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.column)
def test_range_fits_the_column_and_stops_sentinels(metric: Metric) -> None:
    assert metric.low < metric.high
    if metric.sql.is_integer:
        assert metric.high <= LIMITS[metric.sql]
    int64_blanks = [s for s in SENTINELS if s > 2**53]
    assert all(blank > metric.high for blank in int64_blanks)


def test_gauges_declared_as_counters_are_the_known_two() -> None:
    odd = {m.column for m in METRICS if m.exported_kind == "counter"}
    assert odd == {"retired_pending", "nvlink_bandwidth_total"}
    assert all(m.exposition_type == "counter" for m in COUNTERS)


def test_default_list_is_dcgm_exporters() -> None:
    assert sum(m.default for m in METRICS) == 25  # 26 rows of its file, one of them the driver-version label


def test_sentinels_carry_their_reason() -> None:
    assert SENTINELS[9223372036854775794] is Missing.UNSUPPORTED
    assert SENTINELS[0x7FFFFFF3] is Missing.PERMISSION
    assert SENTINELS[140737488355328] is Missing.FAILED
    assert 0 not in SENTINELS


def test_committed_documents_are_written_from_the_catalogue() -> None:
    assert (ROOT / "docs/metrics.md").read_text() == document.markdown(), "run `make docs`"
    assert (ROOT / "schema/event.schema.json").read_text() == document.json_schema(), "run `make docs`"
    schema = (ROOT / "schema/gpu-event.schema.json").read_text()
    assert schema == document.json_schema_of_gpu_events(), "run `make docs`"


def test_counters_csv_has_three_columns_of_allowed_types() -> None:
    rows = [r for r in csv.reader(io.StringIO(document.counters_csv())) if not r[0].startswith("#")]
    assert {len(r) for r in rows} == {3}
    assert {r[0] for r in rows if r[1] != "label"} == {m.dcgm for m in METRICS}
    assert {r[1] for r in rows} == {"gauge", "counter", "label"}
    assert all(LABEL_FIELDS[field] == column for field, column in document.EXPORTER_LABELS)


def _event(**metrics: float) -> Event:
    return Event(
        schema_version=SCHEMA_VERSION,
        time=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        gpu=Gpu(uuid="GPU-1", hostname="h"),
        metrics=Metrics(**metrics),
    )


def test_absent_is_not_in_the_event_and_zero_is() -> None:
    written = json.loads(encode(_event(gpu_util=0)))
    assert written["metrics"] == {"gpu_util": 0}


def test_event_passes_its_json_schema_and_returns_whole() -> None:
    event = _event(gpu_temp=61, power_usage=409.692, total_energy_consumption=2**53)
    document_text = encode(event)
    schema = json.loads((ROOT / "schema/event.schema.json").read_text())
    jsonschema.validate(json.loads(document_text), schema)
    assert msgspec.json.decode(document_text, type=Event) == event


def test_gpu_event_passes_its_json_schema_and_returns_whole() -> None:
    status = Status(tag="bench", memo="run 4")
    time = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    event = GpuEvent(schema_version=1, time=time, kind="xid", code=79, detail={"count": 1}, status=status)
    schema = json.loads((ROOT / "schema/gpu-event.schema.json").read_text())
    jsonschema.validate(json.loads(encode(event)), schema)
    assert msgspec.json.decode(encode(event), type=GpuEvent) == event


def test_the_documentation_names_every_kind_of_gpu_event() -> None:
    text = (ROOT / "docs/schema.md").read_text()
    described = re.findall(r"^\| `(\w+)` \|", text[text.index("## GPU events") :].partition("\n## ")[0], re.MULTILINE)
    assert sorted(described) == sorted(Happening)


@pytest.mark.parametrize("metric", SAMPLED, ids=lambda m: m.column)
def test_out_of_range_is_refused_where_it_is_decoded(metric: Metric) -> None:
    highest = int(metric.high) if metric.sql.is_integer else metric.high
    assert msgspec.json.decode(encode(_event(**{metric.column: highest})), type=Event)
    beyond = highest + 1 if metric.sql.is_integer else highest * 1.001
    with pytest.raises(msgspec.ValidationError, match=metric.column):
        msgspec.json.decode(encode(_event(**{metric.column: beyond})), type=Event)


def test_properties_are_not_sampled() -> None:
    assert all(m.kind is not Kind.PROPERTY for m in SAMPLED)
    assert {"slowdown_temp", "fb_total"} <= {m.column for m in PROPERTIES}
