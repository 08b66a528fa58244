"""Messages of `gpu-events`: what no database takes is refused before it gets there."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from services.sink.happenings import decode
from services.sink.sqlstate import Kind, classify
from services.sink.validate import Invalid, Reason


def message(**changes: Any) -> bytes:
    return json.dumps(
        {"schema_version": 1, "time": "2026-01-01T00:00:00Z", "kind": "xid", "gpu_uuid": "GPU-a", "code": 79, **changes}
    ).encode()


def test_an_event_is_read() -> None:
    assert decode(message()).code == 79


@pytest.mark.parametrize("field", ["kind", "hostname", "gpu_uuid", "source"])
def test_a_nul_in_any_text_is_refused(field: str) -> None:
    with pytest.raises(Invalid) as refused:
        decode(message(**{field: "a\0b"}))
    assert refused.value.reason is Reason.SCHEMA


def test_a_detail_nested_without_end_is_refused() -> None:
    deep: Any = 1
    for _ in range(200):
        deep = {"a": deep}
    with pytest.raises(Invalid, match="detail is nested"):
        decode(message(detail=deep))


def test_what_the_driver_refuses_to_send_is_bad_data_not_the_end_of_the_sink() -> None:
    assert classify(psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")) is Kind.DATA
