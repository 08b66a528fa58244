"""The samples of a run on this host, once it is over: from the database, from the spool, or those read on the way."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg

from services.collector import segment, spool_files
from services.contract.event import Event
from services.host.energy import COVERED
from services.host.series import Sample, Series, gaps, order
from services.settings import Settings, hostname
from services.store.connect import StoreError, connect, one_line

log = logging.getLogger("host.telemetry")

COLUMNS: Final = ("gpu_temp", "power_usage", "clocks_event_reasons", "total_energy_consumption", "sm_clock")
"""Columns of the catalogue, in the order of the fields of `Sample` behind its time."""


@dataclass(frozen=True, slots=True)
class Gpu:
    uuid: str
    index: int | None = None
    model: str | None = None
    hostname: str | None = None


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Samples by GPU UUID."""

    origin: str
    """`database`, `spool` or `live readings`."""
    gpus: Mapping[str, Gpu] = field(default_factory=dict)
    series: Mapping[str, Series] = field(default_factory=dict)
    problem: str | None = None
    """Why there is nothing, in one line."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which samples: of these GPUs where they are known, else of the GPUs of these hosts."""

    begin: float
    """Seconds since the epoch."""
    end: float
    hostnames: tuple[str, ...]
    uuids: tuple[str, ...] = ()


def own_hostnames(settings: Settings) -> tuple[str, ...]:
    """What samples of this host may be called: its name, the short form of it, and NODE_NAME."""
    names = [settings.node_name, hostname(), hostname().split(".")[0]]
    return tuple(dict.fromkeys(name for name in names if name))


def sample(time: float, values: Mapping[str, Any]) -> Sample:
    """From catalogue columns."""
    return Sample(time, *(values.get(column) for column in COLUMNS))


# The database -----------------------------------------------------------------------------------------------------

_QUERY: Final = f"""
    SELECT DISTINCT ON (gpu_uuid, time) gpu_uuid, gpu_index, model, hostname, time, {", ".join(COLUMNS)}
    FROM v_gpu_metrics
    WHERE time BETWEEN %(begin)s AND %(end)s AND (gpu_uuid = ANY(%(uuids)s) OR (%(all)s AND hostname = ANY(%(hosts)s)))
    ORDER BY gpu_uuid, time, instance_id NULLS FIRST
""".encode()  # noqa: S608 - the columns are ours. A GPU cut into MIG instances may have rows of those only


def from_database(settings: Settings, wanted: Wanted) -> Telemetry:
    """Where the database cannot be asked, `problem` says why."""
    parameters = {
        "begin": _utc(wanted.begin),
        "end": _utc(wanted.end),
        "uuids": list(wanted.uuids),
        "all": not wanted.uuids,
        "hosts": list(wanted.hostnames),
    }
    try:
        with connect(settings, "telemetry", autocommit=True) as connection:
            rows = connection.execute(_QUERY, parameters).fetchall()
    except StoreError as error:
        return Telemetry("database", problem=str(error))
    except psycopg.Error as error:
        return Telemetry("database", problem=f"the database does not answer the query: {one_line(error)}")
    found = ((Gpu(row[0], *row[1:4]), Sample(row[4].timestamp(), *row[5:])) for row in rows)
    return _gathered("database", found, "the database has no sample of this host in that time")


def _utc(time: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(time, dt.UTC)


# The spool --------------------------------------------------------------------------------------------------------

_decode: Final = msgspec.json.Decoder(Event).decode


def from_spool(directory: Path, topic: str, wanted: Wanted) -> Telemetry:
    """What the collector could not send yet. Looking changes nothing, also while a collector writes."""
    if not directory.is_dir():
        return Telemetry("spool", problem=f"SPOOL_DIR={directory} does not exist")
    try:
        paths = [found.path for found in spool_files.look(directory)[0]]
        found = [pair for path in paths for pair in _spooled(path.read_bytes(), topic, wanted)]
    except OSError as error:
        return Telemetry("spool", problem=f"SPOOL_DIR={directory}: {error.strerror}")
    found.sort(key=lambda pair: pair[2])
    return _gathered("spool", ((gpu, s) for gpu, s, _ in found), "the spool has no sample of this host in that time")


def _spooled(data: bytes, topic: str, wanted: Wanted) -> Iterable[tuple[Gpu, Sample, int]]:
    """With the MIG instance (-1: the whole GPU, which goes first)."""
    for offset in segment.scan(data).offsets:
        at = segment.frame_at(data, offset)
        # A record is spooled after its sample was taken: an older one cannot hold a sample of the run.
        if at is None or at[0].topic != topic or at[0].time < wanted.begin * 1000:
            continue
        try:
            event = _decode(at[0].value)
        except msgspec.MsgspecError:
            continue  # the sink will judge it
        if wanted.begin <= event.time.timestamp() <= wanted.end and _is_wanted(event, wanted):
            gpu, instance = of_event(event), event.gpu.instance_id
            yield *gpu, -1 if instance is None else instance


def _is_wanted(event: Event, wanted: Wanted) -> bool:
    return event.gpu.uuid in wanted.uuids if wanted.uuids else event.gpu.hostname in wanted.hostnames


def of_event(event: Event) -> tuple[Gpu, Sample]:
    values = {column: getattr(event.metrics, column) for column in COLUMNS}
    gpu = Gpu(event.gpu.uuid, event.gpu.index, event.gpu.model, event.gpu.hostname)
    return gpu, sample(event.time.timestamp(), values)


# Choosing ---------------------------------------------------------------------------------------------------------


def _gathered(origin: str, found: Iterable[tuple[Gpu, Sample]], nothing: str) -> Telemetry:
    gpus: dict[str, Gpu] = {}
    series: dict[str, list[Sample]] = {}
    for gpu, one in found:
        gpus[gpu.uuid] = gpu
        series.setdefault(gpu.uuid, []).append(one)
    ordered = {uuid: order(samples) for uuid, samples in series.items()}
    return Telemetry(origin, gpus, ordered, None if gpus else nothing)


def coverage(telemetry: Telemetry, begin: float, end: float) -> float:
    """Part of [begin, end] that samples speak for, of the GPU with the least; 0 where there is none."""
    if not telemetry.series or end <= begin:
        return 0.0
    holes = (sum(b - a for a, b in gaps([s.time for s in one], begin, end)) for one in telemetry.series.values())
    return 1 - max(holes) / (end - begin)


def best(sources: Iterable[Callable[[], Telemetry]], begin: float, end: float) -> tuple[Telemetry | None, list[str]]:
    """The first source whose samples cover [begin, end], else the one that covers most; and why the others were passed
    over. Sources behind the one taken are not asked."""
    notes: list[str] = []
    taken, most = None, 0.0
    for source in sources:
        telemetry = source()
        covered = coverage(telemetry, begin, end)
        if covered >= COVERED:
            return telemetry, notes
        notes.append(telemetry.problem or f"{telemetry.origin}: samples cover {covered:.0%} of the load")
        if covered > most:
            taken, most = telemetry, covered
    return taken, notes
