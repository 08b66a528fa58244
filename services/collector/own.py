"""The series of `gpumon exporter` itself: what the collector learns from them beside DCGM's.

Pure. Other exporters have none of them, and cost nothing here. Series of ours that are not named in `TAKEN` (processes,
the exporter's own state, the second name space) are counted as not about a GPU and left out: one that changes with
every process would make `extra` grow with every sample.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Final

from services.collector.enrich import Key, Meaning
from services.collector.series import Group
from services.contract.catalogue import BY_DCGM_NAME
from services.contract.sentinels import Missing
from services.exporter import own_series as exporter

GPU_INFO: Final = exporter.GPU_INFO.name
FIELD_MISSING: Final = exporter.FIELD_MISSING.name
GPU_LOST: Final = exporter.GPU_LOST.name
XID_ERRORS: Final = exporter.XID_ERRORS.name
XID_LAST: Final = exporter.XID_LAST.name
SNAPSHOT: Final = exporter.SNAPSHOT.name
UP: Final = exporter.UP.name
READS: Final = exporter.READS.name
TAKEN: Final = frozenset({GPU_INFO, FIELD_MISSING, GPU_LOST, XID_ERRORS, XID_LAST, SNAPSHOT, UP, READS})

Series = tuple[str, Group, list[float | str]]
"""Name, label sets, and a value for each."""
XidKey = tuple[str, int | None, int]
"""Whose XID (see `name_of`), the MIG instance, and the XID."""

MOST: Final = 10_000
"""Series of one name, of those that become events, that are taken from one scrape. A host with 16 GPUs of 7 instances
and twenty different XIDs each has 2,240; ten times as many as a target can have would be one batch of all of them."""
_BOUNDED: Final = (XID_ERRORS, XID_LAST, GPU_LOST)
_TEXT_MAX: Final = 1024
"""Characters of a text in an event's detail; longer ones are cut."""
_CODE_MAX: Final = 2**31 - 1
_COUNT_MAX: Final = 2**53
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_SECONDS_MAX: Final = 253_402_300_799
"""The end of the year 9999."""
_REASONS: Final = frozenset(Missing) - {Missing.NOT_EXPOSED}


@dataclass(frozen=True, slots=True)
class LostGpu:
    """A GPU that the exporter says is lost."""

    name: str
    """See `name_of`."""
    uuid: str | None
    hostname: str | None
    reason: str | None
    pci_bus_id: str | None
    index: int | None
    model: str | None


@dataclass(frozen=True, slots=True)
class XidCount:
    """An XID counter of the exporter."""

    count: int
    uuid: str | None
    hostname: str | None
    pci_bus_id: str | None = None
    """All there is where the GPU could never be read: the kernel log has no UUIDs."""
    last: dt.datetime | None = None
    """When it occurred last, by the exporter's clock, milliseconds."""
    process: Mapping[str, Any] = field(default_factory=dict)
    """`pid`, `process`, `origin` of the last occurrence, as far as they are told."""


@dataclass(frozen=True, slots=True)
class Own:
    """What a scrape's own series say, label-only ones (see `Roster`) apart."""

    lost: Mapping[str, LostGpu] = field(default_factory=dict)
    """By name."""
    xids: Mapping[XidKey, XidCount] = field(default_factory=dict)
    snapshot: float | None = None
    """Changes whenever a document of `/snapshot` does."""
    up: bool | None = None
    """Whether the exporter's reading is fresh (it says 1, and nothing else); None: not our exporter."""
    reads: float | None = None
    """Readings since its start: fewer than before means that it has started again."""
    cut: int = 0
    """Series beyond `MOST`, which were left out."""


NOTHING: Final = Own()


def read_own(series: list[Series]) -> Own:
    """The own series of a scrape."""
    if not series:
        return NOTHING
    ups = _values(series, UP)
    return Own(
        lost={gpu.name: gpu for gpu in map(_lost, _told(series, GPU_LOST))},
        xids=_xids(series),
        snapshot=_single(series, SNAPSHOT),
        up=all(up == 1 for up in ups) if ups else None,
        reads=_single(series, READS),
        cut=sum(max(0, len(_values(series, name)) - MOST) for name in _BOUNDED),
    )


def name_of(uuid: str | None, hostname: str | None, pci_bus_id: str | None, index: int | None = None) -> str:
    """The UUID, or what stands in its place where the driver could not tell it: host and PCI address, or index."""
    return uuid or f"{hostname or ''} {pci_bus_id or ('gpu ?' if index is None else f'gpu {index}')}"


