"""GPUs of an exporter: ours, dcgm-exporter, or the mock, read as the collector reads them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Final

import msgspec
import requests
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from services.collector.host_status import StatusFile, is_local
from services.collector.reader import ScrapeRefused, TargetReader
from services.collector.targets import TargetError, parse_static
from services.contract.event import Event, Status
from services.exporter import own_series
from services.exporter.reading import Process
from services.ops.clock import Clock, SystemClock
from services.settings import Settings, hostname
from services.top.frame import Frame, Row, View, ViewError, Xid, known
from services.top.local import place

_OWN: Final = (
    own_series.GPU_LOST.name,
    own_series.XID_LAST.name,
    own_series.PROCESS_MEMORY.name,
    own_series.GPU_INFO.name,
    own_series.AGE.name,
)
_MEBIBYTE: Final = 1024 * 1024


class ExporterView(View):
    """`/metrics` of one exporter, with the status of this host where the exporter is on it."""

    def __init__(self, url: str, settings: Settings, clock: Clock | None = None) -> None:
        """`url`: full URL or `host:port`; credentials in it are used and never shown. Raises ViewError."""
        try:
            self._target = parse_static(url)
        except TargetError as error:
            raise ViewError(str(error).replace("TARGETS", "--url")) from None
        self._clock = clock or SystemClock()
        self._timeout, self._most = settings.timeout, settings.max_scrape_bytes
        self._reader = TargetReader(self._target.source, {})
        self._session = requests.Session()
        here = is_local(self._target.address, hostname())
        self._status = StatusFile(settings.status_file if here else None)

    @property
    def name(self) -> str:
        return self._target.source

    def close(self) -> None:
        self._session.close()

    def read(self) -> Frame:
        body, now = self._fetch(), self._clock.time()
        own = own_samples(body)
        lost = [_lost(sample) for sample in own.get(own_series.GPU_LOST.name, ())]
        try:
            events = self._reader.read(body, dt.datetime.fromtimestamp(now, dt.UTC)).events
        except ScrapeRefused as error:
            if not lost:
                raise ViewError(f"{self.name}: {_refused(error, own)}") from None
            events = []
        ages = [sample.value for sample in own.get(own_series.AGE.name, ())]
        extra = _PerGpu(own)
        status = self._status.read()
        rows = [row_of(event, extra, status, ages[0] if ages else 0.0) for event in events]
        found = sorted([*rows, *lost], key=place)
        return Frame(self.name, now, tuple(found), len(found))

    def _fetch(self) -> bytes:
        try:
            with self._session.get(self._target.url, timeout=self._timeout, stream=True) as answer:
                if answer.status_code != 200:
                    raise ViewError(f"{self.name}: HTTP {answer.status_code} {answer.reason}")
                body = bytearray()
                for part in answer.iter_content(_MEBIBYTE):
                    body += part
                    if len(body) > self._most:
                        raise ViewError(f"{self.name}: the answer is larger than MAX_SCRAPE_BYTES={self._most}")
                return bytes(body)
        except requests.RequestException as error:
            raise ViewError(f"{self.name}: {_root(error)}") from None


def own_samples(body: bytes) -> dict[str, list[Sample]]:
    """What our exporter says beside DCGM's series; empty for another's."""
    lines = [line for line in body.splitlines() if line.startswith(tuple(name.encode() for name in _OWN))]
    if not lines:
        return {}
    found: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families(b"\n".join(lines).decode(errors="replace") + "\n"):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


class _PerGpu:
    """XIDs, processes and driver by GPU UUID."""

    def __init__(self, own: dict[str, list[Sample]]) -> None:
        self._processes = _by_uuid(own.get(own_series.PROCESS_MEMORY.name, ()))
        self._xids = _by_uuid(own.get(own_series.XID_LAST.name, ()))
        self._info = _by_uuid(own.get(own_series.GPU_INFO.name, ()))

    def processes(self, uuid: str) -> tuple[Process, ...] | None:
        samples = self._processes.get(uuid)
        return None if samples is None else tuple(map(_process, samples))

    def xid(self, uuid: str) -> Xid | None:
        newest = max(self._xids.get(uuid, ()), key=lambda s: s.value, default=None)
        return None if newest is None else Xid(int(newest.labels.get("xid", 0)), newest.value)

    def driver(self, uuid: str) -> str | None:
        return next((s.labels.get("driver_version") for s in self._info.get(uuid, ())), None)


def _by_uuid(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.labels.get("UUID", ""), []).append(sample)
    return found


def row_of(event: Event, extra: _PerGpu, status: Status | None, age: float) -> Row:
    gpu = event.gpu
    values = known(msgspec.structs.asdict(event.metrics))
    if gpu.properties is not None:
        values |= known(msgspec.structs.asdict(gpu.properties))
    code = values.get("xid_errors")
    return Row(
        host=gpu.hostname,
        uuid=gpu.uuid,
        index=gpu.index,
        model=gpu.model,
        pci_bus_id=gpu.pci_bus_id,
        instance_id=gpu.instance_id,
        instance_profile=gpu.instance_profile,
        driver=gpu.driver_version or extra.driver(gpu.uuid),
        values=values,
        age=age,
        status=status,
        xid=extra.xid(gpu.uuid) or (Xid(int(code)) if code else None),
        processes=extra.processes(gpu.uuid),
    )


def _process(sample: Sample) -> Process:
    labels = sample.labels
    return Process(
        pid=int(labels.get("pid", 0)),
        user=labels.get("user") or None,
        command=labels.get("command") or None,
        used_memory=round(sample.value / _MEBIBYTE),
        kind=labels.get("type", "C"),
    )


def _lost(sample: Sample) -> Row:
    labels = sample.labels
    number = labels.get("gpu", "")
    return Row(
        host=labels.get("Hostname", ""),
        uuid=labels.get("UUID") or None,
        index=int(number) if number.isdigit() else None,
        model=labels.get("modelName") or None,
        pci_bus_id=labels.get("pci_bus_id") or None,
        lost=labels.get("reason") or "lost",
    )


def _refused(error: ScrapeRefused, own: dict[str, list[Sample]]) -> str:
    ages = own.get(own_series.AGE.name)
    if ages:
        return f"the exporter answers, but has no fresh reading of the GPUs: its last one is {ages[0].value:.0f} s old"
    return str(error)


def _root(error: BaseException) -> str:
    """requests says the same three times over; the innermost error says it once."""
    root: BaseException = error
    while (below := root.__cause__ or root.__context__) is not None:
        root = below
    return " ".join(str(getattr(root, "strerror", None) or root or type(root).__name__).split())
