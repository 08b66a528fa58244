"""Kafka message -> row of `gpu_metrics`. The hot path: every name looked up here is paid per event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from services.contract.event import SCHEMA_VERSION, GpuEvent, Happening
from services.sink.decode import (
    ABSENT,
    DECODER_ERRORS,
    Sample,
    check_extra,
    check_resets,
    decode_lenient,
    decode_strict,
    parse_time,
)
from services.sink.inventory import Inventory
from services.sink.pgtime import Micros, from_datetime, from_unix
from services.sink.validate import Invalid, Reason, TimeLimits, check_version, refuse_time

Row = tuple[Any, ...]
"""Values in the order of services.contract.row.COLUMNS: time as Micros, jsonb as bytes with its version in front."""

JSONB_VERSION: Final = b"\x01"
"""First byte of a jsonb on the wire; the document's text follows."""
UNDECODABLE: Final = (*DECODER_ERRORS, TypeError)
REMEMBERED_TIMES: Final = 10_000
"""All GPUs of a target share a scrape's time; so many scrapes are in flight at most before the memory is emptied."""

_NO_TENANT: Final = (None, None, None)
_NO_STATUS: Final = (None, None)
_NO_DOCUMENTS: Final = (None, None)
_NOTHING_BUT_TENANT: Final = _NO_STATUS + _NO_DOCUMENTS
_astuple: Final = msgspec.structs.astuple


class RowMapper:
    """Decodes, validates and maps. Holds what repeats between events: the scrape's time and the GPU's identity."""

    def __init__(self, inventory: Inventory, limits: TimeLimits) -> None:
        self._gpus = inventory.known
        self._inventory = inventory
        self._limits = limits
        self._times: dict[str, Micros] = {}
        self._oldest = self._newest = 0

    def set_now(self, unix_seconds: float) -> None:
        """Move the window of accepted times. Called once per poll, not per event."""
        self._oldest, self._newest = self._limits.window(from_unix(unix_seconds))

    def check_event(self, event: GpuEvent) -> None:
        """Raises Invalid for a GPU event outside the window. A document may be old: it is the newest there is."""
        time = from_datetime(event.time)
        oldest = time if event.kind == Happening.SNAPSHOT else self._oldest
        if not oldest <= time <= self._newest:
            raise refuse_time(time, (oldest, self._newest))

    def row(self, key: bytes | None, value: bytes | None) -> Row | None:
        """The row; None when the GPU's identity is new and is now waiting in the inventory. Raises Invalid."""
        try:
            sample = decode_strict(value)  # type: ignore[arg-type]  # None is a TypeError, dealt with like the others
        except UNDECODABLE:
            sample = _decode_again(value)
        if sample.schema_version != SCHEMA_VERSION:
            check_version(sample.schema_version)
        time = self._times.get(sample.time) or self._new_time(sample.time)
        if not self._oldest <= time <= self._newest:
            raise refuse_time(time, (self._oldest, self._newest))
        identity = bytes(sample.gpu)
        known = self._gpus.get(identity)
        if known is None:
            self._inventory.meet(identity, time, sample.metrics)
            return None
        if known[1] != key:
            raise Invalid(Reason.BAD_KEY, f"key {key!r} is not the GPU's UUID {known[1].decode()!r}")
        return (time, known[0]) + _astuple(sample.metrics) + _context(sample)  # noqa: RUF005 - unpacking makes a list

    def _new_time(self, text: str) -> Micros:
        time = parse_time(text)
        if len(self._times) >= REMEMBERED_TIMES:
            self._times.clear()
        self._times[text] = time
        return time


def _decode_again(value: bytes | None) -> Sample:
    if value is None:
        raise Invalid(Reason.NOT_JSON, "the message has no value")
    return decode_lenient(value)


def _context(sample: Sample) -> Row:
    """pod, namespace, container, status_tag, status_memo, counter_resets, extra."""
    tenant = _NO_TENANT if sample.tenant is None else _astuple(sample.tenant)
    if sample.status is None and sample.resets is ABSENT and sample.extra is ABSENT:
        return tenant + _NOTHING_BUT_TENANT
    status = _NO_STATUS if sample.status is None else _astuple(sample.status)
    return (*tenant, *status, _document(sample.resets, check_resets), _document(sample.extra, check_extra))


def _document(raw: msgspec.Raw, check: Callable[[bytes], bytes]) -> bytes | None:
    content = bytes(raw)
    return None if content in (b"", b"null") else JSONB_VERSION + check(content)
