"""A sweep -> exposition text: dcgm-exporter's series to the letter, then our own about GPUs. Pure; once per sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from services.contract.catalogue import LABEL_FIELDS, Metric
from services.exporter import labels, prefixed
from services.exporter.counters_file import Counter, Selection
from services.exporter.labels import Pair
from services.exporter.own_series import FIELD_MISSING, GPU_INFO, PROCESS_MEMORY, block
from services.exporter.reading import Device, Number, Reading, Sweep

Attributes = Callable[[Device], Sequence[Mapping[str, str]]]
"""Kubernetes and HPC labels of a device: one mapping per pod or job that shares it, none when nobody holds it."""

_MIB: Final = 1024 * 1024
_INVENTORY: Final = tuple(dict.fromkeys(LABEL_FIELDS.values()))
"""Labels of `gpumon_gpu_info`: inventory names, in the catalogue's order."""


class Windows(Protocol):
    """Counts within a window (`DCGM_EXP_*_COUNT`)."""

    def observe(self, sweep: Sweep) -> None: ...

    def samples(self, name: str, device: Device) -> list[tuple[list[Pair], int]]:
        """Extra labels and count of each series of metric `name`."""
        ...


@dataclass(frozen=True, slots=True)
class _Row:
    """A reading with its label texts, made once per sweep."""

    reading: Reading
    identity: list[Pair]
    own: str
    """Label text of our own series."""
    dcgm: list[str]
    """Label text of DCGM's series, one per holder."""


def nobody(_device: Device) -> Sequence[Mapping[str, str]]:
    """The attributes where neither Kubernetes nor a job scheduler is asked."""
    return ()


@dataclass(frozen=True, slots=True)
class Renderer:
    """What to serve, and under which names."""

    selection: Selection
    hostname: str | None
    """None: `--no-hostname`."""
    attributes: Attributes = nobody
    prefix: str = ""
    windows: Windows | None = None

    def render(self, sweep: Sweep) -> str:
        """All series that hold only while the sweep is fresh."""
        rows = [self._row(reading) for reading in sweep.readings]
        if self.windows is not None:
            self.windows.observe(sweep)
        parts = [_dcgm(counter, rows) for counter in self.selection.counters]
        parts += self._counted(rows)
        parts += [_info(rows), _missing(self.selection.counters, rows), _processes(rows)]
        if self.prefix:
            parts.append(prefixed.render(self.prefix, sweep.readings))
        return "".join(parts)

    def _row(self, reading: Reading) -> _Row:
        device = reading.device
        identity = labels.identity(device, self.hostname)
        common = identity + labels.chosen_fields(device, self.selection.labels)
        holders = self.attributes(device) or ({},)
        dcgm = [labels.text(common + labels.attributes(holder)) for holder in holders]
        return _Row(reading, identity, labels.text(identity), dcgm)

    def _counted(self, rows: Sequence[_Row]) -> list[str]:
        if self.windows is None:
            return []
        windows = self.windows
        return [
            block(w.name, w.type, w.help, [
                (f"{text},{labels.text(extra)}", str(count))
                for row in rows
                for extra, count in windows.samples(w.name, row.reading.device)
                for text in row.dcgm
            ])
            for w in self.selection.windowed
        ]  # fmt: skip


def value_text(metric: Metric, value: Number) -> str:
    """dcgm-exporter's number formats: whole numbers `%d`, others `%f` with six decimals."""
    return f"{int(value)}" if metric.sql.is_integer else f"{value:f}"


def _dcgm(counter: Counter, rows: Sequence[_Row]) -> str:
    column, metric = counter.metric.column, counter.metric
    return block(counter.name, counter.type, counter.help, [
        (text, value_text(metric, row.reading.values[column]))
        for row in rows
        if column in row.reading.values
        for text in row.dcgm
    ])  # fmt: skip


def _info(rows: Sequence[_Row]) -> str:
    return GPU_INFO.block([(labels.text(row.identity + inventory(row.reading.device)), "1") for row in rows])


def inventory(device: Device) -> list[Pair]:
    """Label fields of a device under their inventory names."""
    found = {LABEL_FIELDS[field]: value for field, value in device.labels.items() if field in LABEL_FIELDS}
    return [(name, found[name]) for name in _INVENTORY if name in found]


def _missing(counters: Sequence[Counter], rows: Sequence[_Row]) -> str:
    return FIELD_MISSING.block([
        (f'{row.own},field="{counter.name}",reason="{row.reading.missing[counter.metric.column]}"', "1")
        for row in rows
        for counter in counters
        if counter.metric.column in row.reading.missing
    ])  # fmt: skip


def _processes(rows: Sequence[_Row]) -> str:
    """Processes whose memory the driver tells; one that it does not tell has no value to show."""
    return PROCESS_MEMORY.block([
        (
            f"{row.own}," + labels.text([
                ("pid", str(process.pid)), ("user", process.user or ""), ("command", process.command or ""),
                ("type", process.kind),
            ]),
            str(process.used_memory * _MIB),
        )
        for row in rows
        for process in row.reading.processes or ()
        if process.used_memory is not None
    ])  # fmt: skip
