"""Reads a source at an interval, in a thread of its own: a driver that hangs holds up nothing but this thread."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from services.exporter.reading import Device, Lost, Source, SourceError, Sweep, Trouble
from services.exporter.roster import Roster
from services.ops.clock import Clock, SystemClock

log = logging.getLogger("exporter")

_SECONDS_BETWEEN: Final = {"nvidia-smi": 5.0}
_SECONDS_BETWEEN_OTHERS: Final = 1.0
"""Seconds. NVML reads eight GPUs in some ten milliseconds; nvidia-smi takes about a second of CPU on such a host."""
_STALE_INTERVALS: Final = 3
_STALE_AT_LEAST: Final = 10.0
"""Seconds. One slow answer of the driver (a GPU that is being reset, a process that ends) is no reason to vanish."""
_BACKOFF_MAX: Final = 60.0
"""Seconds. A driver that is being installed or reloaded is noticed within a minute; trying costs a process or a
library load."""

OpenSource = Callable[[], Source]


@dataclass(frozen=True, slots=True)
class Status:
    """What the sampler knows at one moment."""

    sweep: Sweep | None
    """The last reading, however old; None before the first."""
    age: float | None
    """Seconds since that reading began."""
    problem: str | None
    """Why there is no fresh reading; None while there is one."""
    duration: float | None
    """Seconds the last reading took."""
    reads: int
    failures: Mapping[Trouble, int]
    lost: tuple[Lost, ...]
    devices: tuple[Device, ...]
    """Whole GPUs that were read at least once, lost ones included."""
    source: str | None
    """Name of the source that is open."""

    @property
    def fresh(self) -> bool:
        return self.problem is None


class Sampler:
    """`step` reads once; `start` does so until `stop`. `status` may be asked from any thread and never waits for the
    driver."""

    def __init__(
        self,
        open_source: OpenSource,
        on_sweep: Callable[[Sweep], None],
        *,
        interval: float | None = None,
        stale_after: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`interval` and `stale_after` in seconds; None: what suits the source. `on_sweep` runs in the sampler's
        thread before the sweep counts as the last reading."""
        self._open, self._on_sweep = open_source, on_sweep
        self._interval, self._stale_after = interval, stale_after
        self._clock = clock or SystemClock()
        self._source: Source | None = None
        self._roster = Roster()
        self._last: tuple[Sweep, float, float] | None = None  # sweep, when it began (monotonic), seconds it took
        self._busy_since: float | None = None
        self._error: SourceError | None = None
        self._delay: float | None = None
        self._reads = 0
        self._failures: Counter[Trouble] = Counter()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.crash: BaseException | None = None
        """What ended the thread, where that was no `stop`: a fault of the program."""

    @property
    def interval(self) -> float:
        """Seconds between two readings."""
        if self._interval is not None:
            return self._interval
        return _SECONDS_BETWEEN.get(self._source.name if self._source else "", _SECONDS_BETWEEN_OTHERS)

    @property
    def stale_after(self) -> float:
        """Seconds after which the last reading is no longer served."""
        return self._stale_after or max(_STALE_AT_LEAST, _STALE_INTERVALS * self.interval)

    def step(self) -> float:
        """Open the source where it is not, read once; gives the seconds until the next step."""
        begun = self._busy_since = self._clock.monotonic()
        try:
            if self._source is None:
                self._source = self._open()
            sweep = self._source.read()
            took = self._clock.monotonic() - begun
            self._take(sweep, begun, took)
        except SourceError as error:
            self._end(begun, error.trouble)
            return self._fail(error)
        self._end(begun, None)
        return self.interval - (self._clock.monotonic() - begun) % self.interval

    def read_once(self) -> None:
        """Open, read, close. Raises SourceError."""
        begun = self._clock.monotonic()
        try:
            self._source = self._open()
            sweep = self._source.read()
            self._take(sweep, begun, self._clock.monotonic() - begun)
        finally:
            self._close()

    def _take(self, sweep: Sweep, begun: float, took: float) -> None:
        self._roster.update(sweep)
        self._on_sweep(sweep)
        self._reads += 1
        self._last = (sweep, begun, took)
        if self._error is not None or self._reads == 1:
            facts = {"source": sweep.source, "gpus": _gpus(sweep), "seconds": round(took, 3)}
            log.info("GPUs are read", extra=facts)
        self._error, self._delay = None, None

    def _fail(self, error: SourceError) -> float:
        """Count, tell once, close; the next step opens the source anew."""
        self._failures[error.trouble] += 1
        if self._error is None or str(self._error) != str(error):
            log.warning("GPUs cannot be read: %s", error, extra={"trouble": str(error.trouble)})
        self._error = error
        self._delay = min(2 * self._delay, _BACKOFF_MAX) if self._delay else self.interval
        self._close()
        return self._delay

    def _close(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.close()

    def _end(self, begun: float, trouble: Trouble | None) -> None:
        """A step that took longer than readings stay fresh was a hung driver, however it ended: `status` said so."""
        if self._clock.monotonic() - begun > self.stale_after and trouble is not Trouble.HUNG:
            self._failures[Trouble.HUNG] += 1
        self._busy_since = None

    def status(self) -> Status:
        now, last, busy = self._clock.monotonic(), self._last, self._busy_since
        hung = None if busy is None or now - busy <= self.stale_after else now - busy
        age = None if last is None else now - last[1]
        failures = {trouble: self._failures[trouble] for trouble in Trouble}
        failures[Trouble.HUNG] += hung is not None
        return Status(
            sweep=last[0] if last else None,
            age=age,
            problem=self._problem(age, hung),
            duration=last[2] if last else None,
            reads=self._reads,
            failures=failures,
            lost=self._roster.lost,
            devices=self._roster.devices,
            source=self._source.name if self._source else None,
        )

    def _problem(self, age: float | None, hung: float | None) -> str | None:
        if age is not None and age <= self.stale_after:
            return None
        if hung is not None:
            name = self._source.name if self._source else "the driver"
            return f"{name} has not answered for {hung:.0f} s: look at `dmesg` for NVRM lines, or run gpumon doctor"
        since = "" if age is None else f" (last reading {age:.0f} s ago)"
        if self._error is not None:
            return f"{self._error}{since}"
        return f"the last reading is {age:.0f} s old" if age is not None else "no reading yet"

    def start(self, on_crash: Callable[[], None]) -> None:
        """Begin to read. `on_crash` is called in the thread when `crash` has been set."""
        self._thread = threading.Thread(target=self._run, args=(on_crash,), name="sampler", daemon=True)
        self._thread.start()

    def _run(self, on_crash: Callable[[], None]) -> None:
        try:
            while not self._stopping.wait(self.step()):
                pass
            self._close()
        except BaseException as error:  # noqa: BLE001  # handed to the main thread, which raises it
            self.crash = error
            on_crash()

    def stop(self, within: float) -> None:
        """End the thread; one that hangs in the driver is left behind after `within` seconds (it is a daemon)."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(within)


def _gpus(sweep: Sweep) -> int:
    """Whole GPUs: instances belong to one of them."""
    return len({reading.device.uuid for reading in sweep.readings})
