"""Hand-made readings, a source that plays a script, and a clock that tests move."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from services.contract.sentinels import Missing
from services.exporter.reading import Device, Lost, Number, Process, Reading, Sweep

UUIDS = ("GPU-00000000-0000-0000-0000-000000000000", "GPU-11111111-1111-1111-1111-111111111111")
START = 1_763_790_000.0


def device(index: int = 0, **fields: object) -> Device:
    values: dict[str, object] = {
        "uuid": UUIDS[index],
        "index": index,
        "pci_bus_id": f"00000000:{index + 3:02X}:00.0",
        "model": "Tesla P40",
        "labels": {"DCGM_FI_DRIVER_VERSION": "535.129.03", "DCGM_FI_DEV_SERIAL": "0321"},
    } | fields
    return Device(**values)  # type: ignore[arg-type]  # a table of a dataclass's own fields


def reading(
    of: Device | int = 0,
    values: Mapping[str, Number] | None = None,
    missing: Mapping[str, Missing] | None = None,
    processes: tuple[Process, ...] | None = None,
) -> Reading:
    return Reading(
        device=device(of) if isinstance(of, int) else of,
        values={"gpu_temp": 41, "power_usage": 51.25} if values is None else values,
        missing=missing or {},
        processes=processes,
    )


def sweep(*readings: Reading, lost: tuple[Lost, ...] = (), time: float = START) -> Sweep:
    return Sweep("nvml", time, readings, lost)


@dataclass
class FakeClock:
    """Stands still unless it is told to move."""

    now: float = 0.0

    def time(self) -> float:
        return START + self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class ScriptedSource:
    """Each `read` plays the next line of the script: a sweep, an error to raise, or a function. The last one stays."""

    script: list[Sweep | Exception | Callable[[], Sweep]]
    name: str = "nvml"
    closed: int = 0
    reads: int = field(default=0)

    def read(self) -> Sweep:
        line = self.script[min(self.reads, len(self.script) - 1)]
        self.reads += 1
        if isinstance(line, Exception):
            raise line
        return line if isinstance(line, Sweep) else line()

    def close(self) -> None:
        self.closed += 1
