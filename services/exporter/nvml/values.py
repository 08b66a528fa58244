"""A number of NVML in the catalogue's unit, or the reason why it is none. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from services.contract.catalogue import BY_COLUMN, Unit
from services.contract.sentinels import Missing
from services.exporter.reading import Number

_BLANKS: Final = frozenset({0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF})
"""NVML_VALUE_NOT_AVAILABLE of `nvml.h`, for 32 and for 64 bits."""
_FREE_RUNNING: Final = frozenset({Unit.MILLIJOULE, Unit.NANOSECOND})
"""64-bit counters that pass 0xFFFFFFFF in an hour's work; for them only the 64-bit blank is one."""
_CONVERSIONS: Final[Mapping[Unit, Callable[[int], Number]]] = MappingProxyType(
    {
        Unit.WATT: lambda milliwatts: milliwatts / 1000,
        Unit.MEBIBYTE: lambda count: count // 2**20,  # cut, not rounded: as DCGM and nvidia-smi do
    }
)


def convert(column: str, native: int) -> Number | Missing:
    """`convert("power_usage", 52_500) == 52.5`. Blank or outside the catalogue's range: failed."""
    metric = BY_COLUMN[column]
    if native in _BLANKS and not (metric.unit in _FREE_RUNNING and native == 0xFFFFFFFF):
        return Missing.FAILED
    conversion = _CONVERSIONS.get(metric.unit)
    value = native if conversion is None else conversion(native)
    return value if metric.low <= value <= metric.high else Missing.FAILED
