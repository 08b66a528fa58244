"""Thirty days of three hosts from the mock, in the real schema, and the same rows in Python to compute with.

- `attic-01`: two P40 (no profiling, no energy, no NVLink, pages that retire), whose operator tags what the host does;
- `train-00`: four A100, one of them in MIG instances; power cap, heat, XIDs, counter restarts, lost GPUs;
- `desk-00`: a T4 with ECC switched off, whose exporter was away for a while and is again. No cluster, no rack.

The mock's minutes are laid an hour apart in the first four weeks, ten minutes apart on the last days, and are what they
are in the last six hours: enough for every range, quick to make.
"""

from __future__ import annotations

import datetime as dt
import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mock_dcgm.exposition import OPT_IN
from mock_dcgm.faults import FaultSpec, Kind
from mock_dcgm.fleet import FleetSpec, GpuSpec, HostSpec, build
from mock_dcgm.layout import Entity
from mock_dcgm.simulator import Simulator, Snapshot
from services.contract.catalogue import COUNTERS, METRICS, SAMPLED
from services.store.connect import Connection
from tests.support.database import insert, refresh, register

SECOND, MINUTE, HOUR, DAY = (dt.timedelta(seconds=n) for n in (1, 60, 3600, 86400))
P40_HOST, A100_HOST, T4_HOST = "attic-01", "train-00", "desk-00"
SPAN = 30 * DAY
EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
"""Buckets are counted from here."""
RETENTION = 7 * DAY
"""Rows older than this are dropped after the aggregates have them, as the policy does."""
FLEET = FleetSpec(
    seed=11,
    hosts=(
        HostSpec(P40_HOST, (GpuSpec("P40", 2, "cycle"),)),
        HostSpec(
            A100_HOST,
            (
                GpuSpec("A100", 3, "training", (), "llm-{gpu}", "research", "train"),
                GpuSpec("A100", 1, "inference", ("3g.40gb", "2g.20gb")),
            ),
        ),
        HostSpec(T4_HOST, (GpuSpec("T4", 1, "bursty"),)),
    ),
)
PLACES: dict[str, dict[str, str]] = {
    P40_HOST: {"cluster": "attic", "datacenter": "home", "rack": "r1"},
    A100_HOST: {"cluster": "east", "datacenter": "dc1", "rack": "r7"},
    T4_HOST: {},
}
ECC = frozenset(m.column for m in METRICS if m.column.startswith(("ecc_", "retired_")))
STATUS = (
    (SPAN + DAY, "idle", None),
    (20 * DAY, "prod", "normal usage"),
    (33 * HOUR, "idle", None),
    (5 * HOUR, "bench", "gpu-burn fan=100%"),
    (4 * HOUR, "idle", "cooldown"),
    (3 * HOUR, "bench", "gpu-burn fan=25%"),
    (2 * HOUR, "prod", "normal usage"),
    (12 * MINUTE, "bench", "it's quick; drop table"),
    (6 * MINUTE, "idle", None),
)
"""How long before the end, tag, memo, at the P40s' host. One memo has a quote in it."""
AWAY = (5 * HOUR, 4 * HOUR + 30 * MINUTE)
GONE = 7 * MINUTE
"""How long before the end the T4's exporter did not answer, and since when it does not."""
FAULTS: tuple[tuple[dt.timedelta, dict[str, Any]], ...] = (
    (5 * HOUR, {"kind": Kind.FAN_FAILURE, "host": A100_HOST, "gpu": 0, "duration": 3600.0, "value": 4.0}),
    (4 * HOUR, {"kind": Kind.STUCK_POWER_CAP, "host": A100_HOST, "gpu": 1, "value": 200.0}),
    (3 * HOUR, {"kind": Kind.ECC_STORM, "host": A100_HOST, "gpu": 1, "value": 1.0}),
    (2 * HOUR, {"kind": Kind.DBE, "host": A100_HOST, "gpu": 0}),
    (90 * MINUTE, {"kind": Kind.NVLINK_ERRORS, "host": A100_HOST, "gpu": 1, "value": 2.0}),
    (70 * MINUTE, {"kind": Kind.XID, "host": P40_HOST, "gpu": 1, "value": 79}),
    (50 * MINUTE, {"kind": Kind.COUNTER_RESET, "host": A100_HOST, "gpu": 0}),
    (14 * MINUTE, {"kind": Kind.GPU_LOST, "host": A100_HOST, "gpu": 2, "duration": 180.0}),
    (9 * MINUTE, {"kind": Kind.GPU_LOST, "host": A100_HOST, "gpu": 2}),
    (8 * MINUTE, {"kind": Kind.XID, "host": A100_HOST, "gpu": 0, "value": 31}),
)

Row = dict[str, Any]
Key = tuple[str, int | None]


