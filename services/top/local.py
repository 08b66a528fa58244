"""GPUs of this host, read from the driver."""

from __future__ import annotations

from services.collector.host_status import StatusFile
from services.contract.event import Status
from services.exporter.choose import open_source
from services.exporter.reading import Lost, Reading, Source, SourceError, Sweep
from services.ops.clock import Clock, SystemClock
from services.settings import Settings, hostname
from services.top.frame import Frame, Row, View, ViewError, Xid, known


class LocalView(View):
    """NVML, nvidia-smi or the mock, as EXPORTER_SOURCE says; opened anew after a failure."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._source: Source | None = None
        self._status = StatusFile(settings.status_file)
        self._host = settings.node_name or hostname()

    @property
    def name(self) -> str:
        return self._settings.exporter_source if self._source is None else self._source.name

    def read(self) -> Frame:
        try:
            if self._source is None:
                self._source = open_source(self._settings, processes=True)
            sweep = self._source.read()
        except SourceError as error:
            self.close()
            raise ViewError(f"GPUs of this host: {error}") from error
        return self._frame(sweep)

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    def _frame(self, sweep: Sweep) -> Frame:
        now, status = self._clock.time(), self._status.read()
        age = max(now - sweep.time, 0.0)
        rows = [_row(self._host, reading, status, age) for reading in sweep.readings]
        rows += [_lost(self._host, lost, status) for lost in sweep.lost]
        return Frame(sweep.source, now, tuple(sorted(rows, key=place)), len(rows))


def place(row: Row) -> tuple[str, int, int]:
    """By host, GPU, instance; a GPU before its instances, those of unknown index last."""
    index = 1_000_000 if row.index is None else row.index
    return row.host, index, -1 if row.instance_id is None else row.instance_id


def _row(host: str, reading: Reading, status: Status | None, age: float) -> Row:
    device, values = reading.device, known(reading.values)
    code = values.get("xid_errors")
    return Row(
        host=host,
        uuid=device.uuid,
        index=device.index,
        model=device.model,
        pci_bus_id=device.pci_bus_id,
        instance_id=device.instance_id,
        instance_profile=device.instance_profile,
        driver=device.labels.get("DCGM_FI_DRIVER_VERSION"),
        values=values,
        age=age,
        status=status,
        xid=Xid(int(code)) if code else None,
        processes=reading.processes,
    )


def _lost(host: str, lost: Lost, status: Status | None) -> Row:
    return Row(host, lost.uuid, lost.index, lost.model, lost.pci_bus_id, lost=lost.reason, status=status)
