"""Messages of the topic `gpu-events` -> rows of `gpu_events`; documents -> `gpu_snapshots`. Rare: nothing is tuned."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
import psycopg

from services.contract.event import GpuEvent, Happening
from services.sink.decode import DECODER_ERRORS
from services.sink.validate import Invalid, Reason, check_depth, check_version, refusal

_decode: Final = msgspec.json.Decoder(GpuEvent).decode


class _Version(msgspec.Struct):
    schema_version: Any = None


_decode_version: Final = msgspec.json.Decoder(_Version).decode

INSERT: Final = """
INSERT INTO gpu_events (time, kind, gpu_id, gpu_uuid, instance_id, hostname, source, code, detail, status_tag,
    status_memo)
SELECT %(time)s, %(kind)s,
       (SELECT gpu_id FROM gpus g
        WHERE g.gpu_uuid = %(gpu_uuid)s::text AND g.instance_id IS NOT DISTINCT FROM %(instance_id)s::smallint),
       %(gpu_uuid)s, %(instance_id)s, %(hostname)s, %(source)s, %(code)s, %(detail)s::jsonb, %(status_tag)s,
       %(status_memo)s
ON CONFLICT DO NOTHING
"""
INSERT_SNAPSHOT: Final = """
INSERT INTO gpu_snapshots (hostname, gpu_id, gpu_uuid, kind, time, hash, content)
SELECT %(hostname)s, (SELECT gpu_id FROM gpus g WHERE g.gpu_uuid = %(gpu_uuid)s::text AND g.instance_id IS NULL),
       %(gpu_uuid)s, %(kind)s, %(time)s, %(hash)s, %(content)s::jsonb
ON CONFLICT DO NOTHING
"""


class Snapshot(msgspec.Struct):
    """The detail of an event of kind `snapshot`."""

    document: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    hash: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    content: dict[str, Any]


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
    texts = [event.kind, event.hostname, event.gpu_uuid, event.source]
    texts += [event.status.tag, event.status.memo] if event.status else []
    if event.kind == Happening.SNAPSHOT:
        texts += _check_snapshot(event)
    if any("\0" in text for text in texts if text):
        raise Invalid(Reason.SCHEMA, "a text holds NUL, which the database cannot store")
    return event


def _check_snapshot(event: GpuEvent) -> list[str | None]:
    if not event.hostname:
        raise Invalid(Reason.SCHEMA, "a snapshot needs the host it was taken on")
    snapshot = _snapshot(event)
    return [snapshot.document, snapshot.hash]


def _snapshot(event: GpuEvent) -> Snapshot:
    try:
        return msgspec.convert(event.detail, Snapshot)
    except msgspec.ValidationError as error:
        raise Invalid(Reason.SCHEMA, f"detail of a snapshot: {error}", cause=type(error).__name__) from None


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
        "status_tag": event.status and event.status.tag,
        "status_memo": event.status and event.status.memo,
    }


def snapshot_parameters(event: GpuEvent) -> dict[str, Any]:
    """For INSERT_SNAPSHOT."""
    snapshot = _snapshot(event)
    return {
        "hostname": event.hostname,
        "gpu_uuid": event.gpu_uuid,
        "kind": snapshot.document,
        "time": event.time,
        "hash": snapshot.hash,
        "content": msgspec.json.encode(snapshot.content).decode(),
    }


def insert(connection: psycopg.Connection, events: list[GpuEvent]) -> int:
    """Rows inserted; what was there already is left alone. Inside the caller's transaction. Raises psycopg.Error."""
    plain = [parameters(event) for event in events if event.kind != Happening.SNAPSHOT]
    snapshots = [snapshot_parameters(event) for event in events if event.kind == Happening.SNAPSHOT]
    inserted = 0
    with connection.cursor() as cursor:
        for statement, rows in ((INSERT, plain), (INSERT_SNAPSHOT, snapshots)):
            if rows:
                cursor.executemany(statement, rows)
                inserted += cursor.rowcount
    return inserted
