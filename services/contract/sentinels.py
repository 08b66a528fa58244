"""DCGM's blank values: numbers that mean "no value, and this is why".

dcgm-exporter drops them since 3.x; older releases leaked them (for example 9223372036854775794).
Source: NVIDIA's `dcgm_structs.h`, DCGM_*_BLANK and the three reasons counted up from each.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Missing(StrEnum):
    """Why a metric has no value. Zero is a value; none of these is."""

    UNSUPPORTED = "unsupported"
    """The device or its mode cannot give it."""
    PERMISSION = "permission"
    """It exists, but the reader may not see it."""
    FAILED = "failed"
    """It should have been there: the reading failed, was blank, not a number or outside its valid range."""
    NOT_EXPOSED = "not_exposed"
    """The exporter does not serve it. Implied in events for whatever is in neither `metrics` nor `gpu.missing`."""


_BLANKS: Final = (0x7FFFFFF0, 0x7FFFFFFFFFFFFFF0, 140737488355328)  # int32, int64, fp64
_REASONS: Final = (Missing.FAILED, Missing.FAILED, Missing.UNSUPPORTED, Missing.PERMISSION)
# blank, not found, not supported, not permissioned: in this order above each blank value

SENTINELS: Final[dict[int, Missing]] = {
    blank + step: reason for blank in _BLANKS for step, reason in enumerate(_REASONS)
}
SMALLEST_SENTINEL: Final = min(SENTINELS)
