"""Andon: a GPU that needs a look says so. Thresholds, alerts, sparklines, and a mock back end for tests."""

from services.andon.alerts import Alert, GpuIdle, MemoryPressure, PowerLimit, Severity, ThermalThrottling
from services.andon.metrics import GpuMetrics
from services.andon.mock import MockGpuBackend
from services.andon.sparkline import blocks, sparkline
from services.andon.system import AlertConfig, AndonSystem

__all__ = [
    "Alert",
    "AlertConfig",
    "AndonSystem",
    "GpuIdle",
    "GpuMetrics",
    "MemoryPressure",
    "MockGpuBackend",
    "PowerLimit",
    "Severity",
    "ThermalThrottling",
    "blocks",
    "sparkline",
]
