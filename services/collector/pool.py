"""All targets of this collector, one task each; follows the list as it changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

from services.collector.targets import Target
from services.collector.worker import Worker

log = logging.getLogger("collector.pool")


class Pool:
    """`memory` is what a clean stop saved: source -> checkpoint; each is used once."""

    def __init__(self, make: Callable[[Target], Worker], memory: dict[str, dict[str, Any]]) -> None:
        self._make = make
        self._memory = memory
        self._workers: dict[str, Worker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def workers(self) -> list[Worker]:
        """A copy: safe to walk through from another thread."""
        return list(self._workers.values())

    async def follow(self, targets: Iterable[Target]) -> None:
        """Start what is new, stop what is gone; a target with new labels goes on with what is known of it."""
        wanted = {target.source: target for target in targets}
        stale = [s for s, worker in self._workers.items() if wanted.get(s) != worker.target]
        await self._stop(stale)
        for source in stale:
            if source not in wanted:
                del self._memory[source]  # fleets change: what is gone must not pile up
        added = [target for source, target in wanted.items() if source not in self._workers]
        for target in added:
            self._start(target)
        if stale or added:
            log.info("targets", extra={"count": len(wanted), "added": len(added), "removed": len(stale)})

    def _start(self, target: Target) -> None:
        worker = self._make(target)
        known = self._memory.pop(target.source, None)
        if known is not None:
            worker.restore(known)
        self._workers[target.source] = worker
        self._tasks[target.source] = asyncio.create_task(worker.run(), name=f"target {target.source}")

    async def _stop(self, sources: list[str]) -> None:
        tasks = [self._tasks.pop(source) for source in sources]
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for source in sources:
            self._memory[source] = self._workers.pop(source).checkpoint()
        for result in results:
            if isinstance(result, Exception):
                raise result

    def failure(self) -> BaseException | None:
        """A task ends only by a programming error: it must end the process, not one target."""
        for task in self._tasks.values():
            if task.done() and not task.cancelled():
                return task.exception()
        return None

    async def stop(self) -> dict[str, dict[str, Any]]:
        """Stop all; returns what is known of the targets."""
        await self._stop(list(self._workers))
        return self._memory
