"""A GPU -> its light: colour, a word that says the same without colour, and notes. Pure but for the Andon's memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from services.andon import Alert, AndonSystem, GpuIdle, MemoryPressure, PowerLimit, Severity, ThermalThrottling
from services.contract import xid as xids
from services.contract.clocks_event import THERMAL, is_throttled, reasons
from services.top.frame import Row


class Light(StrEnum):
    """By its colour's name in the terminal."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"
    GREY = "bright_black"
    """Nothing is known."""


_ORDER: Final = (Light.GREEN, Light.GREY, Light.YELLOW, Light.RED)
_HW_SLOWDOWN: Final = 0x8
_HELD: Final = 5.0
"""Percent of memory. A context alone takes one or two; more is somebody's data."""
_DAYS_MOST: Final = 1000
"""An exporter may say any number; more of its digits say no more."""
_SAY_IDLE: Final = 60.0
"""Seconds before idleness is worth a word."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the screen says of one GPU."""

    light: Light
    word: str
    """`ok`, `HOT`, `LOST`, ...: the light in letters."""
    notes: tuple[str, ...] = ()
    alerts: tuple[Alert, ...] = ()
    throttled: tuple[str, ...] = ()
    """Clock event reasons that hold it back."""
    colours: dict[str, Light] = field(default_factory=dict)
    """Column -> colour of its figure, where it is not plain."""


@dataclass(frozen=True, slots=True)
class _Finding:
    light: Light
    word: str
    note: str | None = None


def judge(row: Row, andon: AndonSystem, age: float | None, stale_after: float) -> Verdict:
    """`age`: seconds since the values were measured. Call it once per look: the Andon counts idleness in between."""
    if row.lost is not None:
        return Verdict(Light.RED, "LOST", (row.lost,))
    if age is not None and age > stale_after:
        return Verdict(Light.YELLOW, "STALE", (f"last seen {duration(age)} ago",))
    if not row.values:
        return Verdict(Light.GREY, "?", ("no values",))
    metrics = row.metrics()
    alerts = tuple(andon.check_one(metrics))
    idle = andon.idle_seconds(metrics)
    held = (metrics.memory_percent() or 0.0) >= _HELD
    findings = [*_of_alerts(alerts, idle, held=held), *_of_clocks(row), *_of_errors(row)]
    if idle >= _SAY_IDLE and not any(f.word == "IDLE" for f in findings):
        findings.append(_Finding(Light.GREEN, "ok", f"idle {duration(idle)}"))
    findings.sort(key=lambda f: -_ORDER.index(f.light))  # the worst first, of equals the one found first
    worst = findings[0] if findings else _Finding(Light.GREEN, "ok")
    bits = int(row.values.get("clocks_event_reasons", 0))
    return Verdict(
        light=worst.light,
        word=worst.word if worst.light is not Light.GREEN else "ok",
        notes=tuple(dict.fromkeys(f.note for f in findings if f.note)),
        alerts=alerts,
        throttled=reasons(bits) if is_throttled(bits) else (),
        colours=_colours(alerts),
    )


def _of_alerts(alerts: tuple[Alert, ...], idle: float, *, held: bool) -> list[_Finding]:
    found = []
    for alert in alerts:
        light = Light.RED if alert.severity is Severity.CRITICAL else Light.YELLOW
        match alert:
            case ThermalThrottling():
                found.append(_Finding(light, "HOT"))
            case MemoryPressure(used_percent=used):
                # Nearly full is how a card works that serves a language model; full is where the next allocation fails.
                full = alert.severity is Severity.CRITICAL
                found.append(_Finding(Light.RED if full else Light.GREEN, "MEM", f"memory {used:.0f} %"))
            case GpuIdle() if held:  # an empty GPU that does nothing is free, not hanging
                found.append(_Finding(light, "IDLE", f"idle {duration(idle)}, memory held"))
            case GpuIdle() | PowerLimit():  # at the limit under load: the figure is coloured, the GPU is well
                pass
    return found


def _of_clocks(row: Row) -> list[_Finding]:
    bits = int(row.values.get("clocks_event_reasons", 0))
    if not is_throttled(bits):
        return []
    said = "throttled: " + ", ".join(reasons(bits))
    if bits & _HW_SLOWDOWN:
        return [_Finding(Light.RED, "SLOW", said)]
    return [_Finding(Light.YELLOW if bits & THERMAL else Light.GREEN, "SLOW", said)]


_BROKEN: Final = (
    ("ecc_dbe_vol_total", "uncorrectable ECC errors"),
    ("row_remap_failure", "row remapping failed"),
)
_PENDING: Final = (
    ("row_remap_pending", "row remap pending: reset the GPU"),
    ("retired_pending", "pages to retire: reboot"),
)


def _of_errors(row: Row) -> list[_Finding]:
    """Memory errors and XIDs. Corrected single-bit errors are a note: that is what ECC is for."""
    values = row.values
    found = [
        _Finding(Light.RED, "ECC", f"{values[column]:.0f} {words}" if column.endswith("total") else words)
        for column, words in _BROKEN
        if values.get(column)
    ]
    found += [_Finding(Light.YELLOW, "ECC", words) for column, words in _PENDING if values.get(column)]
    if values.get("ecc_sbe_vol_total"):
        found.append(_Finding(Light.GREEN, "ok", f"{values['ecc_sbe_vol_total']:.0f} corrected ECC errors"))
    if row.xid is not None and row.xid.code:
        info = xids.lookup(row.xid.code)
        light = {xids.Severity.CRITICAL: Light.RED, xids.Severity.INFO: Light.GREEN}.get(info.severity, Light.YELLOW)
        found.append(_Finding(light, "XID", f"XID {info.code}: {info.meaning}"))
    return found


def _colours(alerts: tuple[Alert, ...]) -> dict[str, Light]:
    columns = {ThermalThrottling: "gpu_temp", MemoryPressure: "fb_used", PowerLimit: "power_usage", GpuIdle: "gpu_util"}
    return {
        columns[type(alert)]: Light.RED if alert.severity is Severity.CRITICAL else Light.YELLOW for alert in alerts
    }


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`, `2 d`, `over 1000 d`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.1f} h"
    days = seconds / 86400
    return f"{days:.0f} d" if days <= _DAYS_MOST else f"over {_DAYS_MOST} d"
