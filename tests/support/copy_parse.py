"""PostgreSQL's binary COPY format read back, as the manual describes it: an independent check."""

from __future__ import annotations

import struct

SIGNATURE = b"PGCOPY\n\xff\r\n\0"


def parse_copy(data: bytes) -> list[list[bytes | None]]:
    """Fields of each row, None for NULL."""
    assert data.startswith(SIGNATURE + bytes(8)), "signature, flags 0, no extension"
    position = len(SIGNATURE) + 8
    rows: list[list[bytes | None]] = []
    while (count := struct.unpack_from("!h", data, position)[0]) != -1:
        position += 2
        fields: list[bytes | None] = []
        for _ in range(count):
            length = struct.unpack_from("!i", data, position)[0]
            position += 4
            fields.append(None if length < 0 else data[position : position + length])
            position += max(length, 0)
        rows.append(fields)
    assert position + 2 == len(data), "nothing after the trailer"
    return rows
