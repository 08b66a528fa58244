"""A target's past as JSON and back, so that a restart neither loses a counter reset nor announces anything twice."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from services.collector.detect import Away, Lost, Past
from services.contract.event import Status

_VERSION: Final = 1


class _Instance(msgspec.Struct, omit_defaults=True):
    uuid: str
    values: dict[str, int]
    instance_id: int | None = None
    away_since: dt.datetime | None = None


class _State(msgspec.Struct, omit_defaults=True):
    version: int
    time: dt.datetime | None = None
    instances: list[_Instance] = []
    hosts: dict[str, str] = {}
    lost: dict[str, tuple[str, dt.datetime]] = {}
    status: Status | None = None


def dump(past: Past) -> dict[str, Any]:
    """`past` as an object of JSON's types."""
    instances = [
        _Instance(uuid, {name: column[row] for name, column in past.columns.items() if column[row] is not None}, number)
        for row, (uuid, number) in enumerate(past.keys)
    ]
    instances += [_Instance(uuid, a.values, number, a.since) for (uuid, number), a in past.away.items()]
    lost = {uuid: (item.hostname, item.since) for uuid, item in past.lost.items()}
    state: dict[str, Any] = msgspec.to_builtins(
        _State(_VERSION, past.time, instances, past.hosts, lost, past.status), str_keys=True
    )
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
        hosts=known.hosts,
        lost={uuid: Lost(hostname, since) for uuid, (hostname, since) in known.lost.items()},
        status=known.status,
    )
