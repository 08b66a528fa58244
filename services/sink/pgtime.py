"""Times as PostgreSQL sends them: microseconds since 2000-01-01 UTC, an int8 on the wire.

A `timestamptz` in binary COPY is that integer, so a row carries the integer and no `datetime` is made or dumped.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

Micros = int
"""Microseconds since 2000-01-01 00:00 UTC."""
MICROSECONDS: Final = 1_000_000
"""In a second."""
EPOCH: Final = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
UNIX_OFFSET: Final = int(EPOCH.timestamp())
"""Seconds from the Unix epoch to PostgreSQL's."""
_MICROSECOND: Final = dt.timedelta(microseconds=1)


def from_datetime(time: dt.datetime) -> Micros:
    """`time` must know its zone."""
    return (time - EPOCH) // _MICROSECOND


def from_unix(seconds: float) -> Micros:
    return round((seconds - UNIX_OFFSET) * MICROSECONDS)


def to_unix(time: Micros) -> float:
    return time / MICROSECONDS + UNIX_OFFSET
