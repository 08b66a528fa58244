"""The detector: the last scrape and this one -> counter resets and what happened to GPUs.

A counter that is lower than before has started again, however small the step back (ADR on counter resets). The
increase over any window is `last - first + sum(resets)`: right for a restart; a wobble is counted as one and is visible
as an event.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import lt
from typing import Any, Final

from services.collector.assemble import Column, Roster, Table
from services.collector.enrich import Key
from services.contract.catalogue import COUNTERS
from services.contract.event import SCHEMA_VERSION, GpuEvent, Status

_COUNTERS: Final = tuple(m.column for m in COUNTERS)
_XID: Final = "xid_errors"
FORGET_AFTER: Final = dt.timedelta(hours=24)
"""A GPU that has not been seen for so long is forgotten, so that a fleet that is replaced does not fill the memory.
One that was in repair for longer comes back as a new GPU: without `gpu_returned`, and its counters start afresh."""

Resets = dict[int, dict[str, int]]
"""Row -> counter column -> value it had reached."""


@dataclass(slots=True)
class Away:
    """A GPU or instance that the last scrape did not have."""

    since: dt.datetime
    """Time of the first scrape without it."""
    values: dict[str, int]
    """Its last counters and XID."""


@dataclass(slots=True)
class Lost:
    hostname: str
    since: dt.datetime


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
    hosts: dict[str, str] = field(default_factory=dict)
    """UUID -> host name, of every GPU in the last scrape."""
    lost: dict[str, Lost] = field(default_factory=dict)
    """By UUID."""
    status: Status | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """What all events of a scrape have in common."""

    time: dt.datetime
    source: str

    def event(self, kind: str, *, hostname: str, key: Key | None = None, **fields: Any) -> GpuEvent:
        uuid, instance = key or (None, None)
        return GpuEvent(
            schema_version=SCHEMA_VERSION,
            time=self.time,
            kind=kind,
            hostname=hostname,
            gpu_uuid=uuid,
            instance_id=instance,
            source=self.source,
            **fields,
        )


def advance(past: Past, table: Table, status: Status | None, moment: Moment) -> tuple[Resets, list[GpuEvent]]:
    """Compares a scrape with the past, then makes it the past."""
    happenings: list[GpuEvent] = []
    roster = table.roster
    if past.roster is not roster:
        happenings += _presence(past, _hosts(roster), moment)
        _align(past, roster, moment.time)
    if past.time is not None and status != past.status:
        detail = {"tag": status and status.tag, "memo": status and status.memo}
        happenings += [moment.event("status", hostname=h, detail=detail) for h in sorted(set(past.hosts.values()))]
    resets = find_resets(table.columns, past.columns)
    happenings += _reset_events(table, resets, moment)
    happenings += _xid_events(table, past.columns.get(_XID), moment)
    _remember(past, table.columns)
    past.time, past.status = moment.time, status
    return resets, happenings


def find_resets(now: dict[str, Column], before: dict[str, Column]) -> Resets:
    resets: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for name in _COUNTERS:
        if name in now and name in before:
            for row in _fallen(now[name], before[name]):
                resets[row][name] = before[name][row]
    return dict(resets)


def _fallen(now: Column, before: Column) -> list[int]:
    """Rows in which the value is lower than before; unknown is not lower."""
    try:
        if not any(map(lt, now, before)):  # the common case, at the speed of C
            return []
    except TypeError:
        pass  # a None in it
    pairs = enumerate(zip(now, before, strict=True))
    return [row for row, (new, old) in pairs if new is not None and old is not None and new < old]


def _reset_events(table: Table, resets: Resets, moment: Moment) -> Iterator[GpuEvent]:
    for row, columns in resets.items():
        detail = {name: {"from": old, "to": table.columns[name][row]} for name, old in columns.items()}
        yield moment.event("counter_reset", hostname=_host(table, row), key=table.roster.keys[row], detail=detail)


def _xid_events(table: Table, before: Column | None, moment: Moment) -> Iterator[GpuEvent]:
    """An XID that was not there before. On first sight of a GPU nobody knows when its XID happened: no event."""
    now = table.columns.get(_XID)
    if now is None or before is None or now == before:
        return
    errors = xid_texts(table)
    for row, (xid, last) in enumerate(zip(now, before, strict=True)):
        if xid and last is not None and xid != last:
            detail = {"previous": last, **errors.get(row, {})}
            key = table.roster.keys[row]
            yield moment.event("xid", hostname=_host(table, row), key=key, code=xid, detail=detail)


def xid_texts(table: Table) -> dict[int, dict[str, str]]:
    """Row -> `err_code` and `err_msg` of its XID series, where the exporter gives them."""
    texts: dict[int, dict[str, str]] = {}
    for group in table.roster.known:
        for row, meaning in zip(table.roster.places(group)[0], group.owners, strict=True):
            if row is not None and meaning.error is not None:
                texts[row] = meaning.error
    return texts


def _host(table: Table, row: int) -> str:
    return table.roster.gpus[row].hostname


def _hosts(roster: Roster) -> dict[str, str]:
    return {uuid: gpu.hostname for (uuid, _), gpu in zip(roster.keys, roster.gpus, strict=True)}


def _presence(past: Past, hosts: dict[str, str], moment: Moment) -> list[GpuEvent]:
    """Lost and returned GPUs. A MIG instance that is gone while its GPU is there was reconfigured, not lost."""
    happenings = []
    for uuid in past.hosts.keys() - hosts.keys():
        past.lost[uuid] = Lost(past.hosts[uuid], moment.time)
        detail = {"last_seen": _iso(past.time)}
        happenings.append(moment.event("gpu_lost", hostname=past.hosts[uuid], key=(uuid, None), detail=detail))
    for uuid in past.lost.keys() & hosts.keys():
        detail = {"lost_at": _iso(past.lost.pop(uuid).since)}
        happenings.append(moment.event("gpu_returned", hostname=hosts[uuid], key=(uuid, None), detail=detail))
    past.hosts = hosts
    return sorted(happenings, key=lambda e: (e.kind, e.gpu_uuid or ""))


def _iso(time: dt.datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _align(past: Past, roster: Roster, time: dt.datetime) -> None:
    """Puts the last known values into the order of this scrape's rows."""
    if past.keys == roster.keys:  # other labels, the same GPUs
        past.roster = roster
        return
    rows = {key: row for row, key in enumerate(past.keys)}
    for key in rows.keys() - roster.row_of.keys():
        values = {name: column[rows[key]] for name, column in past.columns.items() if column[rows[key]] is not None}
        past.away[key] = Away(time, values)
    names = {*past.columns, *(name for away in past.away.values() for name in away.values)}
    back = {key: past.away.pop(key).values for key in roster.keys if key in past.away}
    order = [(rows.get(key), back.get(key, {})) for key in roster.keys]
    old = past.columns
    past.columns = {
        name: [kept.get(name) if row is None else old[name][row] if name in old else None for row, kept in order]
        for name in names
    }
    past.keys, past.roster = roster.keys, roster


def _remember(past: Past, now: dict[str, Column]) -> None:
    """Last known values: a series that is absent for a while keeps the value it had."""
    nothing: Column = [None] * len(past.keys)
    for name in _COUNTERS:
        if name in now:
            past.columns[name] = _filled(now[name], past.columns.get(name, nothing))
    # Exporters may leave the XID series out until there is one: a GPU seen without had none, and its first is an event.
    xids = _filled(now.get(_XID, nothing), past.columns.get(_XID, nothing))
    past.columns[_XID] = _filled(xids, [0] * len(xids))


def _filled(new: Column, old: Column) -> Column:
    if None not in new:
        return new
    return [last if value is None else value for value, last in zip(new, old, strict=True)]


def forget(past: Past, now: dt.datetime) -> None:
    """Drops what has been away for a day."""
    past.away = {key: away for key, away in past.away.items() if now - away.since < FORGET_AFTER}
    past.lost = {uuid: lost for uuid, lost in past.lost.items() if now - lost.since < FORGET_AFTER}
