"""Strict first, lenient where that fails; every refusal has its reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.contract.event import Event
from services.sink.decode import (
    DECODER_ERRORS,
    Sample,
    check_extra,
    check_resets,
    decode_lenient,
    decode_strict,
    parse_time,
)
from services.sink.validate import Invalid, Reason
from tests.support.messages import encoded, event


def reason_of(value: bytes) -> Reason:
    with pytest.raises(Invalid) as caught:
        decode_lenient(value)
    return caught.value.reason


def test_a_whole_event_takes_the_strict_way() -> None:
    sample = decode_strict(encoded(tenant={"pod": "p"}, derived={"memory_percent": 1.5}, source="http://x/metrics"))
    assert sample.metrics.gpu_temp == 61
    assert sample.metrics.sm_active == 0.123456
    assert sample.metrics.fb_used is None, "absent is None, not zero"
    assert bytes(sample.gpu).startswith(b'{"uuid":"GPU-5f3c8a52')


def test_the_sinks_sample_has_every_field_of_the_contracts_event() -> None:
    assert set(Sample.__struct_fields__) == set(Event.__struct_fields__)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", Reason.NOT_JSON),
        (b"not json", Reason.NOT_JSON),
        (b'{"schema_version":1', Reason.NOT_JSON),
        (b'{"schema_version":NaN}', Reason.NOT_JSON),
        (b'{"time":"\xff\xfe"}', Reason.NOT_JSON),
        (b"[" * 100_000, Reason.NOT_JSON),
        (b"[]", Reason.SCHEMA),
        (b"null", Reason.SCHEMA),
        (b"{}", Reason.SCHEMA),
        (encoded(metrics=None), Reason.SCHEMA),
        (encoded(time=None), Reason.SCHEMA),
        (encoded(metrics={"gpu_temp": "hot"}), Reason.SCHEMA),
        (encoded(metrics={"gpu_temp": 61.5}), Reason.SCHEMA),
        (encoded(schema_version="1"), Reason.SCHEMA),
        (encoded(schema_version=0), Reason.SCHEMA),
        (encoded(gpu=None), Reason.NO_IDENTITY),
        (encoded(metrics={"gpu_temp": 201}), Reason.RANGE),
        (encoded(metrics={"power_usage": -0.5}), Reason.RANGE),
        (encoded(metrics={"gpu_temp": 9223372036854775794}), Reason.RANGE),
        (encoded(schema_version=2), Reason.UNSUPPORTED_VERSION),
        (encoded(schema_version=2, gpu=7, metrics="other"), Reason.UNSUPPORTED_VERSION),
    ],
)
def test_what_cannot_be_an_event_is_refused_with_its_reason(value: bytes, reason: Reason) -> None:
    if reason is not Reason.UNSUPPORTED_VERSION and b'"schema_version":0' not in value:
        with pytest.raises(DECODER_ERRORS):
            decode_strict(value)
    assert reason_of(value) is reason


def test_unknown_fields_move_into_extra_and_the_rest_is_kept() -> None:
    document = event(
        new_field={"a": [1, 2]},
        metrics={"gpu_temp": 61, "gpu_temp_hotspot": 71.5},
        tenant={"pod": "p", "team": "ml"},
        extra={"metrics": {"DCGM_FI_DEV_X": 1.0}},
    )
    with pytest.raises(DECODER_ERRORS):
        decode_strict(json.dumps(document).encode())
    sample = decode_lenient(json.dumps(document).encode())
    assert sample.metrics.gpu_temp == 61
    assert sample.tenant is not None
    assert sample.tenant.pod == "p"
    assert json.loads(bytes(sample.extra)) == {
        "metrics": {"DCGM_FI_DEV_X": 1.0},
        "fields": {"new_field": {"a": [1, 2]}, "metrics.gpu_temp_hotspot": 71.5, "tenant.team": "ml"},
    }


def test_an_unknown_field_does_not_excuse_a_bad_value() -> None:
    assert reason_of(encoded(new_field=1, metrics={"gpu_temp": 999})) is Reason.RANGE


@pytest.mark.parametrize("text", ["2026-11-22T03:00:00", "yesterday", "", "2026-13-01T00:00:00Z"])
def test_a_time_without_zone_or_sense_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_time(text)
    assert caught.value.reason is Reason.SCHEMA


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("2000-01-01T00:00:00Z", 0),
        ("2000-01-01T00:00:00.000001Z", 1),
        ("2000-01-01T01:00:00+01:00", 0),
        ("2000-01-02T00:00:00.250Z", 86_400_250_000),
        ("1999-12-31T23:59:59Z", -1_000_000),
    ],
)
def test_times_become_microseconds_since_2000(text: str, micros: int) -> None:
    assert parse_time(text) == micros


def nested(depth: int) -> Any:
    document: Any = 1
    for _ in range(depth):
        document = [document]
    return document


def test_deep_but_honest_nesting_in_extra_is_kept() -> None:
    assert decode_lenient(encoded(surprise=nested(50))).extra


def test_nesting_that_a_database_may_not_bear_is_refused() -> None:
    sample = decode_lenient(encoded(surprise=nested(200)))
    with pytest.raises(Invalid, match="nested more than 64 levels"):
        check_extra(bytes(sample.extra))


@pytest.mark.parametrize("value", [-1, 10**20])
def test_a_reset_from_a_value_no_counter_has_is_refused(value: int) -> None:
    """One such row would make the minute aggregate of all GPUs fail."""
    with pytest.raises(Invalid) as refused:
        check_resets(json.dumps({"total_energy_consumption": value}).encode())
    assert refused.value.reason is Reason.RANGE


def test_verdicts_quote_only_the_beginning_of_what_they_refuse() -> None:
    assert len(Invalid(Reason.BAD_KEY, "x" * 600_000).message) < 600
