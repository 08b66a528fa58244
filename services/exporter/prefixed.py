"""The second name space: `<prefix>_gpu_temperature_celsius{device="0"}` and the like, in base units.

Whole GPUs only: the one label is the GPU's index, which MIG instances share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.contract.derived import memory_percent, percent
from services.exporter.own_series import block
from services.exporter.reading import Number, Reading

_MIB: Final = 1024 * 1024
Values = Mapping[str, Number]


@dataclass(frozen=True, slots=True)
class _Gauge:
    """One metric: what follows `<prefix>_gpu_`, and how its value follows from catalogue columns."""

    suffix: str
    help: str
    value: Callable[[Values], Number | None]


def _bytes(column: str) -> Callable[[Values], Number | None]:
    return lambda values: int(values[column]) * _MIB if column in values else None


def _memory_percent(values: Values) -> Number | None:
    used, total, free, reserved = (values.get(f"fb_{part}") for part in ("used", "total", "free", "reserved"))
    return memory_percent(*(None if v is None else int(v) for v in (used, total, free, reserved)))


GAUGES: Final = (
    _Gauge("temperature_celsius", "GPU temperature.", lambda v: v.get("gpu_temp")),
    _Gauge("utilization_percent", "GPU utilization.", lambda v: v.get("gpu_util")),
    _Gauge("memory_used_bytes", "Framebuffer memory used.", _bytes("fb_used")),
    _Gauge("memory_total_bytes", "Framebuffer memory in all.", _bytes("fb_total")),
    _Gauge("memory_percent", "Framebuffer memory used, of all.", _memory_percent),
    _Gauge("power_watts", "Power draw.", lambda v: v.get("power_usage")),
    _Gauge("power_limit_watts", "Power limit.", lambda v: v.get("power_limit")),
    _Gauge("power_percent", "Power draw, of the limit.", lambda v: percent(v.get("power_usage"), v.get("power_limit"))),
)


def render(prefix: str, readings: Sequence[Reading]) -> str:
    """The text of the name space; a GPU without a value has no series."""
    whole = [reading for reading in readings if reading.device.instance_id is None]
    return "".join(
        block(f"{prefix}_gpu_{gauge.suffix}", "gauge", gauge.help, [
            (f'device="{reading.device.index}"', str(value))
            for reading in whole
            if (value := gauge.value(reading.values)) is not None
        ])
        for gauge in GAUGES
    )  # fmt: skip
