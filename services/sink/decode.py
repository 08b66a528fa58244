"""Event document -> typed sample: made for the hot path, strict first, lenient only where that fails.

`Sample` is the event of services.contract.event as the sink needs it. What it stores verbatim (`resets`, `extra`) or
compares as bytes (`gpu`) stays undecoded; metrics are validated (type and range) while they are decoded.

**Unknown fields are kept.** The strict decoder refuses a document with a field it does not know. Such a document is
read again, slowly: unknown fields of the event, its metrics, tenant and status move into `extra.fields`, under their
path (`metrics.new_metric`), and the rest is decoded strictly. So a newer collector loses nothing on an older sink; the
price is some 20 us a document until the sink is upgraded. A newer `schema_version` is another matter: its meaning may
differ, so it goes to the dead letters, to be replayed after the upgrade.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import msgspec

from services.contract.event import CounterValue, Metrics, ShortText, Utc
from services.sink.pgtime import Micros, from_datetime
from services.sink.validate import Invalid, Reason, check_depth, check_version, refusal

ABSENT: Final = msgspec.Raw(b"")
"""A field that was not there; compare by identity."""

# gc=False: these hold no reference cycles, and tracking 20,000 of them a batch would cost a collection.


class Tenant(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    pod: ShortText | None = None
    namespace: ShortText | None = None
    container: ShortText | None = None


class Status(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    tag: ShortText | None = None
    memo: ShortText | None = None


class Sample(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One event. `derived` and `source` are known and not stored: views compute the former."""

    schema_version: int
    time: str
    gpu: msgspec.Raw
    metrics: Metrics
    derived: msgspec.Raw = ABSENT
    tenant: Tenant | None = None
    status: Status | None = None
    resets: msgspec.Raw = ABSENT
    extra: msgspec.Raw = ABSENT
    source: msgspec.Raw = ABSENT


DECODER_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding untrusted bytes may raise; ValidationError is a DecodeError."""

decode_strict: Final = msgspec.json.Decoder(Sample).decode
"""The hot path. Raises DECODER_ERRORS for whatever is not exactly an event of ours."""

_decode_any: Final = msgspec.json.Decoder().decode
_decode_time: Final = msgspec.json.Decoder(Utc).decode
_decode_resets: Final = msgspec.json.Decoder(dict[str, CounterValue]).decode
_decode_object: Final = msgspec.json.Decoder(dict[str, Any]).decode
_encode: Final = msgspec.json.Encoder().encode

_KNOWN: Final[dict[str, frozenset[str]]] = {
    "": frozenset(Sample.__struct_fields__),
    "metrics": frozenset(Metrics.__struct_fields__),
    "tenant": frozenset(Tenant.__struct_fields__),
    "status": frozenset(Status.__struct_fields__),
}


def decode_lenient(value: bytes) -> Sample:
    """The slow path: unknown fields go to `extra.fields`. Raises Invalid with the reason."""
    try:
        document = _decode_any(value)
        if not isinstance(document, dict):
            raise Invalid(Reason.SCHEMA, f"expected an object, got {type(document).__name__}")
        if "schema_version" in document:
            check_version(document["schema_version"])
        _set_aside_unknown(document)
        return decode_strict(_encode(document))
    except DECODER_ERRORS as error:
        raise refusal(error) from None


def _set_aside_unknown(document: dict[str, Any]) -> None:
    """Move unknown fields of the event and its parts to `extra.fields`, in place."""
    unknown: dict[str, Any] = {}
    for part, known in _KNOWN.items():
        fields = document.get(part) if part else document
        if isinstance(fields, dict):
            prefix = f"{part}." if part else ""
            unknown |= {f"{prefix}{name}": fields.pop(name) for name in list(fields) if name not in known}
    extra = document.get("extra")
    if unknown and (extra is None or isinstance(extra, dict)):
        document["extra"] = {**(extra or {}), "fields": unknown}


def parse_time(text: str) -> Micros:
    """RFC 3339 with a zone. Raises Invalid."""
    try:
        time: dt.datetime = _decode_time(_encode(text))
    except DECODER_ERRORS as error:
        raise Invalid(Reason.SCHEMA, f"time {text!r}: {error}", cause=type(error).__name__) from None
    return from_datetime(time)


def check_resets(raw: bytes) -> bytes:
    """Counter -> value, as it came. Raises Invalid. Rare: a counter restarted."""
    return _checked(raw, _decode_resets, "resets")


def check_extra(raw: bytes) -> bytes:
    """An object, as it came. Raises Invalid."""
    return _checked(raw, _decode_object, "extra")


def _checked(raw: bytes, decoder: Any, field: str) -> bytes:
    try:
        check_depth(decoder(raw), field)
    except DECODER_ERRORS as error:
        verdict = refusal(error)
        raise Invalid(verdict.reason, f"{field}: {error}", cause=type(error).__name__) from None
    return raw
