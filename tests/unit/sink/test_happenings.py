"""Messages of `gpu-events`: what no database takes is refused before it gets there."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from services.contract.event import Status
from services.sink.batch import Batch
from services.sink.happenings import decode, parameters, snapshot_parameters
from services.sink.intake import take_event
from services.sink.inventory import Inventory
from services.sink.rows import RowMapper
from services.sink.sqlstate import Kind, classify
from services.sink.validate import Invalid, Reason, TimeLimits
from tests.support.messages import FakeMessage


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


# Status -------------------------------------------------------------------------------------------------------------


def test_the_hosts_status_goes_with_the_event() -> None:
    event = decode(message(status={"tag": "bench", "memo": "run 4"}))
    assert event.status == Status(tag="bench", memo="run 4")
    row = parameters(event)
    assert (row["status_tag"], row["status_memo"]) == ("bench", "run 4")


@pytest.mark.parametrize("changes", [{}, {"status": None}, {"status": {}}])
def test_events_without_a_status_are_as_good(changes: dict[str, Any]) -> None:
    row = parameters(decode(message(**changes)))
    assert (row["status_tag"], row["status_memo"]) == (None, None)


def test_a_nul_in_the_memo_is_refused() -> None:
    with pytest.raises(Invalid, match="NUL"):
        decode(message(status={"tag": "bench", "memo": "a\0b"}))


# Documents ----------------------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "document": "nvidia-smi",
    "hash": "abc",
    "content": {"format": "nvidia-smi-xml", "xml": "<gpu/>"},
}


def snapshot(**changes: Any) -> bytes:
    return message(**{"kind": "snapshot", "hostname": "h", "code": 0, "detail": GOOD, **changes})


def test_a_document_is_read() -> None:
    row = snapshot_parameters(decode(snapshot()))
    assert (row["kind"], row["hash"], row["hostname"], row["gpu_uuid"]) == ("nvidia-smi", "abc", "h", "GPU-a")
    assert json.loads(row["content"]) == GOOD["content"]


@pytest.mark.parametrize(
    "changes",
    [
        {"hostname": None},
        {"hostname": ""},
        {"detail": None},
        {"detail": {}},
        {"detail": {**GOOD, "document": ""}},
        {"detail": {**GOOD, "document": "a\0"}},
        {"detail": {**GOOD, "hash": 7}},
        {"detail": {**GOOD, "hash": "x" * 200}},
        {"detail": {**GOOD, "hash": "a\0"}},
        {"detail": {**GOOD, "content": "<gpu/>"}},
        {"detail": {**GOOD, "content": None}},
    ],
)
def test_a_document_that_is_none_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        decode(snapshot(**changes))
    assert refused.value.reason is Reason.SCHEMA


# The window of times ------------------------------------------------------------------------------------------------

NOW = 1_767_225_600.0
"""2026-01-01T00:00:00Z"""


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (message(time="2025-12-31T23:00:01Z"), None),
        (message(time="2025-12-31T22:59:59Z"), Reason.TOO_OLD),
        (message(time="2026-01-01T00:00:59Z"), None),
        (message(time="2026-01-01T00:01:01Z"), Reason.IN_FUTURE),
        (message(time="0001-01-01T00:00:00Z"), Reason.TOO_OLD),
        (snapshot(time="2025-06-01T00:00:00Z"), None),  # old, and the newest there is
        (snapshot(time="2026-01-01T00:01:01Z"), Reason.IN_FUTURE),
    ],
)
def test_an_event_outside_the_window_is_a_dead_letter(value: bytes, reason: Reason | None) -> None:
    mapper = RowMapper(Inventory(), TimeLimits(max_age=3600, max_future=60))
    mapper.set_now(NOW)
    batch = Batch()
    take_event(mapper, FakeMessage(value), batch)
    assert [item.verdict.reason for item in batch.refused] == ([] if reason is None else [reason])
    assert (len(batch.events), len(batch.event_sources)) == ((1, 1) if reason is None else (0, 0))
