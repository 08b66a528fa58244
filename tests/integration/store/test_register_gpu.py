"""The inventory: identities, their history, late events, and several sinks at once.

Runs on a native PostgreSQL, where sessions are real; the functions use nothing of TimescaleDB.
"""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from services.store.connect import Connection
from tests.support.database import register, rows_of, value_of
from tests.support.native_postgres import NativePostgres
from tests.support.plain_schema import fresh

pytestmark = pytest.mark.native

T0 = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def at(seconds: float) -> dt.datetime:
    return T0 + dt.timedelta(seconds=seconds)


@pytest.fixture(scope="module")
def server(native_postgres: NativePostgres) -> Iterator[Connection]:
    with fresh(native_postgres.dsn) as connection:
        yield connection


@pytest.fixture
def connection(server: Connection) -> Connection:
    server.execute("TRUNCATE gpus, gpu_history, gpu_events, gpu_snapshots RESTART IDENTITY")
    return server


def history(connection: Connection, column: str = "hostname") -> list[tuple[float, float | None, str | None]]:
    """(from, to, value) of the only GPU, in seconds after T0."""
    rows = rows_of(connection, f"SELECT valid_from, valid_to, {column} AS value FROM gpu_history ORDER BY valid_from")

    def seconds(time: dt.datetime | None) -> float | None:
        return None if time is None else (time - T0).total_seconds()

    return [(seconds(row["valid_from"]) or 0.0, seconds(row["valid_to"]), row["value"]) for row in rows]


def gpu(connection: Connection) -> dict[str, Any]:
    (row,) = rows_of(connection, "SELECT * FROM gpus")
    return row


FULL = {
    "uuid": "GPU-8f7d",
    "hostname": "node-1",
    "index": 3,
    "device": "nvidia3",
    "model": "NVIDIA H100 80GB HBM3",
    "pci_bus_id": "00000000:1B:00.0",
    "driver_version": "550.54.15",
    "vbios_version": "96.00.74.00.01",
    "serial": "1650123",
    "brand": "Nvidia",
    "nvml_version": "12.550.54",
    "cluster": "c1",
    "datacenter": "fra",
    "rack": "r7",
    "labels": {"team": "a"},
    "properties": {"fb_total": 81559},
    "missing": {"fan_speed": "unsupported"},
}


def test_every_field_is_kept(connection: Connection) -> None:
    number = register(connection, at(0), **FULL)
    stored = gpu(connection)
    for field, value in FULL.items():
        assert stored[{"uuid": "gpu_uuid", "index": "gpu_index"}.get(field, field)] == value
    assert (stored["gpu_id"], stored["instance_id"]) == (number, None)
    assert stored["first_seen"] == stored["changed_at"] == at(0)
    (told,) = rows_of(connection, "SELECT * FROM gpu_history")
    assert told["earliest"] is True
    for field in ("hostname", "pci_bus_id", "driver_version", "vbios_version", "cluster", "datacenter", "rack"):
        assert told[field] == FULL[field]
    assert told["gpu_index"] == 3


def test_the_same_again_writes_nothing(connection: Connection) -> None:
    first = register(connection, at(0), **FULL)
    before = value_of(connection, "SELECT ctid::text || xmin::text FROM gpus")
    assert register(connection, at(60), **FULL) == first
    assert value_of(connection, "SELECT ctid::text || xmin::text FROM gpus") == before
    assert history(connection) == [(0, None, "node-1")]


def test_mig_instances_are_rows_of_their_own(connection: Connection) -> None:
    whole = register(connection, at(0), **FULL)
    instances = [register(connection, at(0), **FULL, instance_id=n, instance_profile="1g.10gb") for n in (1, 2)]
    assert len({whole, *instances}) == 3
    assert register(connection, at(1), **FULL) == whole
    assert register(connection, at(1), **FULL, instance_id=2, instance_profile="1g.10gb") == instances[1]


def test_a_move_closes_one_row_and_opens_the_next(connection: Connection) -> None:
    number = register(connection, at(0), hostname="a")
    assert register(connection, at(100), hostname="b") == number
    assert register(connection, at(200), hostname="c") == number
    assert history(connection) == [(0, 100, "a"), (100, 200, "b"), (200, None, "c")]
    assert (gpu(connection)["hostname"], gpu(connection)["changed_at"]) == ("c", at(200))


def test_a_driver_update_is_history_too(connection: Connection) -> None:
    register(connection, at(0), driver_version="535")
    register(connection, at(100), driver_version="550")
    assert history(connection, "driver_version") == [(0, 100, "535"), (100, None, "550")]


def test_what_a_device_is_stays_known_where_it_stands_does_not(connection: Connection) -> None:
    register(connection, at(0), **FULL)
    register(connection, at(100), uuid=FULL["uuid"], hostname="node-2", properties={"slowdown_temp": 90})
    stored = gpu(connection)
    assert (stored["model"], stored["driver_version"], stored["gpu_index"]) == (FULL["model"], "550.54.15", 3)
    assert stored["properties"] == {"fb_total": 81559, "slowdown_temp": 90}
    assert [stored[name] for name in ("cluster", "datacenter", "rack", "labels", "missing")] == [None] * 5


def test_what_is_not_in_the_history_opens_no_row(connection: Connection) -> None:
    register(connection, at(0))
    register(connection, at(100), missing={"fan_speed": "failed"})
    assert gpu(connection)["missing"] == {"fan_speed": "failed"}
    assert history(connection) == [(0, None, "host-1")]