@dataclass
class Dataset:
    """What was written. `rows` are those of gpu_metrics, also those dropped since, with `host` and `model` added."""

    end: dt.datetime
    rows: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    gpu_ids: dict[Key, int] = field(default_factory=dict)

    def between(self, start: dt.datetime, end: dt.datetime, host: str | None = None) -> list[Row]:
        return [r for r in self.rows if start <= r["time"] <= end and host in (None, r["host"])]


def begin_of(time: dt.datetime, width: dt.timedelta) -> dt.datetime:
    """Begin of the bucket of so many seconds."""
    return EPOCH + (time - EPOCH) // width * width


def a100(index: int) -> Key:
    """A GPU of the A100's host."""
    host = next(h for h in build(FLEET).hosts if h.name == A100_HOST)
    return (host.gpus[index].uuid, None)


def fill(connection: Connection, end: dt.datetime) -> Dataset:
    """Thirty days up to `end` (whole ten seconds, no later than now)."""
    data = Dataset(end)
    simulator = Simulator(build(FLEET), start=(end - SPAN).timestamp())
    schedule = list(_schedule(end))
    for before, fault in FAULTS:
        start = next(elapsed for time, elapsed in schedule if time >= end - before)
        simulator.faults.add(FaultSpec(**fault, start=start), 0.0)
    _register(connection, simulator, data)
    _simulate(simulator, schedule, data)
    _write(connection, data)
    return data


def _schedule(end: dt.datetime) -> Iterator[tuple[dt.datetime, float]]:
    """Time of each scrape and the mock's seconds until then."""
    elapsed, time = 0.0, end - SPAN
    for until, step, seconds in (
        (2 * DAY, HOUR, 10.0),
        (6 * HOUR, 10 * MINUTE, 10.0),
        (30 * MINUTE, MINUTE, 60.0),
        (dt.timedelta(), 10 * SECOND, 10.0),
    ):
        while time < end - until:
            time += step
            elapsed += seconds
            yield time, elapsed


def _register(connection: Connection, simulator: Simulator, data: Dataset) -> None:
    for number, entity in enumerate(simulator.layout.entities):
        missing = {m.column: "unsupported" for m in SAMPLED if not _has(simulator, number, entity, m.column)}
        properties = {
            m.column: simulator.snapshot.columns[m.column][number].item()
            for m in METRICS
            if m not in SAMPLED and m.column in simulator.snapshot.columns and simulator.present[m.column][number]
        }
        key = (entity.gpu.uuid, entity.instance.id if entity.instance else None)
        data.gpu_ids[key] = register(
            connection,
            data.end - SPAN,
            uuid=key[0],
            instance_id=key[1],
            instance_profile=entity.instance and entity.instance.profile,
            hostname=entity.host.name,
            index=entity.gpu.index,
            device=f"nvidia{entity.gpu.index}",
            model=entity.gpu.model.name,
            pci_bus_id=entity.gpu.pci_bus_id,
            driver_version=entity.host.driver,
            missing=missing,
            properties=properties,
            **PLACES[entity.host.name],
        )


def _has(simulator: Simulator, number: int, entity: Entity, column: str) -> bool:
    if column not in simulator.snapshot.columns or (column in OPT_IN and entity.host.name != A100_HOST):
        return False
    return bool(simulator.present[column][number]) and not (entity.host.name == T4_HOST and column in ECC)


def _simulate(simulator: Simulator, schedule: list[tuple[dt.datetime, float]], data: Dataset) -> None:
    entities = simulator.layout.entities
    has = [[m.column for m in SAMPLED if _has(simulator, n, e, m.column)] for n, e in enumerate(entities)]
    last: dict[Key, Row] = {}
    lost: set[Key] = set()
    for time, elapsed in schedule:
        snapshot = simulator.step(elapsed - simulator.elapsed)
        columns = {name: values.tolist() for name, values in snapshot.columns.items()}
        for number, entity in enumerate(entities):
            if entity.host.name == T4_HOST and _away(data.end - time):
                continue
            key = (entity.gpu.uuid, entity.instance.id if entity.instance else None)
            if not _presence(snapshot, number, key, (time, entity), (lost, data)):
                continue
            row = _row(time, entity, {name: columns[name][number] for name in has[number]}, data.gpu_ids[key])
            _compare(row, last.get(key), key, data)
            last[key] = row
            data.rows.append(row)
    _host_events(data)


def _away(before: dt.timedelta) -> bool:
    return AWAY[1] < before <= AWAY[0] or before <= GONE


