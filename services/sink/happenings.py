"""Messages of the topic `gpu-events` -> rows of `gpu_events`. Rare, so nothing here is tuned."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import psycopg

from services.contract.event import GpuEvent
from services.sink.decode import DECODER_ERRORS
from services.sink.validate import Invalid, Reason, check_depth, check_version, refusal

_decode: Final = msgspec.json.Decoder(GpuEvent).decode


class _Version(msgspec.Struct):
    schema_version: Any = None


_decode_version: Final = msgspec.json.Decoder(_Version).decode

INSERT: Final = """
INSERT INTO gpu_events (time, kind, gpu_id, gpu_uuid, instance_id, hostname, source, code, detail)
SELECT %(time)s, %(kind)s,
       (SELECT gpu_id FROM gpus g
        WHERE g.gpu_uuid = %(gpu_uuid)s::text AND g.instance_id IS NOT DISTINCT FROM %(instance_id)s::smallint),
       %(gpu_uuid)s, %(instance_id)s, %(hostname)s, %(source)s, %(code)s, %(detail)s::jsonb
ON CONFLICT DO NOTHING
"""


def decode(value: bytes | None) -> GpuEvent:
    """Raises Invalid. Unknown fields are ignored: `detail` is where an event carries what is special to it."""
    if value is None:
        raise Invalid(Reason.NOT_JSON, "the message has no value")
    try:
        check_version(_decode_version(value).schema_version)
        event = _decode(value)
    except DECODER_ERRORS as error:
        raise refusal(error) from None
    check_depth(event.detail, "detail")
    if any("\0" in text for text in (event.kind, event.hostname, event.gpu_uuid, event.source) if text):
        raise Invalid(Reason.SCHEMA, "a text holds NUL, which the database cannot store")
    return event


def parameters(event: GpuEvent) -> dict[str, Any]:
    """For INSERT."""
    return {
        "time": event.time,
        "kind": event.kind,
        "gpu_uuid": event.gpu_uuid,
        "instance_id": event.instance_id,
        "hostname": event.hostname,
        "source": event.source,
        "code": event.code,
        "detail": None if event.detail is None else msgspec.json.encode(event.detail).decode(),
    }


def insert(connection: psycopg.Connection, events: list[GpuEvent]) -> int:
    """Rows inserted; what was there already is left alone. Inside the caller's transaction. Raises psycopg.Error."""
    with connection.cursor() as cursor:
        cursor.executemany(INSERT, [parameters(event) for event in events])
        return cursor.rowcount
