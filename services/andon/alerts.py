"""The four kinds of alert: what was seen, the threshold it passed, how bad it is, and a sentence for a person."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Final


class Severity(IntEnum):
    """Higher is worse."""

    NOTICE = 1
    """Worth knowing; the GPU does what it was built to do."""
    WARNING = 2
    CRITICAL = 3
    """Work is lost or about to be."""


CRITICAL_ABOVE: Final = 10.0
"""C above the thermal threshold. With the default 80 C this is 90 C: a Tesla P40 slows down at 92, an A100 at 95."""
MEMORY_FULL: Final = 98.0
"""Percent. The next allocation fails: fragments alone make up the rest."""


@dataclass(frozen=True, slots=True)
class ThermalThrottling:
    """As hot as boards begin to slow down."""

    kind: ClassVar[str] = "ThermalThrottling"
    device: int
    temp: float
    """C."""
    threshold: float
    """C."""

    @property
    def severity(self) -> Severity:
        return Severity.CRITICAL if self.temp >= self.threshold + CRITICAL_ABOVE else Severity.WARNING

    @property
    def message(self) -> str:
        return f"GPU {self.device}: {self.temp:g} C, thermal threshold {self.threshold:g} C"


@dataclass(frozen=True, slots=True)
class MemoryPressure:
    """Little framebuffer left."""

    kind: ClassVar[str] = "MemoryPressure"
    device: int
    used_percent: float
    threshold: float
    """Percent."""

    @property
    def severity(self) -> Severity:
        return Severity.CRITICAL if self.used_percent >= MEMORY_FULL else Severity.WARNING

    @property
    def message(self) -> str:
        return f"GPU {self.device}: {self.used_percent:.0f} % of memory used, threshold {self.threshold:g} %"


@dataclass(frozen=True, slots=True)
class PowerLimit:
    """At the power limit: clocks follow it down. Normal under full load, so a notice."""

    kind: ClassVar[str] = "PowerLimit"
    device: int
    power_percent: float
    threshold: float
    """Percent."""

    @property
    def severity(self) -> Severity:
        return Severity.NOTICE

    @property
    def message(self) -> str:
        return f"GPU {self.device}: {self.power_percent:.0f} % of the power limit, threshold {self.threshold:g} %"


@dataclass(frozen=True, slots=True)
class GpuIdle:
    """No work for so long that a job that should run may hang."""

    kind: ClassVar[str] = "GpuIdle"
    device: int
    duration_secs: float

    @property
    def severity(self) -> Severity:
        return Severity.WARNING

    @property
    def message(self) -> str:
        return f"GPU {self.device}: idle for {self.duration_secs:.0f} s, possibly hanging"


Alert = ThermalThrottling | MemoryPressure | PowerLimit | GpuIdle
