"""The spool's file format: one readable JSON line, then frames.

A frame is `magic (4) | payload length (4, big-endian) | CRC-32 of the payload (4) | payload`; the payload is a `Record`
in MessagePack. The magic lets a reader find the next whole frame behind a damaged one. Pure functions on bytes.
"""

from __future__ import annotations

import datetime as dt
import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from services.collector.batch import Headers

FORMAT: Final = 1
_MAGIC: Final = b"\xf5GPU"
_HEAD: Final = struct.Struct(">4sII")
MAX_PAYLOAD: Final = 64 * 1024 * 1024
"""Bytes. No message is as long (Kafka's default bound is 1 MB): a larger length is damage."""


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One message as it waits on disk."""

    time: int
    """When it was spooled, ms since the epoch."""
    topic: str
    key: str
    headers: Headers
    value: bytes


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Record).decode


def header(reason: str, time_ms: int) -> bytes:
    """The first line of a segment: why messages were spooled, and since when; `head -1` shows it."""
    when = dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC).isoformat(timespec="milliseconds")
    return json.dumps({"_spool_reason": reason, "time": when, "format": FORMAT}).encode() + b"\n"


def read_header(data: bytes) -> tuple[dict[str, Any] | None, int]:
    """(the header, offset of the first frame); (None, 0) where there is no readable one."""
    end = data.find(b"\n", 0, 4096)
    try:
        found = json.loads(data[:end]) if end >= 0 else None
    except ValueError:
        found = None
    return (found, end + 1) if isinstance(found, dict) and "_spool_reason" in found else (None, 0)


def frame(record: Record) -> bytes:
    payload = _encode(record)
    return _HEAD.pack(_MAGIC, len(payload), zlib.crc32(payload)) + payload


def frame_at(data: bytes, at: int) -> tuple[Record, int] | None:
    """The record of the frame at `at` and the offset behind it; None where there is no whole, undamaged frame."""
    start = at + _HEAD.size
    if start > len(data):
        return None
    magic, length, crc = _HEAD.unpack_from(data, at)
    payload = data[start : start + length] if magic == _MAGIC and length <= MAX_PAYLOAD else b""
    if not payload or len(payload) < length or zlib.crc32(payload) != crc:
        return None
    try:
        return _decode(payload), start + length
    except msgspec.MsgspecError:
        return None


def next_frame(data: bytes, at: int) -> int | None:
    """Offset of the first whole frame at or behind `at`."""
    found = data.find(_MAGIC, at)
    while found >= 0:
        if frame_at(data, found) is not None:
            return found
        found = data.find(_MAGIC, found + 1)
    return None


@dataclass(frozen=True, slots=True)
class Scan:
    """What is in a segment."""

    first: int
    """Offset of the first frame."""
    end: int
    """Offset behind the last whole frame: what follows is a torn tail."""
    offsets: tuple[int, ...]
    """Of each whole frame."""
    damaged: bool
    """Whole frames follow a place that is none: not a torn tail, but damage."""


def scan(data: bytes) -> Scan:
    """Walk through all frames. Stepping over damage keeps every record that can still be read."""
    first = read_header(data)[1]
    at, offsets, damaged = first, [], first == 0
    while True:
        found = frame_at(data, at)
        if found is not None:
            offsets.append(at)
            at = found[1]
            continue
        following = next_frame(data, at)
        if following is None:
            return Scan(first, at, tuple(offsets), damaged and bool(offsets))
        damaged, at = True, following
