"""What the Andon looks at: one GPU at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.contract.derived import percent

MEBIBYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class GpuMetrics:
    """None: not known, which is never the same as zero."""

    device_id: int
    name: str
    temperature_celsius: float | None = None
    utilization_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    identity: str | None = None
    """What tells GPUs of several hosts apart (the UUID); without it the device number does."""

    @property
    def key(self) -> str:
        return self.identity or str(self.device_id)

    def memory_percent(self) -> float | None:
        """Used memory in percent of the whole, two decimals; None where either is unknown."""
        return percent(self.memory_used_bytes, self.memory_total_bytes)

    def power_percent(self) -> float | None:
        """Power draw in percent of the power limit, two decimals; None where either is unknown."""
        return percent(self.power_watts, self.power_limit_watts)


def of_values(device_id: int, name: str, values: Mapping[str, float | None], identity: str | None = None) -> GpuMetrics:
    """From catalogue columns (memory in MiB). Without `fb_total` the whole is used + free + reserved, as DCGM says."""
    used = _bytes(values.get("fb_used"))
    return GpuMetrics(
        device_id=device_id,
        name=name,
        temperature_celsius=values.get("gpu_temp"),
        utilization_percent=values.get("gpu_util"),
        memory_used_bytes=used,
        memory_total_bytes=_bytes(memory_total(values)),
        power_watts=values.get("power_usage"),
        power_limit_watts=values.get("power_limit"),
        identity=identity,
    )


def memory_total(values: Mapping[str, float | None]) -> float | None:
    """MiB; None where neither the total nor its parts are known."""
    total, used, free = values.get("fb_total"), values.get("fb_used"), values.get("fb_free")
    if total is None and used is not None and free is not None:
        return used + free + (values.get("fb_reserved") or 0)
    return total


def _bytes(mebibytes: float | None) -> int | None:
    return None if mebibytes is None else round(mebibytes * MEBIBYTE)
