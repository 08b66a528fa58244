"""The detector: the last scrape and this one -> counter resets and what happened to GPUs.

A counter that is lower than before has started again, however small the step back (ADR on counter resets). The
increase over any window is `last - first + sum(resets)`: right for a restart; a wobble is counted as one and is visible
as an event.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator
from operator import lt
from typing import Final

from services.collector import xids
from services.collector.assemble import Column, Roster, Table
from services.collector.own import Own
from services.collector.past import Away, Moment, Past
from services.collector.presence import presence
from services.contract.catalogue import COUNTERS
from services.contract.event import GpuEvent, Happening

_COUNTERS: Final = tuple(m.column for m in COUNTERS)

Resets = dict[int, dict[str, int]]
"""Row -> counter column -> value it had reached."""


def advance(past: Past, table: Table, own: Own, moment: Moment) -> tuple[Resets, list[GpuEvent]]:
    """Compares a scrape with the past, then makes it the past."""
    roster = table.roster
    happenings = presence(past, roster, own.lost, moment)
    if past.roster is not roster:
        _align(past, roster, moment.time)
    happenings += _status_events(past, moment)
    resets = find_resets(table.columns, past.columns)
    happenings += _reset_events(table, resets, moment)
    happenings += xids.xid_events(past, table, own, moment)
    _remember(past, table.columns)
    past.time, past.status = moment.time, moment.status
    return resets, happenings


def _status_events(past: Past, moment: Moment) -> list[GpuEvent]:
    """One a host."""
    status = moment.status
    if past.time is None or status == past.status:
        return []
    detail = {"tag": status and status.tag, "memo": status and status.memo}
    hosts = sorted({spot.hostname for spot in past.spots.values()})
    return [moment.event(Happening.STATUS, hostname=host, detail=detail) for host in hosts]


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
        yield moment.event(
            Happening.COUNTER_RESET, hostname=table.roster.gpus[row].hostname, key=table.roster.keys[row], detail=detail
        )


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
    told = _filled(now.get(xids.COLUMN, nothing), past.columns.get(xids.COLUMN, nothing))
    past.columns[xids.COLUMN] = _filled(told, [0] * len(told))


def _filled(new: Column, old: Column) -> Column:
    if None not in new:
        return new
    return [last if value is None else value for value, last in zip(new, old, strict=True)]
