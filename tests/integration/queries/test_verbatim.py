"""The queries that users of the host kit and of the pipeline already know, letter for letter, on filled tables."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import pytest

from services.store.connect import Connection
from tests.support.database import Row, insert, migrated, register, rows_of, value_of

pytestmark = pytest.mark.timescale

MINUTE = dt.timedelta(minutes=1)

# Runbook of the P40 host, section 5.2.
LAST_50 = """\
select
  ts,
  host,
  gpu_name,
  pci_bus_id,
  temp_c,
  status_tag,
  status_memo
from telemetry.gpu_telemetry
order by ts desc
limit 50;
"""
ONLY_BENCH = """\
select
  ts,
  host,
  gpu_name,
  pci_bus_id,
  temp_c,
  status_tag,
  status_memo
from telemetry.gpu_telemetry
where status_tag = 'bench'
order by ts desc
limit 200;
"""

# Description of the pipeline, "Query the data".
COUNT = "SELECT COUNT(*) FROM gpu_metrics;"
LATEST = "SELECT * FROM v_latest_gpu_metrics;"
LAST_FIVE_MINUTES = """\
SELECT time, gpu_temp, power_usage, sm_active 
FROM gpu_metrics 
WHERE time > NOW() - INTERVAL '5 minutes'
ORDER BY time DESC 
LIMIT 10;
"""  # noqa: W291  # verbatim: the lines end in a space
OVER_TIME = """\
SELECT time_bucket('1 minute', time) AS bucket,
       AVG(gpu_temp) AS avg_temp,
       MAX(gpu_temp) AS max_temp
FROM gpu_metrics
WHERE time > NOW() - INTERVAL '1 hour'
GROUP BY bucket
ORDER BY bucket DESC;
"""

TAGS = [("idle", "baseline"), ("bench", "gpu-burn"), ("prod", "inference (Open-WebUI/ollama)")]


@pytest.fixture(scope="module")
def connection(timescale: str) -> Iterator[Connection]:
    with migrated(timescale) as connection:
        yield connection


@pytest.fixture(scope="module")
def now(connection: Connection) -> dt.datetime:
    moment = value_of(connection, "SELECT now()")
    assert isinstance(moment, dt.datetime)
    return moment


@pytest.fixture(scope="module")
def samples(connection: Connection, now: dt.datetime) -> list[Row]:
    """A P40 and a T4 on one host, every half minute for three hours, the tag changing every hour. Newest last."""
    seen = now - 180 * MINUTE
    cards = [("GPU-p40", "Tesla P40", "00000000:01:00.0"), ("GPU-t4", "Tesla T4", "00000000:02:00.0")]
    ids = [
        register(connection, seen, uuid=uuid, hostname="x1-ai", model=model, pci_bus_id=bus, index=number)
        for number, (uuid, model, bus) in enumerate(cards)
    ]
    rows = [
        {
            "time": seen + MINUTE * step / 2 + dt.timedelta(milliseconds=number),
            "gpu_id": gpu_id,
            "gpu_temp": 40 + step % 30 + number,
            "power_usage": 50.5 + step % 7,
            "sm_active": None if number == 0 else 0.25,
            "status_tag": TAGS[step // 120][0],
            "status_memo": TAGS[step // 120][1],
        }
        for step in range(360)
        for number, gpu_id in enumerate(ids)
    ]
    insert(connection, rows)
    connection.execute("SELECT refresh_gpu_latest()")
    return list(rows)


def expected(row: Row) -> dict[str, object]:
    first = row["gpu_id"] == 1
    return {
        "ts": row["time"],
        "host": "x1-ai",
        "gpu_name": "Tesla P40" if first else "Tesla T4",
        "pci_bus_id": "00000000:01:00.0" if first else "00000000:02:00.0",
        "temp_c": row["gpu_temp"],
        "status_tag": row["status_tag"],
        "status_memo": row["status_memo"],
    }


def test_last_50(connection: Connection, samples: list[Row]) -> None:
    assert rows_of(connection, LAST_50) == [expected(row) for row in reversed(samples[-50:])]


def test_only_bench(connection: Connection, samples: list[Row]) -> None:
    bench = [row for row in samples if row["status_tag"] == "bench"]
    assert rows_of(connection, ONLY_BENCH) == [expected(row) for row in reversed(bench[-200:])]


def test_telemetry_has_the_columns_of_the_old_table(connection: Connection, samples: list[Row]) -> None:
    (row,) = rows_of(connection, "SELECT * FROM telemetry.gpu_telemetry ORDER BY ts LIMIT 1")
    assert list(row) == [
        *("ts", "host", "gpu_uuid", "pci_bus_id", "gpu_name", "temp_c", "status_tag", "status_memo", "raw_json")
    ]
    assert (row["gpu_uuid"], row["raw_json"]) == ("GPU-p40", None)


def test_count(connection: Connection, samples: list[Row]) -> None:
    assert value_of(connection, COUNT) == len(samples) == 720


def test_latest(connection: Connection, samples: list[Row]) -> None:
    found = {row["gpu_id"]: row for row in rows_of(connection, LATEST)}
    assert found.keys() == {1, 2}
    for newest in samples[-2:]:
        row = found[newest["gpu_id"]]
        assert (row["time"], row["gpu_temp"], row["hostname"]) == (newest["time"], newest["gpu_temp"], "x1-ai")


def test_last_five_minutes(connection: Connection, samples: list[Row], now: dt.datetime) -> None:
    later = value_of(connection, "SELECT now()")
    recent = [row for row in samples if row["time"] > later - 5 * MINUTE]
    assert 10 <= len(recent) <= 20
    assert rows_of(connection, LAST_FIVE_MINUTES) == [
        {name: row[name] for name in ("time", "gpu_temp", "power_usage", "sm_active")} for row in reversed(recent[-10:])
    ]


def test_over_time(connection: Connection, samples: list[Row]) -> None:
    later = value_of(connection, "SELECT now()")
    temperatures: dict[dt.datetime, list[int]] = {}
    for row in samples:
        if row["time"] > later - 60 * MINUTE:
            temperatures.setdefault(row["time"].replace(second=0, microsecond=0), []).append(row["gpu_temp"])
    found = rows_of(connection, OVER_TIME)
    assert len(found) >= 59
    expected_buckets = sorted(temperatures.items(), reverse=True)
    assert [(row["bucket"], row["max_temp"]) for row in found] == [(b, max(values)) for b, values in expected_buckets]
    means = [sum(values) / len(values) for _, values in expected_buckets]
    assert [float(row["avg_temp"]) for row in found] == pytest.approx(means)


def test_what_is_asked_of_compressed_chunks_is_the_same(connection: Connection, samples: list[Row]) -> None:
    before = [rows_of(connection, query) for query in (LAST_50, ONLY_BENCH, COUNT)]
    connection.execute("SELECT compress_chunk(c, true) FROM show_chunks('gpu_metrics') c")
    assert [rows_of(connection, query) for query in (LAST_50, ONLY_BENCH, COUNT)] == before
