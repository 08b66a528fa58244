"""Value texts -> numbers of the catalogue's types, exactly; or the reason why there is no number.

All values of a run are read in one call: joined by commas they are a JSON array, and a typed decoder checks syntax,
type and valid range of each while it converts. JSON's numbers are a subset of the exposition format's, so what the
decoder takes is right; what it refuses (NaN, `1e3` in an integer column, a time stamp, a blank value of DCGM) is read
one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, auto
from functools import cache, lru_cache
from typing import Annotated, Any, Final

import msgspec

from services.collector.lines import number_text
from services.collector.own import TAKEN
from services.contract.catalogue import BY_DCGM_NAME, Kind, Metric
from services.contract.sentinels import SENTINELS, SMALLEST_SENTINEL, Missing

_HALVE_ABOVE: Final = 8
"""Texts. A run that does not decode whole is halved until the odd values stand in parts this small: few odd values
among many then cost little."""
_EXACT: Final = 2**53
"""Up to here every integer is a JSON number that all readers read alike."""
_EXPONENT_SAFE: Final = 1e20
"""Above, no column has a value; and 1e999999999 is not expanded into digits."""


class NotANumberError(ValueError):
    """The text at `index` of a run is no exposition value."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


@dataclass(frozen=True, slots=True)
class Odd:
    """A value that is not stored in its column."""

    index: int
    """Position in the run."""
    reason: Missing
    raw: str | None
    """The number as it was written; None where it said only that there is none."""


class Sort(Enum):
    """What is done with a metric."""

    METRIC = auto()
    """Goes to its column."""
    UNKNOWN = auto()
    """DCGM's, but not in the catalogue: kept as it is."""
    IGNORED = auto()
    """Understood and not kept: OpenMetrics' `_created`."""
    OWN = auto()
    """Of our own exporter, and taken: see `own.py`."""
    FOREIGN = auto()
    """Not about a GPU, or not kept: `process_*`, `go_*`, `gpumon_process_*`, ..."""


@dataclass(frozen=True, slots=True, eq=False)
class Topic:
    """What a metric's name says."""

    name: str
    sort: Sort
    metric: Metric | None
    column: str
    is_property: bool
    decode: Callable[[bytes], list[Any]]
    wide: bool
    """The valid range is so wide that DCGM's blank values lie in it."""


_decode_floats: Final = msgspec.json.Decoder(list[float]).decode


@cache
def _decoder(low: float, high: float, *, integer: bool) -> Callable[[bytes], list[Any]]:
    meta = msgspec.Meta(ge=int(low), le=int(high)) if integer else msgspec.Meta(ge=low, le=high)
    item: Any = Annotated[int if integer else float, meta]
    return msgspec.json.Decoder(list[item]).decode


@lru_cache(maxsize=4096)  # names, of all targets together; one exporter has some hundred
def topic(name: str) -> Topic:
    """The meaning of a metric name, OpenMetrics' `_total` and `_created` endings included."""
    metric = BY_DCGM_NAME.get(name) or BY_DCGM_NAME.get(name.removesuffix("_total"))
    if metric is not None:
        decode = _decoder(metric.low, metric.high, integer=metric.sql.is_integer)
        wide = metric.high >= SMALLEST_SENTINEL
        return Topic(name, Sort.METRIC, metric, metric.column, metric.kind is Kind.PROPERTY, decode, wide)
    if BY_DCGM_NAME.get(name.removesuffix("_created")) is not None:
        sort = Sort.IGNORED
    elif name in TAKEN:
        sort = Sort.OWN
    else:
        sort = Sort.UNKNOWN if name[:5].upper() == "DCGM_" else Sort.FOREIGN
    return Topic(name, sort, None, "", False, _decode_floats, False)


def read_values(topic: Topic, texts: list[bytes], joined: bytes) -> tuple[list[Any], list[Odd]]:
    """Values of a METRIC's run, None where there is none, and why there is none. Raises NotANumberError."""
    values = _plain(topic, joined, len(texts))
    if values is not None:
        return values, []
    odd: list[Odd] = []
    return _halves(topic, texts, 0, odd), odd


def _plain(topic: Topic, joined: bytes, count: int) -> list[Any] | None:
    """All values, if each is a plain number within its range."""
    try:
        values = topic.decode(b"[" + joined + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if len(values) != count:
        return None  # a comma within a text
    if topic.wide and max(values) >= SMALLEST_SENTINEL and not SENTINELS.keys().isdisjoint(values):
        return None
    return values


def _halves(topic: Topic, texts: list[bytes], start: int, odd: list[Odd]) -> list[Any]:
    if len(texts) <= _HALVE_ABOVE:
        return [_one(topic, text, start + i, odd) for i, text in enumerate(texts)]
    middle = len(texts) // 2
    values: list[Any] = []
    for part, offset in ((texts[:middle], start), (texts[middle:], start + middle)):
        plain = _plain(topic, b",".join(part), len(part))
        values += _halves(topic, part, offset, odd) if plain is None else plain
    return values


def _one(topic: Topic, text: bytes, index: int, odd: list[Odd]) -> int | float | None:
    number = number_text(text)
    if number is None:
        raise NotANumberError(index)
    assert topic.metric is not None  # noqa: S101  # only metrics come here
    value = to_value(topic.metric, number)
    if value is None:
        odd.append(Odd(index, Missing.FAILED, number))
    elif isinstance(value, Missing):
        odd.append(Odd(index, value, None))
    else:
        return value
    return None


def to_value(metric: Metric, number: str) -> int | float | Missing | None:
    """One exposition number -> the value in its column's type; never rounded, never clipped.

    Missing: the exporter says there is no value. None: a number that the column cannot hold.
    """
    if number[-1].isalpha():
        return Missing.FAILED  # NaN or Inf
    value = float(number)
    if abs(value) > _EXPONENT_SAFE:
        return None
    exact = Decimal(number)
    whole = int(exact)
    if exact == whole and whole in SENTINELS:
        return SENTINELS[whole]
    if not metric.low <= exact <= metric.high:
        return None
    if not metric.sql.is_integer:
        return value
    return whole if exact == whole else None


def read_unknown(texts: list[bytes], joined: bytes) -> list[float | str]:
    """Values of a run the catalogue does not know: numbers where JSON holds them exactly, else the text."""
    try:
        values = _decode_floats(b"[" + joined + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError):
        values = []
    if len(values) == len(texts) and min(values) >= -_EXACT and max(values) <= _EXACT:
        return list(values)
    return [_unknown(text, index) for index, text in enumerate(texts)]


def _unknown(text: bytes, index: int) -> float | str:
    number = number_text(text)
    if number is None:
        raise NotANumberError(index)
    value = float(number)
    return value if abs(value) <= _EXACT else number  # NaN and Inf compare false


def check_numbers(texts: list[bytes], joined: bytes) -> None:
    """Raises NotANumberError unless each text is a value: for runs whose values are not kept."""
    read_unknown(texts, joined)