def _presence(
    snapshot: Snapshot, number: int, key: Key, where: tuple[dt.datetime, Entity], state: tuple[set[Key], Dataset]
) -> bool:
    """Whether the GPU is there; notes when it goes and comes."""
    (time, entity), (lost, data) = where, state
    alive = bool(snapshot.alive[number])
    if alive != (key in lost) or key[1] is not None:
        return alive
    (lost.discard if alive else lost.add)(key)
    detail = {"lost_at": time.isoformat()} if alive else {"last_seen": time.isoformat(), "reason": "gone"}
    data.events.append(_event(time, "gpu_returned" if alive else "gpu_lost", entity.host.name, key, detail=detail))
    return alive


def status_at(end: dt.datetime, time: dt.datetime) -> tuple[str, str | None]:
    """What the operator of the P40s' host said then."""
    starts = [end - before for before, _, _ in STATUS]
    _, tag, memo = STATUS[bisect_right(starts, time) - 1]
    return tag, memo


def _row(time: dt.datetime, entity: Entity, values: Row, gpu_id: int) -> Row:
    tenant = {"pod": entity.gpu.pod, "namespace": entity.gpu.namespace, "container": entity.gpu.container}
    return {
        "time": time,
        "gpu_id": gpu_id,
        **values,
        **tenant,
        "host": entity.host.name,
        "model": entity.gpu.model.name,
    }


def _compare(row: Row, before: Row | None, key: Key, data: Dataset) -> None:
    """Tags, restarts of counters, new XIDs: as the collector finds them."""
    if row["host"] == P40_HOST:
        row["status_tag"], row["status_memo"] = status_at(data.end, row["time"])
    if before is None:
        return
    resets = {
        m.column: before[m.column]
        for m in COUNTERS
        if m.column in row and m.column in before and row[m.column] < before[m.column]
    }
    if resets:
        row["counter_resets"] = resets
        told = {name: {"from": value, "to": row[name]} for name, value in resets.items()}
        data.events.append(_event(row["time"], "counter_reset", row["host"], key, detail=told))
    xid = row.get("xid_errors", 0)
    if xid and xid != before.get("xid_errors", 0):
        detail = {
            "meaning": f"XID {xid}",
            "severity": "critical",
            "immediate": "RESET_GPU",
            "immediate_action": "reset",
        }
        data.events.append(_event(row["time"], "xid", row["host"], key, detail=detail, code=xid))


def _host_events(data: Dataset) -> None:
    for before, tag, memo in STATUS:
        if before <= SPAN:
            data.events.append(_event(data.end - before, "status", P40_HOST, None, detail={"tag": tag, "memo": memo}))
    for before, kind in zip((*AWAY, GONE), ("target_down", "target_up", "target_down"), strict=True):
        detail = {"reason": "refused", "detail": "connection refused"} if kind == "target_down" else None
        data.events.append(_event(data.end - before, kind, T4_HOST, None, detail=detail))


def _event(time: dt.datetime, kind: str, host: str, key: Key | None, *, detail: Any, code: int = 0) -> Row:
    return {"time": time, "kind": kind, "hostname": host, "key": key, "code": code, "detail": detail}


def _write(connection: Connection, data: Dataset) -> None:
    """Old rows in long chunks: what is dropped at the end need not be many files."""
    recent = data.end - 6 * HOUR
    plain = [{k: v for k, v in row.items() if k not in ("host", "model")} for row in data.rows]
    insert(connection, (row for row in plain if row["time"] >= recent))
    connection.execute("SELECT set_chunk_time_interval('gpu_metrics', INTERVAL '2 days')")
    insert(connection, (row for row in plain if row["time"] < recent))
    connection.execute("SELECT set_chunk_time_interval('gpu_metrics', INTERVAL '30 minutes')")
    for event in data.events:
        _write_event(connection, event, data)
    connection.execute("SELECT refresh_gpu_latest()")
    refresh(connection)
    connection.execute("SELECT drop_chunks('gpu_metrics', older_than => %s::timestamptz)", (data.end - RETENTION,))
    connection.execute(
        "SELECT compress_chunk(c, true) FROM show_chunks('gpu_metrics', older_than => %s::timestamptz) c",
        (data.end - 90 * MINUTE,),
    )
    connection.execute("ANALYZE")


def _write_event(connection: Connection, event: Row, data: Dataset) -> None:
    key: Key | None = event["key"]
    tag, memo = status_at(data.end, event["time"]) if event["hostname"] == P40_HOST else (None, None)
    connection.execute(
        "INSERT INTO gpu_events (time, kind, gpu_id, gpu_uuid, instance_id, hostname, source, code, detail, "
        "status_tag, status_memo) VALUES (%s, %s, %s, %s, %s, %s, 'mock', %s, %s::jsonb, %s, %s)",
        (
            event["time"],
            event["kind"],
            data.gpu_ids[key] if key else None,
            *(key or (None, None)),
            event["hostname"],
            event["code"],
            json.dumps(event["detail"]) if event["detail"] else None,
            tag,
            memo,
        ),
    )
