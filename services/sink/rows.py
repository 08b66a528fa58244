"""Kafka message -> row of `gpu_metrics`. The hot path: every name looked up here is paid per event."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from services.contract.event import SCHEMA_VERSION
from services.sink.decode import (
    DECODER_ERRORS,
    Sample,
    check_extra,
    check_resets,
    decode_lenient,
    decode_strict,
    parse_time,
)
from services.sink.inventory import Inventory
from services.sink.pgtime import Micros, from_unix
from services.sink.validate import Invalid, Reason, TimeLimits, check_version, refuse_time

Row = tuple[Any, ...]
"""Values in the order of services.contract.row.COLUMNS: time as Micros, jsonb as bytes with its version in front."""

JSONB_VERSION: Final = b"\x01"
"""First byte of a jsonb on the wire; the document's text follows."""
REMEMBERED_TIMES: Final = 10_000
"""All GPUs of a target share a scrape's time; so many scrapes are in flight at most before the memory is emptied."""

_NO_TENANT: Final = (None, None, None)
_NO_STATUS: Final = (None, None)
_astuple: Final = msgspec.structs.astuple


class RowMapper:
    """Decodes, validates and maps. Holds what repeats between events: the scrape's time and the GPU's identity."""

    def __init__(self, inventory: Inventory, limits: TimeLimits) -> None:
        self._gpus = inventory.known
        self._inventory = inventory
        self._limits = limits
        self._times: dict[str, Micros] = {}
        self._window = (0, 0)

    def set_now(self, unix_seconds: float) -> None:
        """Move the window of accepted times. Called once per poll, not per event."""
        self._window = self._limits.window(from_unix(unix_seconds))

    def row(self, key: bytes | None, value: bytes | None) -> Row | None:
        """The row; None when the GPU's identity is new and is now waiting in the inventory. Raises Invalid."""
        sample = _decode(value)
        if sample.schema_version != SCHEMA_VERSION:
            check_version(sample.schema_version)
        time = self._times.get(sample.time) or self._new_time(sample.time)
        window = self._window
        if not window[0] <= time <= window[1]:
            raise refuse_time(time, window)
        identity = bytes(sample.gpu)
        known = self._gpus.get(identity)
        if known is None:
            known = self._inventory.meet(identity, time)
            if known is None:
                return None
        if known[1] != key:
            raise Invalid(Reason.BAD_KEY, f"key {key!r} is not the GPU's UUID {known[1].decode()!r}")
        tenant, status = sample.tenant, sample.status
        return (
            time,
            known[0],
            *_astuple(sample.metrics),
            *(_NO_TENANT if tenant is None else (tenant.pod, tenant.namespace, tenant.container)),
            *(_NO_STATUS if status is None else (status.tag, status.memo)),
            _resets(sample),
            _extra(sample),
        )

    def _new_time(self, text: str) -> Micros:
        time = parse_time(text)
        if len(self._times) >= REMEMBERED_TIMES:
            self._times.clear()
        self._times[text] = time
        return time


def _decode(value: bytes | None) -> Sample:
    if value is None:
        raise Invalid(Reason.NOT_JSON, "the message has no value")
    try:
        return decode_strict(value)
    except DECODER_ERRORS:
        return decode_lenient(value)


def _resets(sample: Sample) -> bytes | None:
    raw = bytes(sample.resets)
    return JSONB_VERSION + check_resets(raw) if raw and raw != b"null" else None


def _extra(sample: Sample) -> bytes | None:
    raw = bytes(sample.extra)
    return JSONB_VERSION + check_extra(raw) if raw and raw != b"null" else None
