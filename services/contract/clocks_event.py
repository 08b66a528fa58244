"""DCGM_FI_DEV_CLOCKS_EVENT_REASONS (`clocks_event_reasons`): why the clocks are what they are, bit by bit.

Source: NVIDIA's `nvml.h`, nvmlClocksEventReason*; names as dcgm-exporter's `clock_event` label writes them.
"""

from __future__ import annotations

from typing import Final

REASONS: Final[dict[int, str]] = {
    0x1: "gpu_idle",
    0x2: "clocks_setting",
    0x4: "power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal",
    0x40: "hw_thermal",
    0x80: "hw_power_brake",
    0x100: "display_clocks",
}
THROTTLING: Final = 0x4 | 0x8 | 0x20 | 0x40 | 0x80
"""Those that hold back a GPU that has work to do. Idle, a clock somebody set, and sync boost are nobody's trouble."""
THERMAL: Final = 0x20 | 0x40


def reasons(bits: int) -> tuple[str, ...]:
    """`reasons(0x24) == ("power_cap", "sw_thermal")`; unknown bits as `0x200`."""
    known = tuple(name for bit, name in REASONS.items() if bits & bit)
    rest = bits & ~sum(REASONS)
    return (*known, hex(rest)) if rest else known


def is_throttled(bits: int) -> bool:
    return bool(bits & THROTTLING)
