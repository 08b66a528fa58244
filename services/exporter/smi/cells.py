"""Where each metric of the catalogue stands in `nvidia-smi -q -x`, schema by schema. Pure.

The catalogue names the place in schema v12; `_ELSEWHERE` adds where older and newer schemas have it. v11 (until driver
525) has `power_readings` and `clocks_throttle_reasons`; v13 (from 570) splits the power draw in two. A metric whose
element a schema does not have is neither a value nor missing: that nvidia-smi does not say it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final
from xml.etree.ElementTree import Element

from services.contract.catalogue import METRICS, Metric
from services.contract.sentinels import Missing
from services.exporter.smi.values import Cell, count, number, reason

_ELSEWHERE: Final[dict[str, tuple[str, ...]]] = {
    # v13: NVML's nvmlDeviceGetPowerUsage is the one-second average on Ampere (but GA100) and newer, and the
    # instantaneous draw on what is older, which has no average. `--help-query-gpu` says the same of power.draw.
    "power_usage": (
        "gpu_power_readings/average_power_draw",
        "gpu_power_readings/instant_power_draw",
        "power_readings/power_draw",
    ),
    "power_limit": ("power_readings/power_limit",),
    "retired_pending": ("retired_pages/pending_blacklist",),
}
# What nvidia-smi calls each bit of nvml.h's nvmlClocksEventReason*, without the prefix that differs by schema.
_REASON_BITS: Final = {
    "gpu_idle": 0x1,
    "applications_clocks_setting": 0x2,
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
    "display_clocks_setting": 0x100,
}
_REASON_SECTIONS: Final = ("clocks_event_reasons", "clocks_throttle_reasons")
_REASON_PREFIXES: Final = ("clocks_event_reason_", "clocks_throttle_reason_")


def cells(gpu: Element) -> Iterator[tuple[str, Cell]]:
    """Column and value or reason, for every metric this document has a place for."""
    for column, read in _READERS:
        cell = read(gpu)
        if cell is not None:
            yield column, cell


def _at(gpu: Element, path: str) -> str | None:
    """Text at `path`; the text of the section where the whole section is `N/A`; None where this schema lacks it."""
    element: Element | None = gpu
    for tag in path.split("/"):
        found = element.find(tag) if element is not None else None
        if found is None:
            return _section_text(element, gpu)
        element = found
    return element.text or "" if element is not None else None


def _section_text(element: Element | None, gpu: Element) -> str | None:
    """`<remapped_rows>N/A</remapped_rows>` speaks for everything it would hold."""
    if element is None or element is gpu or len(element):
        return None
    return (element.text or "").strip() or None


def _first(metric: Metric, paths: tuple[str, ...]) -> Callable[[Element], Cell | None]:
    """The first of `paths` with a value. What is unsupported in one may stand in the next; what failed may not."""

    def read(gpu: Element) -> Cell | None:
        outcome: Cell | None = None
        for path in paths:
            text = _at(gpu, path)
            if text is None:
                continue
            cell = number(metric, text)
            if cell is not Missing.UNSUPPORTED:
                return cell
            outcome = cell
        return outcome

    return read


def _clocks_event_reasons(gpu: Element) -> Cell | None:
    """The bits NVML would give. `N/A` beside told reasons is a bit this GPU never sets (Kepler's hw_thermal)."""
    section = next((found for tag in _REASON_SECTIONS if (found := gpu.find(tag)) is not None), None)
    if section is None:
        return None
    if not len(section):
        return reason(section.text)
    outcomes = [_bit(element) for element in section]
    for worst in (Missing.FAILED, Missing.PERMISSION):
        if worst in outcomes:
            return worst
    bits = [bit for bit in outcomes if not isinstance(bit, Missing)]
    return sum(set(bits)) if bits else Missing.UNSUPPORTED


def _bit(element: Element) -> int | Missing:
    """0 where the reason is not active. One this table does not know, and that is active, makes the mask unknown."""
    name = element.tag
    for prefix in _REASON_PREFIXES:
        name = name.removeprefix(prefix)
    match (element.text or "").strip():
        case "Not Active":
            return 0
        case "Active":
            return _REASON_BITS.get(name, Missing.FAILED)
        case other:
            return reason(other)


def _ecc(kind: str, old: str, new: str) -> Callable[[Element], Cell | None]:
    """`kind` volatile or aggregate. Old schemas have a total; newer ones the parts of it, which are added up."""

    def read(gpu: Element) -> Cell | None:
        section = gpu.find(f"ecc_errors/{kind}")
        if section is None or not len(section):
            text = _at(gpu, f"ecc_errors/{kind}/{old}")
            return None if text is None else reason(text)
        total = section.find(f"{old}/total")
        if total is not None:
            return count(total.text)
        return _sum([section.find(tag) for tag in _parts(section, new)])

    return read


def _parts(section: Element, new: str) -> tuple[str, ...]:
    """The set that makes a total. v13 (from driver 550) tells uncorrectable SRAM errors as parity and SEC-DED."""
    sram = f"sram_{new}"
    if new == "uncorrectable" and section.find(sram) is None:
        return (f"{sram}_parity", f"{sram}_secded", f"dram_{new}")
    return (sram, f"dram_{new}")


def _sum(parts: list[Element | None]) -> Cell | None:
    """Only of a complete set: a sum without one of its parts would be too small and look like a count."""
    if any(part is None for part in parts):
        return None
    counts = [count(part.text) for part in parts if part is not None]
    for worst in (Missing.FAILED, Missing.PERMISSION, Missing.UNSUPPORTED):
        if worst in counts:
            return worst
    return sum(number for number in counts if not isinstance(number, Missing))


def _reader(metric: Metric) -> Callable[[Element], Cell | None]:
    special = _SPECIAL.get(metric.column)
    return special or _first(metric, (metric.smi or "", *_ELSEWHERE.get(metric.column, ())))


_SPECIAL: Final[dict[str, Callable[[Element], Cell | None]]] = {
    "clocks_event_reasons": _clocks_event_reasons,
    "ecc_sbe_vol_total": _ecc("volatile", "single_bit", "correctable"),
    "ecc_dbe_vol_total": _ecc("volatile", "double_bit", "uncorrectable"),
    "ecc_sbe_agg_total": _ecc("aggregate", "single_bit", "correctable"),
    "ecc_dbe_agg_total": _ecc("aggregate", "double_bit", "uncorrectable"),
}
_READERS: Final = tuple((metric.column, _reader(metric)) for metric in METRICS if metric.smi is not None)
