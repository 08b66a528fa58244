"""One target's life: wait for the tick, fetch, read, hand over; never two scrapes of it at once."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from services.collector.batch import Batch, Message, encode_scrape
from services.collector.own import MOST
from services.collector.reader import Reading, ScrapeRefused
from services.collector.schedule import Schedule, sample_time
from services.collector.scrape import ScrapeFailedError
from services.collector.snapshots import Snapshots
from services.collector.targets import Target
from services.contract.event import SCHEMA_VERSION, Event, GpuEvent, Happening, Status

log = logging.getLogger("collector.target")

INLINE_BYTES: Final = 256 * 1024
"""A larger body is read in a worker thread. Below, reading takes a few milliseconds (about 2,000 lines), which delays
nobody; a body of 10,000 GPUs takes most of a second, in which the deadlines of all other targets would pass. A thread
does not make it faster (one interpreter lock), but lets the event loop in between, every 5 ms."""


class Reader(Protocol):
    """`services.collector.reader.TargetReader`."""

    @property
    def hostname(self) -> str | None: ...
    def read(self, body: bytes, time: dt.datetime, status: Status | None = None) -> Reading: ...
    def checkpoint(self) -> dict[str, Any]: ...
    def restore(self, state: Mapping[str, Any]) -> None: ...


class AsyncClock(Protocol):
    """The wall clock in whole milliseconds."""

    def now(self) -> int: ...
    async def sleep_until(self, when: int) -> None: ...


class WallClock:
    def now(self) -> int:
        return time.time_ns() // 1_000_000

    async def sleep_until(self, when: int) -> None:
        """Never returns early, so that a scrape does not begin before its tick."""
        while (left := when / 1000 - time.time()) > 0:
            await asyncio.sleep(left)


@dataclass(slots=True)
class Shared:
    """What all targets use."""

    interval: int
    """ms"""
    tolerance: int
    """ms between plan and start within which a sample carries the planned time."""
    topic: str
    topic_events: str
    fetch: Callable[[Target], Awaitable[bytes]]
    fetch_snapshot: Callable[[Target], Awaitable[bytes]]
    offer: Callable[[Batch], bool]
    status: Callable[[Target], Status | None]
    executor: Executor
    clock: AsyncClock
    refused: Counter[str] = field(default_factory=Counter)
    """Scrapes by reason."""
    samples: int = 0
    non_gpu: int = 0
    cut: int = 0
    """Series left out because there were too many (`Reading.cut`)."""
    on_plan: int = 0
    """Scrapes that carry their planned time."""
    snapshots: Counter[str] = field(default_factory=Counter)
    """Documents `published`, and failures by reason."""


@dataclass(slots=True)
class Seen:
    """What the metrics say of a target."""

    up: bool | None = None
    """None before the first scrape."""
    duration: float = 0.0
    """Seconds from the request to the whole body, last scrape."""
    read_seconds: float = 0.0
    """Reading and encoding of the last body."""
    samples: int = 0
    last_success: float | None = None
    """Seconds since the epoch."""
    missed: int = 0
    scrapes: int = 0
    events: int = 0


class Worker:
    """Scrapes one target until it is cancelled."""

    def __init__(self, target: Target, reader: Reader, shared: Shared) -> None:
        self.target = target
        self.seen = Seen()
        self._reader = reader
        self._shared = shared
        self._cutting = False
        self._schedule = Schedule(target.source, shared.interval)
        self._snapshots = Snapshots(
            target,
            fetch=shared.fetch_snapshot,
            offer=shared.offer,
            topic=shared.topic_events,
            executor=shared.executor,
            counts=shared.snapshots,
        )

    async def run(self) -> None:
        try:
            await self._run()
        finally:
            await self._snapshots.close()

    async def _run(self) -> None:
        clock = self._shared.clock
        while True:
            tick = self._schedule.next(clock.now())
            self.seen.missed += tick.missed
            await clock.sleep_until(tick.planned)
            try:
                await self.scrape(tick.planned)
            except Exception as error:
                # A fault of ours that one exporter's answer brings out must not blind us to all others.
                self._refused("internal_error", repr(error), tick.planned)
                log.exception("scrape broke", extra={"target": self.target.source})

    async def scrape(self, planned: int) -> None:
        """One scrape. Cancelling it while it waits for the exporter drops it; once it is being read it is finished,
        or what the reader has learnt from it (an XID, a counter's new value) would be lost with it."""
        started = self._shared.clock.now()
        moment = sample_time(planned, started, self._shared.tolerance)
        self._shared.on_plan += moment == planned
        self.seen.scrapes += 1
        begin = time.monotonic()
        try:
            body = await self._shared.fetch(self.target)
        except ScrapeFailedError as error:
            self.seen.duration = time.monotonic() - begin
            self._refused(error.reason, error.detail, moment)
            return
        self.seen.duration = time.monotonic() - begin
        await self._finish(body, moment)

    async def _finish(self, body: bytes, moment: int) -> None:
        status = self._shared.status(self.target)
        if len(body) <= INLINE_BYTES:
            self._hand_over(self._read(body, moment, status), moment)
            return
        loop = asyncio.get_running_loop()
        reading = loop.run_in_executor(self._shared.executor, self._read, body, moment, status)
        try:
            outcome = await asyncio.shield(reading)
        except asyncio.CancelledError:
            self._hand_over(await reading, moment)
            raise
        self._hand_over(outcome, moment)

    def _read(self, body: bytes, moment: int, status: Status | None) -> tuple[Reading, list[Message]] | ScrapeRefused:
        """Body -> encoded messages. Runs in any thread; of one target, in one at a time."""
        begin = time.monotonic()
        try:
            reading = self._reader.read(body, _utc(moment), status)
        except ScrapeRefused as refused:
            return refused
        messages = self._encoded(reading.events, reading.happenings)
        self.seen.read_seconds = time.monotonic() - begin
        return reading, messages

    def _hand_over(self, outcome: tuple[Reading, list[Message]] | ScrapeRefused, moment: int) -> None:
        if isinstance(outcome, ScrapeRefused):
            self._refused(outcome.reason, str(outcome), moment)
            self._offer(self._encoded((), outcome.happenings))
            return
        reading, messages = outcome
        if self.seen.up is False:
            messages.append(self._message(Happening.TARGET_UP, moment, None))
            log.info("target is up", extra={"target": self.target.source})
        self.seen.up = True
        self.seen.samples = reading.samples
        self.seen.last_success = moment / 1000
        self._shared.samples += reading.samples
        self._shared.non_gpu += reading.non_gpu
        self._note_cut(reading.cut)
        self._offer(messages)
        self._snapshots.follow(reading.snapshot, lambda: {e.gpu.uuid: e.gpu.hostname for e in reading.events})

    def _note_cut(self, cut: int) -> None:
        """Count each; log once, until a scrape has none to cut."""
        self._shared.cut += cut
        if cut and not self._cutting:
            log.warning(
                "the exporter tells more series than are taken: lost GPUs or XIDs beyond the bound are left out",
                extra={"target": self.target.source, "left_out": cut, "bound": MOST},
            )
        self._cutting = cut > 0

    def _refused(self, reason: str, detail: str, moment: int) -> None:
        """Count each; log and report to the bus once per change of state."""
        self._shared.refused[reason] += 1
        self.seen.samples = 0
        if self.seen.up is not False:
            log.warning("target is down", extra={"target": self.target.source, "reason": reason, "detail": detail})
            self._offer([self._message(Happening.TARGET_DOWN, moment, {"reason": reason, "detail": detail})])
        self.seen.up = False

    def _offer(self, messages: list[Message]) -> None:
        self.seen.events += len(messages)
        if messages and not self._shared.offer(Batch(self.target.source, messages)):
            self._shared.refused["backlog"] += 1

    def _message(self, kind: Happening, moment: int, detail: dict[str, Any] | None) -> Message:
        event = GpuEvent(
            schema_version=SCHEMA_VERSION,
            time=_utc(moment),
            kind=kind.value,
            hostname=self._reader.hostname,
            detail=detail,
            status=self._shared.status(self.target),
            source=self.target.source,
        )
        return self._encoded((), (event,))[0]

    def _encoded(self, events: Iterable[Event], happenings: Iterable[GpuEvent]) -> list[Message]:
        shared = self._shared
        return encode_scrape(events, happenings, shared.topic, shared.topic_events, self.target.source)

    # Memory over a restart -----------------------------------------------------------------------------------------

    def checkpoint(self) -> dict[str, Any]:
        reader, snapshots = self._reader.checkpoint(), self._snapshots.checkpoint()
        return {"up": self.seen.up, "reader": reader, "snapshots": snapshots}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Whatever was saved; a state this version cannot read is dropped with a line in the log."""
        try:
            up = state["up"]
            self._reader.restore(state["reader"])
            self._snapshots.restore(state.get("snapshots", {}))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            log.warning("saved state not usable", extra={"target": self.target.source, "reason": str(error)})
            return
        self.seen.up = up if isinstance(up, bool) else None


def _utc(moment: int) -> dt.datetime:
    """Exact: through microseconds as integers, not through a float."""
    return _EPOCH + dt.timedelta(milliseconds=moment)


_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
