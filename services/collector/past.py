"""What one target's earlier scrapes said, and what all events of a scrape have in common."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from services.collector.assemble import Column, Roster
from services.collector.enrich import Key
from services.collector.own import XidKey
from services.contract.event import SCHEMA_VERSION, GpuEvent, Happening, Status

_Key = TypeVar("_Key")
_Thing = TypeVar("_Thing")

FORGET_AFTER: Final = dt.timedelta(hours=24)
"""A GPU that has not been seen for so long is forgotten, so that a fleet that is replaced does not fill the memory.
One that was in repair for longer comes back as a new GPU: without `gpu_returned`, and its counters start afresh. What
the exporter still says of it (lost, XIDs) is kept as long as it is said."""

REMEMBERED: Final = 10_000
"""XID counters, and lost GPUs, that are kept of one target; beyond, those seen longest ago go first. An exporter that
made up new ones in every scrape would fill the memory within the day."""


@dataclass(slots=True)
class Away:
    """A GPU or instance that the last scrape did not have."""

    since: dt.datetime
    """Time of the first scrape without it."""
    values: dict[str, int]
    """Its last counters and XID."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a GPU stands: how it is known when the driver cannot tell its UUID any more."""

    hostname: str
    pci_bus_id: str | None = None

    def is_at(self, other: Spot) -> bool:
        return self.pci_bus_id is not None and self == other


@dataclass(slots=True)
class Lost:
    """A GPU that was reported lost."""

    spot: Spot
    since: dt.datetime
    uuid: str | None
    seen: dt.datetime
    """When it was last known to be lost: when it went, or the last scrape in which the exporter said so."""


@dataclass(slots=True)
class Xid:
    """An XID counter as it stood."""

    count: int
    last: dt.datetime | None
    seen: dt.datetime
    """The last scrape that had it."""


@dataclass(slots=True)
class Past:
    """What one target's earlier scrapes said. Changed by `advance` only, which a refused scrape never reaches."""

    time: dt.datetime | None = None
    roster: Roster | None = None
    """Of the last scrape; None after a restart."""
    keys: list[Key] = field(default_factory=list)
    columns: dict[str, Column] = field(default_factory=dict)
    """Counter or XID column -> last known value of each of `keys`."""
    away: dict[Key, Away] = field(default_factory=dict)
    spots: dict[str, Spot] = field(default_factory=dict)
    """UUID -> where it is, of every GPU in the last scrape."""
    lost: dict[str, Lost] = field(default_factory=dict)
    """By UUID, or by what stands in its place (`LostGpu.name`)."""
    xids: dict[XidKey, Xid] = field(default_factory=dict)
    """XID counters of our own exporter."""
    reads: float | None = None
    """`gpumon_exporter_reads_total` of the last scrape; None: the exporter is not ours, or was never scraped."""
    status: Status | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """What all events of a scrape have in common."""

    time: dt.datetime
    source: str
    hostname: str
    """Of whatever the exporter does not say the host."""
    status: Status | None = None

    def event(
        self, kind: Happening, *, hostname: str, key: Key | None = None, time: dt.datetime | None = None, **fields: Any
    ) -> GpuEvent:
        """`time`: when it happened, where that is known better than by the scrape."""
        uuid, instance = key or (None, None)
        return GpuEvent(
            schema_version=SCHEMA_VERSION,
            time=time or self.time,
            kind=kind.value,
            hostname=hostname,
            gpu_uuid=uuid,
            instance_id=instance,
            status=self.status,
            source=self.source,
            **fields,
        )


def iso(time: dt.datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def forget(past: Past, now: dt.datetime) -> None:
    """Drops what has been away for a day."""
    past.away = {key: away for key, away in past.away.items() if now - away.since < FORGET_AFTER}
    past.lost = {name: lost for name, lost in past.lost.items() if now - lost.seen < FORGET_AFTER}
    past.lost = newest(past.lost, lambda lost: lost.seen)
    past.xids = {key: xid for key, xid in past.xids.items() if now - xid.seen < FORGET_AFTER}


def newest(known: dict[_Key, _Thing], seen: Callable[[_Thing], dt.datetime]) -> dict[_Key, _Thing]:
    """The `REMEMBERED` that were seen last."""
    if len(known) <= REMEMBERED:
        return known
    return dict(sorted(known.items(), key=lambda item: seen(item[1]))[-REMEMBERED:])
