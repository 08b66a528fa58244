"""Rows in binary COPY format, read back by a parser that is not psycopg's."""

from __future__ import annotations

import struct
from typing import Any

from services.contract.row import COLUMNS
from services.sink.copy_format import to_copy
from services.sink.rows import Row
from tests.support.copy_parse import parse_copy

FORMATS = {"timestamptz": "!q", "bigint": "!q", "integer": "!i", "smallint": "!h", "real": "!f"}
EXAMPLES: dict[str, Any] = {
    "timestamptz": 848_545_200_250_000,
    "bigint": 2**53 - 1,
    "integer": 2**31 - 1,
    "smallint": -40,
    "real": 412.125,
    "text": "Träger-中",
    "jsonb": b'\x01{"a":1}',
}


def test_every_type_of_the_table_is_on_the_wire_as_the_manual_says() -> None:
    row: Row = tuple(EXAMPLES[column.sql] for column in COLUMNS)
    (fields,) = parse_copy(bytes(to_copy([row])))
    for column, field, value in zip(COLUMNS, fields, row, strict=True):
        assert field is not None
        if column.sql in FORMATS:
            assert struct.unpack(FORMATS[column.sql], field) == (value,), column.name
        else:
            assert field == (value.encode() if isinstance(value, str) else value), column.name


def test_none_is_null_and_zero_is_zero() -> None:
    nothing: Row = (0, 0, *(None,) * (len(COLUMNS) - 2))
    (fields,) = parse_copy(bytes(to_copy([nothing])))
    assert fields[:2] == [bytes(8), bytes(4)]
    assert set(fields[2:]) == {None}


def test_an_empty_stream_is_a_stream() -> None:
    assert parse_copy(bytes(to_copy([]))) == []


def test_reals_come_back_with_the_digits_that_went_in() -> None:
    """Watts with three decimals and ratios with six: what `real` must hold exactly."""
    position = [column.name for column in COLUMNS].index("power_usage")
    for value in (412.125, 0.001, 699.999, 8000.0, 0.123456, 0.999999):
        row = [None] * len(COLUMNS)
        (fields,) = parse_copy(bytes(to_copy([(0, 0, *row[2:position], value, *row[position + 1 :])])))
        field = fields[position]
        assert field is not None
        assert f"{struct.unpack('!f', field)[0]:.6g}" == f"{value:.6g}"
