"""XIDs: every one that an exporter tells becomes an event, once.

dcgm-exporter tells the last XID as a gauge: a repeat of the same one cannot be seen. Our own exporter counts each XID
and says when it occurred last, so each increase is an event, with its count, at that time; the gauge of the same XID
then says nothing new.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any, Final

from services.collector.assemble import Column, Table
from services.collector.own import Own, XidCount, XidKey, name_of
from services.collector.past import Moment, Past, Spot, Xid, iso, newest
from services.contract import xid as catalogue
from services.contract.event import GpuEvent, Happening

COLUMN: Final = "xid_errors"
OLDEST: Final = dt.timedelta(days=5)
"""An XID that is told at first sight is believed to have happened when the exporter says, if that is not longer ago:
below the sink's default MAX_AGE of six days, so that none goes to the dead letters."""
AHEAD: Final = dt.timedelta(seconds=60)
"""The exporter's clock may be ahead of ours by this much: hosts that keep time by NTP are within a second."""
SAME: Final = dt.timedelta(seconds=5)
"""NVML and the kernel log tell the same occurrence within two seconds of one another; its time may move by so much."""


def xid_events(past: Past, table: Table, own: Own, moment: Moment) -> list[GpuEvent]:
    """What happened since the last scrape."""
    return [*counted(past, own, moment), *_last(past, table, own, moment)]


def _detail(code: int, message: str | None = None) -> dict[str, Any]:
    """What NVIDIA's catalogue says of an XID, what it is silent about left out."""
    info = catalogue.lookup(code, message)
    told = {
        "meaning": info.meaning,
        "severity": info.severity.value,
        "immediate": info.immediate,
        "immediate_action": info.immediate_action,
        "investigatory": info.investigatory,
        "investigatory_action": info.investigatory_action,
    }
    return {name: text for name, text in told.items() if text}


# Counters of our own exporter ----------------------------------------------------------------------------------------


def counted(past: Past, own: Own, moment: Moment) -> list[GpuEvent]:
    """Of a scrape, also of one that is refused because the exporter's reading is stale: the XID that says why the
    driver hangs is told while it hangs."""
    followed = past.reads is not None
    if own.reads is None:
        return []
    if past.reads is not None and own.reads < past.reads:
        for known in past.xids.values():
            known.count = 0  # the exporter has started again, and its counters with it
    past.reads = own.reads
    happenings = []
    standing = _standing(past) if any(now.uuid is None for now in own.xids.values()) else {}
    for (name, instance, code), now in own.xids.items():
        uuid = now.uuid or standing.get(Spot(now.hostname or moment.hostname, now.pci_bus_id))
        key = uuid or name, instance, code
        before = past.xids.get(key) or _told_without_uuid(past, now, instance, code)
        event = _increase(key, uuid, before, now, moment, followed=followed)
        last = now.last if before is None or before.last is None else max(before.last, now.last or before.last)
        past.xids[key] = Xid(now.count, last, moment.time)
        happenings += [] if event is None else [event]
    past.xids = newest(past.xids, lambda xid: xid.seen)
    return happenings


def _standing(past: Past) -> dict[Spot, str]:
    """UUID of the GPU that is or was at an address: the kernel log knows addresses only. Who is there comes first."""
    lost = ((lost.spot, lost.uuid) for lost in past.lost.values() if lost.uuid is not None)
    here = ((spot, uuid) for uuid, spot in past.spots.items())
    found: dict[Spot, str] = {}
    for spot, uuid in (*here, *lost):
        if spot.pci_bus_id is not None:
            found.setdefault(spot, uuid)
    return found


def _told_without_uuid(past: Past, now: XidCount, instance: int | None, code: int) -> Xid | None:
    """The counter as it was while the GPU could not be read."""
    return past.xids.pop((name_of(None, now.hostname, now.pci_bus_id), instance, code), None)


def _increase(
    key: XidKey, uuid: str | None, before: Xid | None, now: XidCount, moment: Moment, *, followed: bool
) -> GpuEvent | None:
    """`followed`: this exporter was scraped before, so what it did not tell then is new."""
    (_, instance, code), count = key, new_occurrences(before, now)
    believed = _believed(before, now, moment)
    if not count or (before is None and not followed and not believed):
        return None
    detail: dict[str, Any] = {"count": count, **now.process, **_detail(code)}
    if uuid is None:
        detail["pci_bus_id"] = now.pci_bus_id
    if not believed and now.last is not None:
        detail["told_time"] = iso(now.last)
    time = now.last if believed else None
    hostname = now.hostname or moment.hostname
    gpu = (uuid, instance) if uuid else None
    return moment.event(Happening.XID, hostname=hostname, key=gpu, time=time, code=code, detail=detail)


def new_occurrences(before: Xid | None, now: XidCount) -> int:
    """How often an XID occurred since the last scrape."""
    if before is None:
        return now.count
    later = now.last is not None and before.last is not None and now.last > before.last + SAME
    earlier = now.last is not None and before.last is not None and now.last <= before.last
    if now.count > before.count > 0:
        return now.count - before.count
    if now.count == before.count:
        return now.count if later else 0  # counted up to the same number again, after a start that nobody saw
    return 0 if earlier else now.count  # started again; what its kernel log still holds was told before


def _believed(before: Xid | None, now: XidCount, moment: Moment) -> bool:
    """Whether the event is to carry the exporter's time: not in the future, not for ever ago, not one used before."""
    if now.last is None or (before is not None and before.last is not None and now.last <= before.last):
        return False
    return moment.time - OLDEST <= now.last <= moment.time + AHEAD


# The gauge of the last XID ------------------------------------------------------------------------------------------


def _last(past: Past, table: Table, own: Own, moment: Moment) -> Iterator[GpuEvent]:
    """An XID that was not there before. On first sight of a GPU nobody knows when its XID happened: no event."""
    now, before = table.columns.get(COLUMN), past.columns.get(COLUMN)
    if now is None or before is None or now == before:
        return
    texts = _texts(table)
    already = {(name, code) for name, _, code in own.xids}
    for row, (xid, last) in enumerate(_pairs(now, before)):
        gpu = table.roster.keys[row]
        if xid and last is not None and xid != last and (gpu[0], xid) not in already:
            told = texts.get(row, {})
            detail = {"previous": last, **told, **_detail(xid, told.get("err_msg"))}
            hostname = table.roster.gpus[row].hostname
            yield moment.event(Happening.XID, hostname=hostname, key=gpu, code=xid, detail=detail)


def _pairs(now: Column, before: Column) -> Iterator[tuple[Any, Any]]:
    return zip(now, before, strict=True)


def _texts(table: Table) -> dict[int, dict[str, str]]:
    """Row -> `err_code` and `err_msg` of its XID series, where the exporter gives them."""
    texts: dict[int, dict[str, str]] = {}
    for group in table.roster.groups.known:
        for row, meaning in zip(table.roster.places(group)[0], group.owners, strict=True):
            if row is not None and meaning.error is not None:
                texts[row] = meaning.error
    return texts
