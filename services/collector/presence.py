"""Lost and returned GPUs: seen by their absence, or told by our own exporter.

A MIG instance that is gone while its GPU is there was reconfigured, not lost. A GPU that the exporter says is lost is
reported once, also where it was lost before the first scrape, or where the driver could not tell its UUID.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from services.collector.assemble import Roster
from services.collector.own import LostGpu
from services.collector.past import Lost, Moment, Past, Spot, iso
from services.contract.event import GpuEvent, Happening


def presence(past: Past, roster: Roster, told: Mapping[str, LostGpu], moment: Moment) -> list[GpuEvent]:
    """`told`: what the exporter says is lost, by name."""
    moved = past.roster is not roster
    if not moved and not told:
        return []
    spots = _spots(roster) if moved else past.spots
    taken = set(spots.values())
    told = {name: gpu for name, gpu in told.items() if not _is_there(gpu, spots, taken, moment.hostname)}
    happenings = [*_lost(past, spots, told, moment), *_told(past, told, moment)]
    happenings += _returned(past, spots, moment) if moved else []
    past.spots = spots
    return sorted(happenings, key=lambda e: (e.kind, e.gpu_uuid or "", e.time))


def _spots(roster: Roster) -> dict[str, Spot]:
    return {uuid: Spot(g.hostname, g.pci_bus_id) for (uuid, _), g in zip(roster.keys, roster.gpus, strict=True)}


def _spot(gpu: LostGpu, hostname: str) -> Spot:
    return Spot(gpu.hostname or hostname, gpu.pci_bus_id)


def _is_there(gpu: LostGpu, spots: Mapping[str, Spot], taken: set[Spot], hostname: str) -> bool:
    """Whether it has series of its own after all: those win."""
    if gpu.uuid is not None:
        return gpu.uuid in spots
    return gpu.pci_bus_id is not None and _spot(gpu, hostname) in taken


def _lost(past: Past, spots: Mapping[str, Spot], told: Mapping[str, LostGpu], moment: Moment) -> list[GpuEvent]:
    """GPUs that the last scrape had."""
    happenings = []
    at: dict[str, list[LostGpu]] = {}
    for gone in told.values():
        if gone.pci_bus_id is not None:
            at.setdefault(gone.pci_bus_id, []).append(gone)
    for uuid in past.spots.keys() - spots.keys():
        spot = past.spots[uuid]
        past.lost[uuid] = Lost(spot, moment.time, uuid, moment.time)
        there = () if spot.pci_bus_id is None else at.get(spot.pci_bus_id, ())
        gpu = told.get(uuid) or next((g for g in there if spot.is_at(_spot(g, spot.hostname))), None)
        detail = {"last_seen": iso(past.time)}
        if gpu is not None and gpu.reason is not None:
            detail["reason"] = gpu.reason
        event = moment.event(Happening.GPU_LOST, hostname=spot.hostname, key=(uuid, None), detail=detail)
        happenings.append(event)
    return happenings


def _told(past: Past, told: Mapping[str, LostGpu], moment: Moment) -> list[GpuEvent]:
    """GPUs that were lost before anybody saw them."""
    happenings: list[GpuEvent] = []
    at = {lost.spot: lost for lost in reversed(past.lost.values())}  # of several, the one that was lost first
    for name, gpu in told.items():
        spot = _spot(gpu, moment.hostname)
        known = past.lost.get(name) or (at.get(spot) if spot.pci_bus_id is not None else None)
        if known is not None:
            known.seen = moment.time
            continue
        past.lost[name] = at[spot] = Lost(spot, moment.time, gpu.uuid, moment.time)
        said = {"reason": gpu.reason, "pci_bus_id": gpu.pci_bus_id, "index": gpu.index, "model": gpu.model}
        # The time is part of an event's identity: two GPUs without UUID need two, a microsecond apart.
        later = dt.timedelta(microseconds=0 if gpu.uuid else len(happenings))
        happenings.append(
            moment.event(
                Happening.GPU_LOST,
                hostname=spot.hostname,
                key=(gpu.uuid, None) if gpu.uuid else None,
                time=moment.time + later,
                detail={name: value for name, value in said.items() if value is not None},
            )
        )
    return happenings


def _returned(past: Past, spots: Mapping[str, Spot], moment: Moment) -> list[GpuEvent]:
    happenings = []
    at = {spot: uuid for uuid, spot in spots.items() if spot.pci_bus_id is not None}
    for name, lost in list(past.lost.items()):
        uuid = name if name in spots else None if lost.uuid else at.get(lost.spot)
        if uuid is None:
            continue
        del past.lost[name]
        detail = {"lost_at": iso(lost.since)}
        host = spots[uuid].hostname
        happenings.append(moment.event(Happening.GPU_RETURNED, hostname=host, key=(uuid, None), detail=detail))
    return happenings
