"""The collector's parts put together, and their life from start to clean stop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from services.collector import state
from services.collector.beside import Beside
from services.collector.deliver import PACE, Bus, Deliverer
from services.collector.file_sd import TargetFiles
from services.collector.first import FirstSamples
from services.collector.host_status import StatusFile, is_local
from services.collector.metrics import CollectorMetrics
from services.collector.pool import Pool
from services.collector.reader import TargetReader
from services.collector.scrape import Scraper
from services.collector.spool import Spool
from services.collector.targets import Target, choose
from services.collector.worker import Shared, WallClock, Worker
from services.contract.event import Status
from services.ops.health import Heartbeat
from services.settings import Settings, hostname

log = logging.getLogger("collector")

REFRESH: Final = 5.0
"""Seconds between two looks at the target files."""
LOOP_LIMIT: Final = 30.0
"""Seconds without a turn of a loop after which `/livez` fails: a disk may hang for some seconds, not for that long."""
DEADLINE_SHARE: Final = 0.95
"""Of the interval, at most: a target that hangs must be given up before its next tick, or it loses every second one."""
READERS: Final = 2
"""Threads that read large bodies: one may be busy with a very large one while others go on."""
RESOLVERS: Final = 64
"""Threads for the system's resolver, made as needed: by default there are six on two cores, and as many names whose
server does not answer would hold up every other target's look-up for seconds."""


class DeliveryThread:
    """Runs the policy; whatever breaks it must end the process."""

    def __init__(self, deliverer: Deliverer, beside: Beside, on_failure: Callable[[], None]) -> None:
        self.heartbeat = Heartbeat(LOOP_LIMIT)
        self.failure: Exception | None = None
        self._deliverer = deliverer
        self._beside = beside
        self._on_failure = on_failure
        self._stopping = threading.Event()
        self._patience = 0.0
        self._thread = threading.Thread(target=self._run, name="deliver")

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stopping.wait(0 if self._deliverer.flushing else PACE):
                self._deliverer.step()
                self._beside.step()
                self.heartbeat.beat()
            self._deliverer.finish(self._patience)
            self._beside.finish()
        except Exception as error:
            log.critical("delivery broke", exc_info=True)
            self.failure = error
            self._on_failure()

    def stop(self, patience: float) -> None:
        """Give the bus `patience` seconds for what is on its way; the rest is spooled. Blocks."""
        self._patience = patience
        self._stopping.set()
        self._thread.join()


class Service:
    """Make it inside a running event loop."""

    def __init__(self, settings: Settings, static: list[Target], files: TargetFiles, spool: Spool, bus: Bus) -> None:
        self._settings = settings
        self._static = static
        self._files = files
        self._status = StatusFile(settings.status_file)
        self._hostname = hostname()
        self._executor = ThreadPoolExecutor(READERS, thread_name_prefix="read")
        deadline = min(settings.timeout, settings.interval * DEADLINE_SHARE)
        self._scraper = Scraper(deadline, settings.max_scrape_bytes)
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(RESOLVERS, thread_name_prefix="resolve"))
        self._heartbeat = Heartbeat(LOOP_LIMIT)
        first = FirstSamples(bus.name, settings.kafka_topic, settings.interval, lambda: len(self._pool.workers))
        self._deliverer = Deliverer(bus, spool, arrived=first)
        beside = Beside(bus, self._deliverer, spool, settings.spool_dir, max_bytes=settings.spool_max_bytes)
        self._thread = DeliveryThread(self._deliverer, beside, self._stop_from_thread)
        self._shared = self._share()
        self._pool = Pool(self._make_worker, state.take(settings.spool_dir))
        self.metrics = CollectorMetrics(
            pool=self._pool,
            shared=self._shared,
            deliverer=self._deliverer,
            bus=bus,
            spool=spool,
            files=files,
        )

    def _share(self) -> Shared:
        settings = self._settings
        interval = round(settings.interval * 1000)
        return Shared(
            interval=interval,
            tolerance=min(settings.scrape_timestamp_tolerance_ms, interval // 100),
            topic=settings.kafka_topic,
            topic_events=settings.kafka_topic_events,
            fetch=self._scraper.fetch,
            fetch_snapshot=self._scraper.fetch_snapshot,
            offer=self._deliverer.offer,
            status=self._status_of,
            executor=self._executor,
            clock=WallClock(),
        )

    def _make_worker(self, target: Target) -> Worker:
        return Worker(target, TargetReader(target.source, target.labels), self._shared)

    def _status_of(self, target: Target) -> Status | None:
        return self._status.read() if is_local(target.address, self._hostname) else None

    def _stop_from_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)

    def request_stop(self) -> None:
        self._stop.set()

    async def discard(self) -> None:
        """Give back what the constructor took, where `run` is never reached."""
        await self._scraper.close()
        self._executor.shutdown()

    # Probes --------------------------------------------------------------------------------------------------------

    def live(self) -> str | None:
        return self._heartbeat.problem() or self._thread.heartbeat.problem()

    def ready(self) -> str | None:
        if not self._static and not self._files.targets():
            return "no targets yet: no file of TARGETS_FILES gives any"
        return self._deliverer.problem()

    # Life ----------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Until asked to stop, or broken. Returns the exit code."""
        self._thread.start()
        try:
            await self._follow_targets()
        finally:
            await self._shut_down()
        return 1 if self._thread.failure else 0

    async def _follow_targets(self) -> None:
        changed = True
        while not self._stop.is_set():
            if changed:
                await self._pool.follow(self._targets())
            for _ in range(round(REFRESH)):
                await self._turn()
            changed = await asyncio.to_thread(self._files.refresh)

    async def _turn(self) -> None:
        """One second, or until the stop."""
        self._heartbeat.beat()
        failure = self._pool.failure()
        if failure is not None:
            raise failure
        try:
            await asyncio.wait_for(self._stop.wait(), 1.0)
        except TimeoutError:
            return

    def _targets(self) -> list[Target]:
        settings = self._settings
        given = {"cluster": settings.cluster, "datacenter": settings.datacenter, "rack": settings.rack}
        labels = {name: value for name, value in given.items() if value}
        return choose([*self._static, *self._files.targets()], labels, settings.shard_index, settings.shard_count)

    async def _shut_down(self) -> None:
        """Stop scraping; let the bus have what is on its way; spool the rest; remember the targets."""
        log.info("stopping")
        try:
            known = await self._pool.stop()
            state.save(self._settings.spool_dir, known)
        finally:
            patience = min(self._settings.kafka_delivery_timeout, 10.0)
            await asyncio.to_thread(self._thread.stop, patience)
            await self._scraper.close()
            self._executor.shutdown()
        counts = {"samples": self._shared.samples, "accepted": self._deliverer.counts.accepted}
        log.info("stopped", extra=counts)
