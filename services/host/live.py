"""The GPUs of this host while something runs: read every second in a thread, from the exporter or from the driver."""

from __future__ import annotations

import datetime as dt
import logging
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

import requests

from services.collector.reader import ScrapeRefused, TargetReader
from services.exporter.reading import Reading, Source, SourceError
from services.host.series import Sample
from services.host.telemetry import Gpu, Telemetry, of_event, own_hostnames, sample
from services.ops.clock import Clock, SystemClock
from services.settings import Settings

log = logging.getLogger("host.live")

TIMEOUT_SECONDS: Final = 5.0
"""An exporter answers from its last reading, within milliseconds."""
KEPT: Final = 100_000
"""Samples per GPU: more than a day at one a second."""
SKEW_SECONDS: Final = 3600.0
"""Between an exporter's clock and ours. Beyond it the time it tells is nonsense: an exporter of ours answers 503 long
before its reading is an hour old."""


class LiveError(Exception):
    """The GPUs cannot be read; the message is one line."""


@dataclass(frozen=True, slots=True)
class Look:
    """One GPU at one moment."""

    gpu: Gpu
    sample: Sample
    slowdown: float | None = None
    """C at which the board slows itself down; None: it does not say."""


class Eye(Protocol):
    """A way to look at the GPUs. Raises LiveError."""

    name: str

    def look(self) -> list[Look]: ...

    def close(self) -> None: ...


class ExporterEye:
    """`/metrics` of an exporter: ours or dcgm-exporter."""

    def __init__(self, url: str, hostnames: tuple[str, ...] | None, clock: Clock, *, mock: bool = True) -> None:
        """`hostnames`: how this host may be called, to refuse another's GPUs (a simulator stands on the same port);
        None takes any. `mock`: whether simulated GPUs will do; our exporter gives them this host's name."""
        self.name = url
        self._hostnames = hostnames
        self._mock = mock
        self._clock = clock
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the environment has no business on the loopback
        self._reader = TargetReader(url, {})

    def look(self) -> list[Look]:
        try:
            answer = self._session.get(self.name, timeout=TIMEOUT_SECONDS)
            answer.raise_for_status()
            if not self._mock and is_mock(answer.content):
                raise LiveError(f"{self.name} shows simulated GPUs (source mock), not those of this host")
            now = self._clock.time()
            events = self._reader.read(answer.content, dt.datetime.fromtimestamp(read_at(answer.content, now), dt.UTC))
        except (requests.RequestException, ScrapeRefused, ValueError) as error:
            raise LiveError(f"{self.name}: {short(error)}") from None
        looks: dict[str, Look] = {}
        for event in sorted(events.events, key=lambda e: -1 if e.gpu.instance_id is None else e.gpu.instance_id):
            if self._hostnames is None or event.gpu.hostname in self._hostnames:
                slowdown = event.gpu.properties.slowdown_temp if event.gpu.properties else None
                looks.setdefault(event.gpu.uuid, Look(*of_event(event), slowdown))
        if not looks:
            shown = ", ".join(sorted({e.gpu.hostname for e in events.events})[:3])
            raise LiveError(f"{self.name} shows GPUs of {shown}, not of this host")
        return list(looks.values())

    def close(self) -> None:
        self._session.close()


_READ_AT: Final = re.compile(rb"^gpumon_exporter_reading_timestamp_seconds (\S{1,40})$", re.MULTILINE)
_MOCK: Final = re.compile(rb'^gpumon_exporter_info\{[^}\n]*\bsource="mock"', re.MULTILINE)


def read_at(body: bytes, now: float) -> float:
    """When the exporter read the GPUs, where it says so: our exporter serves its last reading, up to seconds old.
    Raises ValueError where that is no time near `now`."""
    found = _READ_AT.search(body)
    if found is None:
        return now
    time = float(found[1])
    if not abs(time - now) <= SKEW_SECONDS:  # also where it is NaN
        raise ValueError(f"it says it read the GPUs at {time:.6g}, more than an hour from now ({now:.0f})")
    return time


def is_mock(body: bytes) -> bool:
    """Whether our exporter says that it simulates its GPUs."""
    return _MOCK.search(body) is not None


def short(error: BaseException) -> str:
    """A requests error says the same three times over in its text; its root says it once."""
    root: BaseException = error
    while root.__cause__ or root.__context__:
        root = root.__cause__ or root.__context__ or root
    text = getattr(root, "strerror", None) or str(root) or type(root).__name__
    return " ".join(str(text).split())


class SourceEye:
    """The driver: NVML, or nvidia-smi."""

    def __init__(self, source: Source) -> None:
        self.name = source.name
        self._source = source

    def look(self) -> list[Look]:
        try:
            sweep = self._source.read()
        except SourceError as error:
            raise LiveError(f"{self.name}: {error}") from None
        looks: dict[str, Look] = {}
        for reading in sorted(sweep.readings, key=lambda r: r.device.instance_id is not None):
            looks.setdefault(reading.device.uuid, _look(reading, sweep.time))
        if not looks:
            lost = "; ".join(f"GPU {gpu.index}: {gpu.reason}" for gpu in sweep.lost)
            raise LiveError(f"{self.name}: {lost or 'no GPU'}")
        return list(looks.values())

    def close(self) -> None:
        self._source.close()


