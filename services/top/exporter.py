"""GPUs of an exporter: ours, dcgm-exporter, or the mock, read as the collector reads them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import requests

from services.collector.host_status import StatusFile, is_local
from services.collector.lines import HEAD, number_text, parse_labels
from services.collector.reader import ScrapeRefused, TargetReader
from services.collector.targets import TargetError, parse_static
from services.contract.event import Event, Status
from services.exporter import own_series
from services.exporter.reading import Process
from services.ops.clock import Clock, SystemClock
from services.settings import Settings, hostname
from services.top.frame import Frame, Row, View, ViewError, Xid, known
from services.top.judge import duration
from services.top.local import place

_OWN: Final = frozenset({
    own_series.GPU_LOST.name,
    own_series.XID_LAST.name,
    own_series.PROCESS_MEMORY.name,
    own_series.GPU_INFO.name,
    own_series.AGE.name,
})  # fmt: skip
_MARKS: Final = tuple(name.encode() for name in sorted(_OWN))
_MEBIBYTE: Final = 1024 * 1024
_NUMBER_MOST: Final = 2**31 - 1
"""Of XIDs, process ids and indices."""
_BYTES_MOST: Final = 2.0**53
_SECONDS_MOST: Final = 253_402_300_799
"""The end of the year 9999."""


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
        lost = [_lost(sample) for sample in own.get(own_series.GPU_LOST.name, ()) if sample.value > 0]
        try:
            events = self._reader.read(body, dt.datetime.fromtimestamp(now, dt.UTC)).events
        except ScrapeRefused as error:
            if not lost or error.reason != "no_gpu_metrics":
                raise ViewError(f"{self.name}: {_refused(error, own)}") from None
            events = []
        extra, status, age = _PerGpu(own), self._status.read(), _age(own)
        rows = [row_of(event, extra, status, age) for event in events]
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


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of ours."""

    labels: Mapping[str, str]
    value: float


def own_samples(body: bytes) -> dict[str, list[Sample]]:
    """What our exporter says beside DCGM's series, by name; empty for another's. A line that is no sample is left out:
    the collector's reader says what is wrong with it."""
    found: dict[str, list[Sample]] = {}
    for line in body.splitlines():
        if not line.lstrip().startswith(_MARKS):
            continue
        head = HEAD.match(line)
        number = None if head is None else number_text(line[head.end() :])
        if head is None or number is None or head[1].decode() not in _OWN:
            continue
        try:
            labels = parse_labels(head[2] or b"")
        except ValueError:
            continue
        found.setdefault(head[1].decode(), []).append(Sample(labels, float(number)))
    return found


def _age(own: Mapping[str, list[Sample]]) -> float | None:
    """Seconds, perhaps infinite; None: not known. Exporters without such a series read when they are asked."""
    ages = own.get(own_series.AGE.name)
    if not ages:
        return 0.0
    return ages[0].value if ages[0].value >= 0 else None  # NaN compares false


class _PerGpu:
    """XIDs, processes and driver by GPU UUID."""

    def __init__(self, own: Mapping[str, list[Sample]]) -> None:
        self._processes = _by_uuid(own.get(own_series.PROCESS_MEMORY.name, ()))
        self._xids = _by_uuid(own.get(own_series.XID_LAST.name, ()))
        self._info = _by_uuid(own.get(own_series.GPU_INFO.name, ()))

    def processes(self, uuid: str) -> tuple[Process, ...] | None:
        samples = self._processes.get(uuid)
        return None if samples is None else tuple(p for p in map(_process, samples) if p is not None)

    def xid(self, uuid: str) -> Xid | None:
        told = [_xid(sample) for sample in self._xids.get(uuid, ())]
        return max((x for x in told if x is not None), key=lambda x: x.seconds or 0.0, default=None)

    def driver(self, uuid: str) -> str | None:
        return next((s.labels.get("driver_version") for s in self._info.get(uuid, ())), None)


def _by_uuid(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.labels.get("UUID", ""), []).append(sample)
    return found


def row_of(event: Event, extra: _PerGpu, status: Status | None, age: float | None) -> Row:
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


def _xid(sample: Sample) -> Xid | None:
    """None: what it names is no XID."""
    code = _whole(sample.labels.get("xid"))
    return None if code is None else Xid(code, sample.value if 0 < sample.value <= _SECONDS_MOST else None)


def _process(sample: Sample) -> Process | None:
    """None: what it names is no process."""
    labels = sample.labels
    pid = _whole(labels.get("pid"))
    if pid is None:
        return None
    return Process(
        pid=pid,
        user=labels.get("user") or None,
        command=labels.get("command") or None,
        used_memory=round(sample.value / _MEBIBYTE) if 0 <= sample.value <= _BYTES_MOST else None,
        kind=labels.get("type", "C"),
    )


def _lost(sample: Sample) -> Row:
    labels = sample.labels
    return Row(
        host=labels.get("Hostname", ""),
        uuid=labels.get("UUID") or None,
        index=_whole(labels.get("gpu")),
        model=labels.get("modelName") or None,
        pci_bus_id=labels.get("pci_bus_id") or None,
        lost=labels.get("reason") or "lost",
    )


def _whole(text: str | None) -> int | None:
    """A small whole number; None for any other text."""
    if not text or len(text) > len(str(_NUMBER_MOST)) or not (text.isascii() and text.isdigit()):
        return None
    return int(text) if int(text) <= _NUMBER_MOST else None


def _refused(error: ScrapeRefused, own: Mapping[str, list[Sample]]) -> str:
    age = _age(own)
    if error.reason in ("no_gpu_metrics", "stale") and own_series.AGE.name in own and age is not None:
        return f"the exporter answers, but has no fresh reading of the GPUs: its last one is {duration(age)} old"
    return str(error)


def _root(error: BaseException) -> str:
    """requests says the same three times over; the innermost error says it once."""
    root: BaseException = error
    while (below := root.__cause__ or root.__context__) is not None:
        root = below
    return " ".join(str(getattr(root, "strerror", None) or root or type(root).__name__).split())
