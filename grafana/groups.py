"""Which metrics share a panel on the GPU's dashboard: from the catalogue, so that a new metric has a place at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from services.contract.catalogue import SAMPLED, Kind, Metric, Unit


@dataclass(frozen=True, slots=True)
class Group:
    """Metrics of one unit and kind in one panel."""

    title: str
    description: str
    metrics: tuple[Metric, ...]
    axis: str = ""
    """Label of the axis, where the unit says too little."""


def _gauge(*of: Unit) -> Callable[[Metric], bool]:
    return lambda m: m.kind is Kind.GAUGE and m.unit in of


def _counter(unit: Unit, *prefixes: str) -> Callable[[Metric], bool]:
    return lambda m: m.kind is Kind.COUNTER and m.unit is unit and m.column.startswith(prefixes or ("",))


def _ecc(ending: str) -> Callable[[Metric], bool]:
    return lambda m: _counter(Unit.COUNT, "ecc_")(m) and m.column.endswith(ending)


def _counted(prefix: str) -> Callable[[Metric], bool]:
    return lambda m: _gauge(Unit.COUNT)(m) and m.column.startswith(prefix)


_AXES: Final = {"NVLink bandwidth": "MB/s on most boards"}
_PANELS: Final[tuple[tuple[str, str, Callable[[Metric], bool]], ...]] = (
    ("Temperature", "GPU and memory (HBM boards only).", _gauge(Unit.CELSIUS)),
    ("Power", "Draw, and the limit in force.", _gauge(Unit.WATT)),
    ("Clocks", "Streaming multiprocessors and memory.", _gauge(Unit.MEGAHERTZ)),
    ("Utilisation and fan", "Shares of time in which something ran; the fan's share of its full speed.",
     _gauge(Unit.PERCENT)),
    ("Framebuffer", "Memory used, free and reserved for the driver.", _gauge(Unit.MEBIBYTE)),
    ("Profiling", "Ratios of cycles (DCP metrics): data-centre Volta and newer, where the exporter exposes them.",
     _gauge(Unit.RATIO)),
    ("PCIe and NVLink throughput", "Bytes a second (DCP metrics).", _gauge(Unit.BYTES_PER_SECOND)),
    ("PCIe link", "Generation and width in use; both go down when idle.", _counted("pcie_")),
    ("NVLink bandwidth", "DCGM field 449, in the driver's own unit: MB/s on most boards.", _counted("nvlink_")),
    ("Pages pending retirement", "Before Ampere: pages that the next reset retires.", _counted("retired_")),
    ("Codes", "P-state (0 is fastest), last XID, vGPU licence.", _gauge(Unit.CODE)),
    ("Row remapping", "Yes: a remapping failed, or waits for a reset (Ampere and newer).", _gauge(Unit.FLAG)),
    ("Energy", "Energy used in each bucket, from the GPU's own counter.", _counter(Unit.MILLIJOULE)),
    ("Time held back", "How long clocks were held back in each bucket, by what did it.", _counter(Unit.NANOSECOND)),
    ("ECC errors", "New errors in each bucket: sbe corrected, dbe not. Counted since the driver's start (vol).",
     _ecc("_vol_total")),
    ("ECC errors for life", "The same errors as the board counts them for life (agg): not to be added to the others.",
     _ecc("_agg_total")),
    ("Retired pages and remapped rows", "New ones in each bucket.",
     _counter(Unit.COUNT, "retired_", "correctable_", "uncorrectable_")),
    ("PCIe and NVLink errors", "New replays and errors in each bucket.", _counter(Unit.COUNT, "pcie_", "nvlink_")),
)  # fmt: skip


def groups() -> tuple[Group, ...]:
    """Every sampled metric once, but the bitmask, which is a state. What no panel claims comes last, by its unit."""
    left = [m for m in SAMPLED if m.unit is not Unit.BITMASK]
    found = []
    for title, description, belongs in _PANELS:
        found.append(Group(title, description, tuple(m for m in left if belongs(m)), _AXES.get(title, "")))
        left = [m for m in left if not belongs(m)]
    kinds = dict.fromkeys((m.unit, m.kind) for m in left)
    rest = [
        Group(
            f"More: {unit}", "Metrics new in the catalogue.", tuple(m for m in left if (m.unit, m.kind) == (unit, kind))
        )
        for unit, kind in kinds
    ]
    return tuple(group for group in [*found, *rest] if group.metrics)