def _look(reading: Reading, time: float) -> Look:
    device = reading.device
    gpu = Gpu(device.uuid, device.index, device.model)
    return Look(gpu, sample(time, reading.values), reading.values.get("slowdown_temp"))


def default_exporter(settings: Settings) -> str:
    """URL of this host's own: EXPORTER_HOST and EXPORTER_PORT, by the loopback where it listens on every address."""
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.exporter_host, settings.exporter_host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.exporter_port}/metrics"


def open_eye(settings: Settings, exporter: str | None, open_source: Callable[[Settings], Source], clock: Clock) -> Eye:
    """`exporter` as asked for, and then only that; without one this host's own exporter, else the driver. Simulated
    GPUs are taken for this host's only where EXPORTER_SOURCE=mock says so.

    Raises LiveError that says what was tried.
    """
    if exporter is not None:
        return _tried(ExporterEye(exporter, None, clock))
    simulated = settings.exporter_source == "mock"
    try:
        return _tried(ExporterEye(default_exporter(settings), own_hostnames(settings), clock, mock=simulated))
    except LiveError as error:
        first = str(error)
    try:
        return _tried(SourceEye(open_source(settings)))
    except (LiveError, SourceError) as error:
        raise LiveError(f"{first}; {error}") from None


def _tried(eye: Eye) -> Eye:
    try:
        eye.look()
    except LiveError:
        eye.close()
        raise
    return eye


@dataclass(frozen=True, slots=True)
class State:
    """What the monitor knows now."""

    looks: tuple[Look, ...]
    """Of the last reading, by index."""
    age: float | None
    """Seconds since it; None: there was none."""
    problem: str | None
    """Why the last attempt failed."""
    readings: int
    """How many there have been."""


class Monitor:
    """Reads in a thread of its own, so that a driver that hangs does not stop what is watched. Keeps all samples."""

    def __init__(self, open_: Callable[[], Eye], interval: float = 1.0, clock: Clock | None = None) -> None:
        """`open_` raises LiveError; it is tried again at every interval until it succeeds."""
        self._open = open_
        self._interval = interval
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._looks: list[Look] = []
        self._gpus: dict[str, Gpu] = {}
        self._series: dict[str, list[Sample]] = {}
        self._last: float | None = None
        self._readings = 0
        self._eye: Eye | None = None
        self._stop = threading.Event()
        self._first = threading.Event()
        self.problem: str | None = None
        self.name: str | None = None
        """Where the samples come from."""
        self._thread = threading.Thread(target=self._run, name="live", daemon=True)

    def start(self, patience: float) -> None:
        """Returns once there is a first reading or failure, or after `patience` seconds."""
        self._thread.start()
        self._first.wait(patience)

    def stop(self) -> None:
        """Does not wait for a reading that hangs."""
        self._stop.set()
        self._thread.join(2.0)

    def state(self) -> State:
        with self._lock:
            looks = sorted(self._looks, key=lambda look: (look.gpu.index is None, look.gpu.index or 0))
            age = None if self._last is None else self._clock.monotonic() - self._last
            return State(tuple(looks), age, self.problem, self._readings)

    def temperatures(self, uuid: str, last: int) -> list[float]:
        """The newest `last` of a GPU, oldest first."""
        with self._lock:
            return [s.temp for s in self._series.get(uuid, ())[-last:] if s.temp is not None]

    def telemetry(self) -> Telemetry:
        """All samples so far."""
        with self._lock:
            gpus: Mapping[str, Gpu] = dict(self._gpus)
            series = {uuid: list(samples) for uuid, samples in self._series.items()}
        problem = None if gpus else f"no live readings: {self.problem or 'the driver has not answered'}"
        return Telemetry("live readings", gpus, series, problem)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._read()
            self._first.set()
            self._stop.wait(self._interval)
        if self._eye is not None:
            self._eye.close()

    def _read(self) -> None:
        try:
            if self._eye is None:
                self._eye = self._open()
                self.name = self._eye.name
            self._take(self._eye.look())
        except (LiveError, SourceError) as error:
            if self.problem is None:
                log.debug("no reading", extra={"reason": str(error)})
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001 - a thread that died would leave the limit unwatched, silently
            self._fail(f"{type(error).__name__}: {short(error)}")

    def _take(self, looks: list[Look]) -> None:
        with self._lock:
            self.problem = None
            self._readings += 1
            self._looks = looks
            self._last = self._clock.monotonic()
            for look in looks:
                self._keep(look)

    def _fail(self, problem: str) -> None:
        """Open again at the next turn: the exporter may have been stopped, the GPU unplugged."""
        self.problem = problem
        eye, self._eye = self._eye, None
        if eye is not None:
            with suppress(Exception):
                eye.close()

    def _keep(self, look: Look) -> None:
        self._gpus[look.gpu.uuid] = look.gpu
        series = self._series.setdefault(look.gpu.uuid, [])
        if not series or look.sample.time > series[-1].time:  # an exporter may show one reading twice
            series.append(look.sample)
            del series[:-KEPT]
