"""What is shown: one look at all GPUs, whoever told it. The types between the sources and the screen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from services.andon.metrics import GpuMetrics, of_values
from services.contract.catalogue import BY_COLUMN
from services.contract.event import Status
from services.exporter.reading import Device, Number, Process, Reading


class ViewError(Exception):
    """The source cannot be read now. The message says what is wrong and where."""


@dataclass(frozen=True, slots=True)
class Xid:
    """The newest XID error known of a GPU."""

    code: int
    seconds: float | None = None
    """When, seconds since the epoch; None: since the driver was loaded or the exporter started."""


@dataclass(frozen=True, slots=True)
class Row:
    """One GPU or MIG instance. None is unknown, which is shown as `-`."""

    host: str
    uuid: str | None = None
    index: int | None = None
    model: str | None = None
    pci_bus_id: str | None = None
    instance_id: int | None = None
    instance_profile: str | None = None
    driver: str | None = None
    values: Mapping[str, Number] = field(default_factory=dict)
    """Catalogue column -> value; a column that is not in it has no value."""
    age: float | None = None
    """Seconds since it was measured, at the frame's time."""
    lost: str | None = None
    """Why it cannot be read."""
    status: Status | None = None
    xid: Xid | None = None
    processes: tuple[Process, ...] | None = None
    """None: not told."""

    @property
    def key(self) -> str:
        return f"{self.uuid or f'{self.host}/{self.index}'}/{'' if self.instance_id is None else self.instance_id}"

    @property
    def number(self) -> str:
        """`3`, `3/7` of a MIG instance, `-` where nobody says."""
        index = "-" if self.index is None else str(self.index)
        return index if self.instance_id is None else f"{index}/{self.instance_id}"

    @property
    def name(self) -> str:
        """The product name without its maker's."""
        name = (self.model or "-").removeprefix("NVIDIA ")
        return f"{name} {self.instance_profile}" if self.instance_profile else name

    def metrics(self) -> GpuMetrics:
        index = -1 if self.index is None else self.index
        return of_values(index, self.name, self.values, self.key)

    def reading(self) -> Reading:
        """For what renders readings."""
        device = Device(
            self.uuid or "", self.index or 0, self.pci_bus_id or "", self.model or "", self.instance_id,
            self.instance_profile,
        )  # fmt: skip
        return Reading(device, self.values, {}, self.processes)


@dataclass(frozen=True, slots=True)
class Frame:
    """One look."""

    source: str
    """Who was asked, as shown: `nvml`, a URL without credentials, `database ...`."""
    time: float
    """When, seconds since the epoch."""
    rows: tuple[Row, ...]
    total: int
    """GPUs there are; more than rows where only the first are shown."""

    @property
    def hosts(self) -> list[str]:
        return list(dict.fromkeys(row.host for row in self.rows))

    def age_of(self, row: Row, now: float) -> float:
        """Seconds since its values were measured, at `now`; at least those, where nobody says when that was."""
        return (row.age or 0.0) + max(now - self.time, 0.0)


class View(Protocol):
    """A source. Used from one thread."""

    @property
    def name(self) -> str: ...

    def read(self) -> Frame:
        """May block. Raises ViewError; the next call tries anew."""
        ...

    def close(self) -> None: ...


def known(values: Mapping[str, Number | None]) -> dict[str, Number]:
    """Those that have a value, of the catalogue's columns."""
    return {column: value for column, value in values.items() if value is not None and column in BY_COLUMN}
