"""Views: identity at the time of the sample, newest samples of reporting and silent GPUs, fleet summary, snapshots."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from services.contract.derived import memory_percent, percent
from services.store.connect import Connection
from tests.support.database import insert, register, rows_of, value_of

pytestmark = pytest.mark.timescale

SECOND, MINUTE, HOUR, DAY = (dt.timedelta(seconds=n) for n in (1, 60, 3600, 86400))


def latest(connection: Connection) -> dict[str, dict[str, Any]]:
    return {row["gpu_uuid"]: row for row in rows_of(connection, "SELECT * FROM v_latest_gpu_metrics")}


# --- v_gpu_metrics -------------------------------------------------------------------------------------------------


def test_a_sample_has_the_host_the_gpu_was_in_then(connection: Connection, now: dt.datetime) -> None:
    gpu = register(connection, now - 20 * MINUTE, hostname="a", driver_version="535")
    register(connection, now - 10 * MINUTE, hostname="b", driver_version="550")
    insert(connection, [{"time": now - minute * MINUTE, "gpu_id": gpu} for minute in (30, 20, 15, 10, 5)])
    found = rows_of(connection, "SELECT hostname, driver_version FROM v_gpu_metrics ORDER BY time")
    assert [tuple(row.values()) for row in found] == [("a", "535")] * 3 + [("b", "550")] * 2


def test_each_sample_is_there_once_whatever_the_history(connection: Connection, now: dt.datetime) -> None:
    gpu = register(connection, now - 60 * MINUTE, hostname="0")
    for step in range(1, 6):
        register(connection, now - (60 - 10 * step) * MINUTE, hostname=str(step))
    times = [now - step * MINUTE for step in range(120)]
    insert(connection, [{"time": time, "gpu_id": gpu} for time in times])
    found = rows_of(connection, "SELECT time FROM v_gpu_metrics ORDER BY time DESC")
    assert [row["time"] for row in found] == times


PARTS: list[dict[str, Any]] = [
    {"fb_used": 10_000, "fb_free": 70_000, "fb_reserved": 559},
    {"fb_used": 10_000, "fb_free": 70_000},
    {"fb_used": 10_000},
    {"fb_free": 70_000},
    {"fb_used": 0, "fb_free": 0},
    {"power_usage": 123.456, "power_limit": 400.0},
    {"power_usage": 123.456, "power_limit": 0.0},
    {"power_usage": 123.456},
    {},
]


@pytest.mark.parametrize("total", [None, 81_559])
def test_percentages_are_those_of_the_collector(connection: Connection, now: dt.datetime, total: int | None) -> None:
    gpu = register(connection, now, properties={} if total is None else {"fb_total": total})
    insert(connection, [{"time": now + number * SECOND, "gpu_id": gpu, **part} for number, part in enumerate(PARTS)])
    found = rows_of(connection, "SELECT memory_percent, power_percent FROM v_gpu_metrics ORDER BY time")
    assert found == [
        {
            "memory_percent": memory_percent(part.get("fb_used"), total, part.get("fb_free"), part.get("fb_reserved")),
            "power_percent": percent(part.get("power_usage"), part.get("power_limit")),
        }
        for part in PARTS
    ]


# --- v_latest_gpu_metrics ------------------------------------------------------------------------------------------


def test_latest_of_gpus_that_report_are_silent_or_long_gone(connection: Connection, now: dt.datetime) -> None:
    ages = {"GPU-now": 2 * SECOND, "GPU-hour": 61 * MINUTE, "GPU-days": 3 * DAY, "GPU-gone": 6 * DAY}
    for number, (uuid, age) in enumerate(ages.items(), 1):
        gpu = register(connection, now - 7 * DAY, uuid=uuid)
        insert(
            connection, [{"time": now - age - step * SECOND, "gpu_id": gpu, "gpu_temp": number} for step in range(3)]
        )
    register(connection, now, uuid="GPU-never")
    connection.execute("SELECT refresh_gpu_latest()")
    connection.execute(
        "SELECT compress_chunk(c, true) FROM show_chunks('gpu_metrics', older_than => INTERVAL '1 hour') c"
    )
    connection.execute("SELECT drop_chunks('gpu_metrics', older_than => INTERVAL '5 days')")
    found = latest(connection)
    assert {uuid: row["gpu_temp"] for uuid, row in found.items()} == {
        "GPU-now": 1,
        "GPU-hour": 2,
        "GPU-days": 3,
        "GPU-gone": None,
    }
    for uuid, age in ages.items():
        assert found[uuid]["time"] == now - age
        assert age <= found[uuid]["age"] <= age + MINUTE


def test_latest_of_many_silent_gpus(connection: Connection, now: dt.datetime) -> None:
    """They fell silent in different minutes, several in the same."""
    for number in range(30):
        gpu = register(connection, now - DAY, uuid=f"GPU-{number}")
        last = now - 2 * HOUR - (number // 3) * MINUTE - number * SECOND
        insert(
            connection, [{"time": last - step * 10 * SECOND, "gpu_id": gpu, "gpu_temp": number} for step in range(5)]
        )
    connection.execute("SELECT refresh_gpu_latest()")
    assert {uuid: row["gpu_temp"] for uuid, row in latest(connection).items()} == {f"GPU-{n}": n for n in range(30)}


def test_refresh_gpu_latest_catches_up_and_never_goes_back(connection: Connection, now: dt.datetime) -> None:
    one, two = (register(connection, now - HOUR, uuid=uuid) for uuid in ("GPU-1", "GPU-2"))
    insert(connection, [{"time": now - step * SECOND, "gpu_id": gpu} for step in range(5) for gpu in (one, two)])
    connection.execute("INSERT INTO gpu_latest VALUES (%s, %s), (%s, %s)", (one, now - MINUTE, two, now + SECOND))
    assert value_of(connection, "SELECT refresh_gpu_latest()") == 1
    assert rows_of(connection, "SELECT * FROM gpu_latest ORDER BY gpu_id") == [
        {"gpu_id": one, "time": now},
        {"gpu_id": two, "time": now + SECOND},
    ]
    assert value_of(connection, "SELECT refresh_gpu_latest()") == 0


# --- v_fleet_health_summary ----------------------------------------------------------------------------------------


def test_fleet_summary(connection: Connection, now: dt.datetime) -> None:
    for number in range(6):
        gpu = register(
            connection,
            now - DAY,
            uuid=f"GPU-{number}",
            hostname=f"host-{number // 2}",
            cluster="c1" if number < 4 else "c2",
            model="H100",
        )
        last = now - (SECOND if number != 3 else HOUR / 2)
        insert(
            connection, [{"time": last, "gpu_id": gpu, "gpu_temp": 40 + number, "power_usage": 100.5, "xid_errors": 0}]
        )
        connection.execute(
            "INSERT INTO gpu_health_scores (time, gpu_id, state, score, grade, model_version) "
            "VALUES (%s, %s, %s, %s, %s, '1')",
            (now - HOUR, gpu, *(("known", 95, "excellent") if number else ("unknown", None, None))),
        )
    connection.execute("SELECT refresh_gpu_latest()")
    one, two = rows_of(connection, "SELECT * FROM v_fleet_health_summary ORDER BY cluster")
    assert (one["cluster"], one["gpus"], one["hosts"], one["reporting"], one["silent"]) == ("c1", 4, 2, 3, 1)
    assert (one["max_gpu_temp"], float(one["avg_gpu_temp"]), one["power_usage"]) == (42, 41.0, 301.5)
    assert (one["gpus_scored"], one["avg_health_score"], one["gpus_good"], one["gpus_with_xid"]) == (3, 95.0, 3, 0)
    assert one["avg_gpu_util"] is None
    assert (two["cluster"], two["gpus"], two["reporting"], two["newest_sample"]) == ("c2", 2, 2, now - SECOND)


def test_power_of_a_board_in_mig_instances_counts_once(connection: Connection, now: dt.datetime) -> None:
    """dcgm-exporter repeats it with each; the mock says it of the GPU only; a silent instance says nothing."""
    boards = (("repeated", [(0, 300.5), (1, 300.5), (2, 300.5)]), ("of the GPU", [(None, 200.5), (1, None)]))
    for uuid, rows in boards:
        for instance, power in rows:
            gpu = register(
                connection, now - DAY, uuid=uuid, instance_id=instance, hostname="h", cluster="c", model="A100"
            )
            insert(
                connection,
                [{"time": now - SECOND, "gpu_id": gpu, "power_usage": power, "power_limit": power and 400.0}],
            )
    silent = register(connection, now - DAY, uuid="repeated", instance_id=3, hostname="h", cluster="c", model="A100")
    insert(connection, [{"time": now - HOUR / 2, "gpu_id": silent, "power_usage": 400.0}])
    connection.execute("SELECT refresh_gpu_latest()")
    (found,) = rows_of(connection, "SELECT * FROM v_fleet_health_summary")
    assert (found["power_usage"], found["power_limit"]) == (501.0, 800.0)
    assert (found["gpus"], found["reporting"]) == (6, 5)


# --- telemetry.gpu_telemetry ---------------------------------------------------------------------------------------


def snapshot(connection: Connection, time: dt.datetime, content: object, gpu_id: int | None = None) -> None:
    connection.execute(
        "INSERT INTO gpu_snapshots VALUES ('host-1', %s, 'nvidia-smi', %s, md5(%s), %s::jsonb)",
        (gpu_id, time, json.dumps(content), json.dumps(content)),
    )


def test_raw_json_is_the_newest_snapshot_at_or_before_the_sample(connection: Connection, now: dt.datetime) -> None:
    gpu = register(connection, now - HOUR)
    insert(connection, [{"time": now - minute * MINUTE, "gpu_id": gpu} for minute in (50, 40, 30, 20, 10)])
    snapshot(connection, now - 40 * MINUTE, {"xml": "first"})
    snapshot(connection, now - 15 * MINUTE, {"xml": "second"}, gpu)
    connection.execute(
        "INSERT INTO gpu_snapshots VALUES "
        "('other', NULL, 'nvidia-smi', %s, 'h', '{}'), ('host-1', NULL, 'lspci', %s, 'h', '{}')",
        (now - 25 * MINUTE, now - 25 * MINUTE),
    )
    found = rows_of(connection, "SELECT raw_json FROM telemetry.gpu_telemetry ORDER BY ts")
    assert [row["raw_json"] for row in found] == [
        None,
        {"xml": "first"},
        {"xml": "first"},
        {"xml": "first"},
        {"xml": "second"},
    ]


# --- tables that repeats must not hurt -----------------------------------------------------------------------------


def test_a_repeated_event_is_one_event(connection: Connection, now: dt.datetime) -> None:
    gpu = register(connection, now, uuid="GPU-1")
    insert_event = (
        "INSERT INTO gpu_events (time, kind, gpu_id, gpu_uuid, source, code) "
        "VALUES (%s, 'xid', %s, 'GPU-1', 't', %s) ON CONFLICT DO NOTHING"
    )
    for known, code in ((None, 79), (gpu, 79), (gpu, 48), (gpu, 79)):
        connection.execute(insert_event, (now, known, code))
    for _ in range(2):
        connection.execute(
            "INSERT INTO gpu_events (time, kind, source) VALUES (%s, 'target_down', 't') ON CONFLICT DO NOTHING", (now,)
        )
    found = rows_of(connection, "SELECT kind, code FROM gpu_events ORDER BY kind, code")
    assert [tuple(row.values()) for row in found] == [("target_down", 0), ("xid", 48), ("xid", 79)]
