"""Documents: what the view of the host kit shows of them, and which are kept."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from services.store.connect import Connection
from tests.support.database import insert, register, rows_of, value_of

pytestmark = pytest.mark.timescale

HOUR = dt.timedelta(hours=1)


def keep(connection: Connection, time: dt.datetime, hash_: str, uuid: str | None = "GPU-1", host: str = "h") -> None:
    connection.execute(
        "INSERT INTO gpu_snapshots (hostname, gpu_uuid, kind, time, hash, content) "
        "VALUES (%s, %s, 'nvidia-smi', %s, %s, jsonb_build_object('said', %s::text))",
        (host, uuid, time, hash_, f"{hash_} at {time:%H:%M}"),
    )


def shown(connection: Connection) -> list[Any]:
    found = rows_of(connection, "SELECT raw_json ->> 'said' AS said FROM telemetry.gpu_telemetry ORDER BY ts")
    return [row["said"] for row in found]


def test_a_sample_shows_the_newest_document_before_it(connection: Connection, now: dt.datetime) -> None:
    start = now.replace(minute=0, second=0, microsecond=0) - 5 * HOUR
    gpu = register(connection, start, uuid="GPU-1", hostname="h")
    instance = register(connection, start, uuid="GPU-1", hostname="h", instance_id=3)
    for hours in range(5):
        insert(connection, [{"time": start + hours * HOUR, "gpu_id": gpu, "gpu_temp": hours}])
    insert(connection, [{"time": start + 5 * HOUR, "gpu_id": instance}])
    keep(connection, start + HOUR, "a")
    keep(connection, start + 3 * HOUR, "b")
    keep(connection, start + 2 * HOUR, "other GPU", uuid="GPU-2")
    keep(connection, start + 2 * HOUR, "other host", host="elsewhere")
    first, second = f"a at {start + HOUR:%H:%M}", f"b at {start + 3 * HOUR:%H:%M}"
    assert shown(connection) == [None, first, first, second, second, second], "the last is a MIG instance of the GPU"


def test_a_document_of_the_whole_host_counts_where_it_is_newer(connection: Connection, now: dt.datetime) -> None:
    gpu = register(connection, now, uuid="GPU-1", hostname="h")
    insert(connection, [{"time": now, "gpu_id": gpu}])
    keep(connection, now - 2 * HOUR, "of the GPU")
    keep(connection, now - HOUR, "of the host", uuid=None)
    (said,) = shown(connection)
    assert said.startswith("of the host")


def test_repeats_go_with_the_samples_and_changes_stay(connection: Connection, now: dt.datetime) -> None:
    """RETENTION is 7 days in these tests."""
    for days, hash_ in ((30, "a"), (29, "a"), (20, "b"), (19, "b"), (10, "a"), (3, "a"), (1, "a")):
        keep(connection, now - dt.timedelta(days=days), hash_)
    for days in (40, 39):
        keep(connection, now - dt.timedelta(days=days), "x", uuid="GPU-gone")
    number = value_of(
        connection,
        "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = 'drop_repeated_snapshots'",
    )
    connection.execute(f"CALL run_job({number})".encode())
    found = rows_of(connection, "SELECT gpu_uuid, now() - time AS age, hash FROM gpu_snapshots ORDER BY gpu_uuid, time")
    kept = [(row["gpu_uuid"], row["age"].days, row["hash"]) for row in found]
    assert kept == [
        ("GPU-1", 30, "a"),
        ("GPU-1", 20, "b"),
        ("GPU-1", 10, "a"),
        ("GPU-1", 3, "a"),
        ("GPU-1", 1, "a"),
        ("GPU-gone", 40, "x"),
        ("GPU-gone", 39, "x"),
    ]
