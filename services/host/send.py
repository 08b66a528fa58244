"""One delivery by a command that ends: to the destination, or into a spool.

A running collector owns SPOOL_DIR. A command beside it uses a spool of its own below that directory, which the
collector and `gpumon spool` send as well.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.collector import spool_files as files
from services.collector.batch import Batch
from services.collector.deliver import PACE, Bus, Deliverer
from services.collector.destination import opened, words
from services.collector.publish import PublishError
from services.collector.reasons import NO_ANSWER
from services.collector.spool import Spool
from services.settings import Settings, changed

HURRY: Final = 0.6
"""Of the time given: Kafka's client, which looks once a second, must have given up by then; or the reason would only be
NO_ANSWER."""


class SendError(Exception):
    """Neither the destination nor a spool took the events; the message says why."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of the events."""

    destination: str
    """`Kafka` or `TimescaleDB`."""
    sent: int
    spooled: int
    spool: Path
    refused: dict[str, int]
    """Messages that neither took, by reason."""
    reason: str | None
    """Why they were spooled."""
    detail: str | None
    """The same in the destination's words."""

    @property
    def where(self) -> str:
        return f"spool {self.spool}" if self.spooled else "refused" if self.refused else self.destination

    @property
    def problem(self) -> str | None:
        """For people; None when all went well."""
        why = f"{self.reason}: {self.detail}" if self.detail else self.reason
        if self.refused:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in self.refused.items())
            aside = self.spool / files.REJECTED
            kept = f"; those the destination will never take are kept in {aside}" if aside.exists() else ""
            return f"events were taken neither by {self.destination} nor by the spool {self.spool}: {reasons}{kept}"
        if self.spooled:
            return (
                f"warning: {self.destination} did not take {self.spooled} event{'s'[: self.spooled != 1]} ({why}), "
                f"kept in {self.spool} (`gpumon spool status`, `gpumon spool flush`)"
            )
        return None

    def document(self) -> dict[str, Any]:
        return {
            "destination": self.destination.lower(),
            "sent": self.sent,
            "spooled": self.spooled,
            "refused": self.refused,
            "_spool_reason": self.reason if self.spooled else None,
            "detail": self.detail if self.spooled else None,
            "spool": str(self.spool) if self.spooled else None,
        }


def deliver(settings: Settings, batches: list[Batch], timeout: float) -> Delivery:
    """Send, after what waits in the same spool; after `timeout` seconds, or the first failure, keep it on disk.

    Raises SendError.
    """
    settings = changed(settings, kafka_delivery_timeout=min(settings.kafka_delivery_timeout, timeout * HURRY))
    try:
        spool, directory = _open_spool(settings)
        with opened(settings) as bus:
            deliverer = Deliverer(bus, spool)
            deadline = time.monotonic() + timeout
            settle(deliverer, spool, bus, deadline)  # first: what is put behind a failure is spooled with its reason
            for batch in batches:
                deliverer.offer(batch)
            settle(deliverer, spool, bus, deadline)
            deliverer.finish(0, NO_ANSWER)
            detail = words(bus, settings)
            given, place = sum(map(len, batches)), directory.absolute()
            return _outcome(deliverer, given, spool.records, destination=bus.name, spool=place, detail=detail)
    except (files.SpoolError, PublishError) as error:
        raise SendError(str(error)) from None


def settle(deliverer: Deliverer, spool: Spool, bus: Bus, deadline: float) -> None:
    """Turn until everything has arrived, the bus has failed, or it is `deadline` (monotonic seconds)."""
    deliverer.step()
    while time.monotonic() < deadline and not deliverer.failing and (bus.outstanding or not spool.empty):
        if not deliverer.flushing:
            bus.poll(PACE)
        deliverer.step()


def _outcome(deliverer: Deliverer, given: int, waiting: int, **rest: Any) -> Delivery:
    """`given` messages of ours; `waiting` in the spool, where ours are the last."""
    refused = dict(deliverer.counts.refused)
    spooled = max(0, min(waiting, given - sum(refused.values())))
    sent = max(0, given - spooled - sum(refused.values()))
    reason = deliverer.failing or (NO_ANSWER if spooled else None)
    return Delivery(sent=sent, spooled=spooled, refused=refused, reason=reason, **rest)


def _open_spool(settings: Settings) -> tuple[Spool, Path]:
    """SPOOL_DIR, or the first free one below it. Raises SpoolError."""
    try:
        return Spool(settings.spool_dir, settings.spool_max_bytes), settings.spool_dir
    except files.SpoolLockedError:
        for name in files.BESIDE:
            directory = settings.spool_dir / name
            try:
                return Spool(directory, settings.spool_max_bytes), directory
            except files.SpoolLockedError:
                continue
        raise
