"""The collector says that it works: when the first samples are where they belong, and how many after one interval."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from services.collector.batch import Batch
from services.ops.clock import Clock, SystemClock

log = logging.getLogger("collector")

GRACE: Final = 1.0
"""Seconds after the first interval: the last target's first samples may be on their way yet."""


class FirstSamples:
    """Told of each batch that arrived, by the thread that delivers. Two lines at most, however many targets."""

    def __init__(
        self, where: str, topic: str, interval: float, targets: Callable[[], int], clock: Clock | None = None
    ) -> None:
        """`where`: the bus' name; `topic`: of samples; `interval`: seconds; `targets`: how many there are."""
        self._where = where
        self._topic = topic
        self._wait = interval + GRACE
        self._targets = targets
        self._clock = clock or SystemClock()
        self._seen: dict[str, int] = {}
        """GPUs by target."""
        self._until = 0.0
        self._done = False

    def __call__(self, batch: Batch) -> None:
        if self._done:
            return
        now = self._clock.monotonic()
        if self._seen and now >= self._until:
            self._done = True
            self._count()
            return
        gpus = len({key for topic, key, _ in batch.messages if topic == self._topic})
        if not gpus:
            return
        if not self._seen:
            self._until = now + self._wait
            log.info("first samples of %s are in %s (%s)", batch.source, self._where, _gpus(gpus))
        self._seen[batch.source] = gpus

    def _count(self) -> None:
        targets, seen = self._targets(), len(self._seen)
        if targets > 1:
            log.info(
                "samples of %d of %d targets are in %s (%s)",
                seen, targets, self._where, _gpus(sum(self._seen.values())),
            )  # fmt: skip


def _gpus(count: int) -> str:
    return f"{count} GPU{'s'[: count != 1]}"