def test_a_late_event_does_not_overwrite(connection: Connection) -> None:
    register(connection, at(0), hostname="a")
    register(connection, at(100), hostname="b", model="new")
    register(connection, at(50), hostname="a", model="old")
    assert (gpu(connection)["hostname"], gpu(connection)["model"]) == ("b", "new")
    assert history(connection) == [(0, 100, "a"), (100, None, "b")]


def test_a_late_event_tells_that_a_move_was_earlier(connection: Connection) -> None:
    register(connection, at(0), hostname="a")
    register(connection, at(100), hostname="b")
    register(connection, at(60), hostname="b")
    assert history(connection) == [(0, 60, "a"), (60, None, "b")]


def test_a_late_event_tells_of_a_place_in_between(connection: Connection) -> None:
    register(connection, at(0), hostname="a")
    register(connection, at(100), hostname="c")
    register(connection, at(60), hostname="b")
    assert history(connection) == [(0, 60, "a"), (60, 100, "b"), (100, None, "c")]


def test_a_late_event_before_all_others(connection: Connection) -> None:
    register(connection, at(100), hostname="b")
    register(connection, at(0), hostname="a")
    assert history(connection) == [(0, 100, "a"), (100, None, "b")]
    register(connection, at(-50), hostname="a")
    assert history(connection) == [(-50, 100, "a"), (100, None, "b")]
    assert gpu(connection)["first_seen"] == at(-50)
    assert rows_of(connection, "SELECT hostname FROM gpu_history WHERE earliest") == [{"hostname": "a"}]


def test_what_later_events_said_of_the_same_time_stands(connection: Connection) -> None:
    register(connection, at(0), hostname="a")
    register(connection, at(100), hostname="a", missing={"fan_speed": "failed"})
    register(connection, at(50), hostname="z")
    assert history(connection) == [(0, None, "a")]
    assert gpu(connection)["hostname"] == "a"


def test_two_identities_at_one_instant_the_later_told_stands(connection: Connection) -> None:
    register(connection, at(0), hostname="a")
    register(connection, at(0), hostname="b")
    assert history(connection) == [(0, None, "b")]
    assert rows_of(connection, "SELECT hostname FROM gpu_history WHERE earliest") == [{"hostname": "b"}]


def test_order_of_arrival_does_not_matter_for_the_history(connection: Connection) -> None:
    """Moves a -> b -> c, told in every order of the three events."""
    events = [(0, "a"), (100, "b"), (200, "c")]
    for order in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]):
        connection.execute("TRUNCATE gpus, gpu_history, gpu_events, gpu_snapshots")
        for index in order:
            register(connection, at(events[index][0]), hostname=events[index][1])
        assert history(connection) == [(0, 100, "a"), (100, 200, "b"), (200, None, "c")], order
        assert gpu(connection)["hostname"] == "c"


@pytest.mark.parametrize("identity", [{}, {"uuid": "", "hostname": "h"}, {"uuid": "GPU-1"}])
def test_no_identity_is_refused(connection: Connection, identity: dict[str, str]) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="needs uuid and hostname"):
        connection.execute("SELECT register_gpu(%s::jsonb, now())", (json.dumps(identity),))


def test_many_sinks_see_the_same_gpus_first_at_once(connection: Connection, native_postgres: NativePostgres) -> None:
    """Eight sessions register the same hundred GPUs in their own transactions, all started together."""
    start = threading.Barrier(8)

    def sink(number: int) -> list[int]:
        with psycopg.connect(native_postgres.dsn) as session:
            start.wait()
            found = []
            for index in range(100):
                found.append(register(session, at(number), uuid=f"GPU-{index}", hostname=f"host-{index // 8}"))
                session.commit()
            return found

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(sink, range(8)))
    assert all(result == results[0] for result in results)
    assert len(set(results[0])) == 100
    assert value_of(connection, "SELECT count(*) FROM gpus") == 100
    assert value_of(connection, "SELECT count(*) FROM gpu_history") == 100
    assert value_of(connection, "SELECT count(*) FROM gpus WHERE first_seen <> %s", (at(0),)) == 0


def test_many_sinks_tell_of_moves_at_once(connection: Connection, native_postgres: NativePostgres) -> None:
    """Whatever the order: one open row, no gap, no overlap, and the newest event is the current state."""
    start = threading.Barrier(6)

    def sink(number: int) -> None:
        with psycopg.connect(native_postgres.dsn) as session:
            start.wait()
            for step in range(20):
                moment = 6 * step + number
                register(session, at(moment), hostname=f"host-{moment}")
                session.commit()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(sink, range(6)))
    rows = history(connection)
    assert [end for _, end, _ in rows] == [begin for begin, _, _ in rows[1:]] + [None]
    assert rows == [(moment, moment + 1 if moment < 119 else None, f"host-{moment}") for moment in range(120)]
    assert gpu(connection)["hostname"] == "host-119"


def test_a_sink_waits_for_another_that_may_roll_back(connection: Connection, native_postgres: NativePostgres) -> None:
    with psycopg.connect(native_postgres.dsn) as first, ThreadPoolExecutor(1) as pool:
        register(first, at(0))
        with psycopg.connect(native_postgres.dsn, autocommit=True) as second:
            waiting = pool.submit(register, second, at(1))
            while not value_of(connection, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
                assert not waiting.done()
            first.rollback()
            number = waiting.result(timeout=30)
    assert gpu(connection)["gpu_id"] == number
    assert history(connection) == [(1, None, "host-1")]
