"""A target's past as JSON and back, so that a restart neither loses a counter reset nor announces anything twice."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from services.collector.past import Away, Lost, Past, Spot, Xid
from services.contract.event import Status

_VERSION: Final = 1


class _Instance(msgspec.Struct, omit_defaults=True):
    uuid: str
    values: dict[str, int]
    instance_id: int | None = None
    away_since: dt.datetime | None = None


class _Lost(msgspec.Struct, array_like=True):
    hostname: str
    since: dt.datetime
    pci_bus_id: str | None = None
    seen: dt.datetime | None = None
    has_uuid: bool = True
    """Its name is its UUID."""


class _Xid(msgspec.Struct, omit_defaults=True):
    gpu: str
    """UUID, or what stands in its place."""
    code: int
    count: int
    seen: dt.datetime
    last: dt.datetime | None = None
    instance_id: int | None = None


class _State(msgspec.Struct, omit_defaults=True):
    version: int
    time: dt.datetime | None = None
    instances: list[_Instance] = []
    hosts: dict[str, str] = {}
    addresses: dict[str, str] = {}
    """PCI addresses of `hosts`, where they are known."""
    lost: dict[str, _Lost] = {}
    xids: list[_Xid] = []
    reads: float | None = None
    status: Status | None = None


def dump(past: Past) -> dict[str, Any]:
    """`past` as an object of JSON's types."""
    instances = [
        _Instance(uuid, {name: column[row] for name, column in past.columns.items() if column[row] is not None}, number)
        for row, (uuid, number) in enumerate(past.keys)
    ]
    instances += [_Instance(uuid, a.values, number, a.since) for (uuid, number), a in past.away.items()]
    known = _State(
        version=_VERSION,
        time=past.time,
        instances=instances,
        hosts={uuid: spot.hostname for uuid, spot in past.spots.items()},
        addresses={uuid: spot.pci_bus_id for uuid, spot in past.spots.items() if spot.pci_bus_id is not None},
        lost={
            name: _Lost(item.spot.hostname, item.since, item.spot.pci_bus_id, item.seen, item.uuid is not None)
            for name, item in past.lost.items()
        },
        xids=[
            _Xid(gpu, code, xid.count, xid.seen, xid.last, instance) for (gpu, instance, code), xid in past.xids.items()
        ],
        reads=past.reads,
        status=past.status,
    )
    state: dict[str, Any] = msgspec.to_builtins(known, str_keys=True)
    return state


def load(state: Mapping[str, Any]) -> Past:
    """The inverse of `dump`. Raises ValueError for what this version did not write."""
    try:
        known = msgspec.convert(state, _State)
    except msgspec.ValidationError as error:
        raise ValueError(f"not a collector checkpoint: {error}") from None
    if known.version != _VERSION:
        raise ValueError(f"collector checkpoint of version {known.version}; this release reads version {_VERSION}")
    here = [item for item in known.instances if item.away_since is None]
    names = {name for item in here for name in item.values}
    return Past(
        time=known.time,
        keys=[(item.uuid, item.instance_id) for item in here],
        columns={name: [item.values.get(name) for item in here] for name in names},
        away={
            (item.uuid, item.instance_id): Away(item.away_since, item.values)
            for item in known.instances
            if item.away_since is not None
        },
        spots={uuid: Spot(hostname, known.addresses.get(uuid)) for uuid, hostname in known.hosts.items()},
        lost={
            name: Lost(Spot(o.hostname, o.pci_bus_id), o.since, name if o.has_uuid else None, o.seen or o.since)
            for name, o in known.lost.items()
        },
        xids={(o.gpu, o.instance_id, o.code): Xid(o.count, o.last, o.seen) for o in known.xids},
        reads=known.reads,
        status=known.status,
    )