def _single(series: list[Series], wanted: str) -> float | None:
    found = _values(series, wanted)
    return found[0] if found and isinstance(found[0], float) else None


def _values(series: list[Series], wanted: str) -> list[float | str]:
    """Numbers; NaN, Inf and what no double holds exactly as text."""
    return [value for name, _, values in series if name == wanted for value in values]


def _pairs(series: list[Series], wanted: str) -> Iterator[tuple[Meaning, float]]:
    """At most `MOST`."""
    runs = (zip(group.owners, values, strict=True) for name, group, values in series if name == wanted)
    for meaning, value in islice(chain.from_iterable(runs), MOST):
        if isinstance(value, float):
            yield meaning, value


def _told(series: list[Series], wanted: str) -> Iterator[Meaning]:
    return (meaning for meaning, value in _pairs(series, wanted) if value > 0)


def _lost(meaning: Meaning) -> LostGpu:
    said = meaning.identity
    uuid, index = meaning.key[0] if meaning.key else None, said.get("index")
    return LostGpu(
        name=name_of(uuid, said.get("hostname"), said.get("pci_bus_id"), index),
        uuid=uuid,
        hostname=said.get("hostname"),
        reason=_text(meaning, "reason"),
        pci_bus_id=said.get("pci_bus_id"),
        index=index,
        model=said.get("model"),
    )


def _xids(series: list[Series]) -> dict[XidKey, XidCount]:
    counts = {_xid_key(m): (m, value) for m, value in _pairs(series, XID_ERRORS)}
    lasts = {_xid_key(m): (m, value) for m, value in _pairs(series, XID_LAST)}
    found = {}
    for key, (meaning, count) in counts.items():
        if key is None or not 0 < count <= _COUNT_MAX:
            continue
        teller, when = lasts.get(key, (meaning, 0.0))
        found[key] = XidCount(
            count=int(count),
            uuid=meaning.key[0] if meaning.key else None,
            hostname=meaning.identity.get("hostname"),
            pci_bus_id=meaning.identity.get("pci_bus_id"),
            last=_moment(when),
            process=_process(teller),
        )
    return found


def _xid_key(meaning: Meaning) -> XidKey | None:
    code, said = _number(meaning, "xid"), meaning.identity
    uuid, instance = meaning.key or (None, said.get("instance_id"))
    if code is None or not (uuid or said.get("pci_bus_id")):
        return None
    return name_of(uuid, said.get("hostname"), said.get("pci_bus_id")), instance, code


def _process(meaning: Meaning) -> dict[str, Any]:
    told = {"pid": _number(meaning, "pid"), "process": _text(meaning, "process"), "origin": _text(meaning, "origin")}
    return {name: value for name, value in told.items() if value is not None}


def _number(meaning: Meaning, label: str) -> int | None:
    """A small whole number (XIDs, process ids); what is none is as good as not told."""
    text = meaning.labels.get(label, "")
    fits = len(text) <= len(str(_CODE_MAX)) and text.isascii() and text.isdigit()
    return int(text) if fits and int(text) <= _CODE_MAX else None


def _text(meaning: Meaning, label: str) -> str | None:
    text = meaning.labels.get(label)
    return None if text is None else text[:_TEXT_MAX]


def _moment(seconds: float) -> dt.datetime | None:
    """Unix seconds in whole milliseconds: the same text always gives the same time, which is part of an XID event's
    identity."""
    if not 0 < seconds < _SECONDS_MAX:
        return None
    return _EPOCH + dt.timedelta(milliseconds=round(seconds * 1000))


def reasons(groups: list[Group], row_of: Mapping[Key, int]) -> dict[int, dict[str, str]]:
    """Row -> column -> why it has no value, from the labels of `gpumon_field_missing`. A reason that this version does
    not know is left out: the column is then `not_exposed`, which is true."""
    found: dict[int, dict[str, str]] = {}
    for meaning in (owner for group in groups for owner in group.owners):
        row = None if meaning.key is None else row_of.get(meaning.key)
        metric = BY_DCGM_NAME.get(meaning.labels.get("field", ""))
        reason = meaning.labels.get("reason", "")
        if row is not None and metric is not None and reason in _REASONS:
            found.setdefault(row, {})[metric.column] = reason
    return found
