"""Events made by hand, good and poisonous, to be put into the raw topic beside those of the collector."""

from __future__ import annotations

import copy
import datetime as dt
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.faults.exporter import gpu_uuid

Document = dict[str, Any]
POISONED_GPU = 999_000_000
"""Poison of a valid shape is about this GPU and those behind it: none of them may ever have a row."""


def event(gpu: int, number: int, *, ago: float = 0.0, **changes: Any) -> Document:
    """Sample (gpu, number), measured `ago` seconds ago; `changes` replace whole fields of the event."""
    time = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=ago)
    return {
        "schema_version": 1,
        "time": time.isoformat(timespec="microseconds"),
        "gpu": {"uuid": gpu_uuid(gpu), "hostname": "by-hand", "index": gpu % 8},
        "metrics": {"gpu_temp": 50, "total_energy_consumption": number},
        **changes,
    }


def gpu_event(kind: str, **changes: Any) -> Document:
    """An event of the topic `gpu-events`."""
    time = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")
    return {"schema_version": 1, "time": time, "kind": kind, "hostname": "by-hand", **changes}


def encode(document: Document) -> bytes:
    return json.dumps(document).encode()


@dataclass(frozen=True, slots=True)
class Poison:
    """A message that can never become a row, and the reason its dead letter must give."""

    name: str
    reason: str
    value: Callable[[int], bytes | None]
    """From the number of a GPU of its own."""
    key: Callable[[int], str] = gpu_uuid
    sqlstate: str = ""


def _changed(**changes: Any) -> Callable[[int], bytes]:
    return lambda gpu: encode(event(gpu, 1, **changes))


def _without(field: str) -> Callable[[int], bytes]:
    def build(gpu: int) -> bytes:
        document = event(gpu, 1)
        del document[field]
        return encode(document)

    return build


def _in_gpu(**changes: Any) -> Callable[[int], bytes]:
    def build(gpu: int) -> bytes:
        document = copy.deepcopy(event(gpu, 1))
        document["gpu"].update(changes)
        return encode(document)

    return build


NUL = "before\0after"
"""Valid in JSON, refused by PostgreSQL's text and jsonb."""
REFUSED_TEMPERATURE = 123
"""The test adds a CHECK to the table that refuses it: valid for us, not for the database."""

POISONS = (
    Poison("not JSON", "not_json", lambda _: b"this is not JSON"),
    Poison("empty", "not_json", lambda _: b""),
    Poison("no value (a tombstone)", "not_json", lambda _: None),
    Poison("cut off in the middle", "not_json", lambda gpu: encode(event(gpu, 1))[:100]),
    Poison("not UTF-8", "not_json", lambda gpu: encode(event(gpu, 1)).replace(b"by-hand", b"\xff\xfe\xff")),
    Poison("nested 20,000 deep", "not_json", lambda _: b"[" * 20_000 + b"]" * 20_000),
    Poison("an array", "schema", lambda _: b"[1, 2, 3]"),
    Poison("no time", "schema", _without("time")),
    Poison("time without a zone", "schema", _changed(time="2026-01-01T00:00:00")),
    Poison("a metric that is text", "schema", _changed(metrics={"gpu_temp": "hot"})),
    Poison("no version", "schema", _without("schema_version")),
    Poison("out of range", "range", _changed(metrics={"gpu_temp": 9_999})),
    Poison("a negative counter", "range", _changed(metrics={"ecc_sbe_vol_total": -1})),
    Poison("too old", "too_old", _changed(ago=30 * 86_400)),
    Poison("in the future", "in_future", _changed(ago=-3_600)),
    Poison("unknown version", "unsupported_version", _changed(schema_version=2)),
    Poison("no GPU", "no_identity", _without("gpu")),
    Poison("another GPU's key", "bad_key", _changed(), key=lambda gpu: gpu_uuid(gpu + 500)),
    Poison("NUL in the pod", "database", _changed(tenant={"pod": NUL}), sqlstate="22021"),
    Poison("NUL in the memo", "database", _changed(status={"tag": "prod", "memo": NUL}), sqlstate="22021"),
    Poison("NUL in extra", "database", _changed(extra={"labels": {"note": NUL}}), sqlstate="22P05"),
    Poison("NUL in the host's name", "database", _in_gpu(hostname=NUL), sqlstate="22P05"),
    Poison("refused by a CHECK", "database", _changed(metrics={"gpu_temp": REFUSED_TEMPERATURE}), sqlstate="23514"),
)
