"""What the direct bus writes: the sink's rows, each once; the bad ones aside with their reasons."""

from __future__ import annotations

import json

import psycopg
import pytest
from pydantic import SecretStr

from services.collector.batch import Batch
from services.direct.open import NotUsableError, check
from services.settings import Settings
from tests.integration.direct.harness import Box
from tests.support.native_postgres import NativePostgres

pytestmark = pytest.mark.timescale

RAW, EVENTS = "gpu-metrics-raw", "gpu-events"


def test_every_sample_is_a_row(box: Box) -> None:
    box.offer(*range(100))
    box.until_home()
    assert box.numbers() == box.expected(*range(100))
    counts = box.deliverer.counts
    assert (counts.accepted, counts.published, counts.spooled) == (800, 800, 0)


def test_a_row_carries_all_of_the_event(box: Box) -> None:
    gpu = box.gpus[0]
    value = box.value(
        1,
        gpu,
        tenant={"pod": "train-0", "namespace": "ml", "container": "c"},
        status={"tag": "bench", "memo": "gpu-burn"},
        resets={"total_energy_consumption": 7},
        extra={"labels": {"rack_unit": "12"}},
        derived={"memory_percent": 1.5},
        source="box:9400",
    )
    box.deliverer.offer(Batch("box:9400", [(RAW, gpu, value)]))
    box.until_home()
    [row] = box.rows(
        "SELECT gpu_temp, pod, namespace, container, status_tag, status_memo, counter_resets, extra, hostname, l.time"
        " FROM gpu_metrics m JOIN gpus USING (gpu_id) JOIN gpu_latest l USING (gpu_id) WHERE gpu_uuid = %s",
        [gpu],
    )
    assert row[:6] == (1, "train-0", "ml", "c", "bench", "gpu-burn")
    assert row[6:9] == ({"total_energy_consumption": 7}, {"labels": {"rack_unit": "12"}}, "box")
    assert row[9] is not None


def test_what_is_sent_again_is_there_once(box: Box) -> None:
    box.offer(0, 1, 2)
    box.until_home()
    box.offer(1, 2, 3)
    box.until_home()
    box.offer(4)
    box.until_home()
    assert box.numbers() == box.expected(0, 1, 2, 3, 4)


def test_gpu_events_are_kept_once(box: Box) -> None:
    gpu = box.gpus[0]
    happening = {"schema_version": 1, "time": "2026-11-22T03:00:00Z", "kind": "xid", "gpu_uuid": gpu, "code": 79}
    message = (EVENTS, gpu, json.dumps(happening).encode())
    for number in (0, 1):
        box.deliverer.offer(Batch("box:9400", [*box.scrape(number).messages, message]))
        box.until_home()
    assert box.rows("SELECT kind, code FROM gpu_events WHERE gpu_uuid = %s", [gpu]) == [("xid", 79)]


def test_poison_beside_good(box: Box) -> None:
    """One bad message of each kind in the middle of good ones: the good ones are rows, the bad ones kept with why."""
    gpu = box.gpus[0]
    bad = [
        (RAW, gpu, b"no json"),
        (RAW, "GPU-of-another", box.value(50, gpu)),
        (RAW, gpu, box.value(51, gpu, metrics={"gpu_temp": 100_000})),
        (RAW, gpu, box.value(-10_000_000, gpu, metrics={"gpu_temp": 1})),
        (RAW, gpu, box.value(52, gpu, extra={"text": "a\0b"})),
        ("some-other-topic", gpu, box.value(53, gpu)),
        (EVENTS, gpu, b"{}"),
    ]
    good = [message for number in range(10) for message in box.scrape(number).messages]
    half = len(good) // 2
    box.deliverer.offer(Batch("box:9400", good[:half] + bad + good[half:]))
    box.until_home()
    assert box.numbers() == box.expected(*range(10))
    kept = [json.loads(line) for line in (box.spool_dir / "rejected.jsonl").read_text().splitlines()]
    assert sorted(item["value"] for item in kept) == sorted(value.decode() for _, _, value in bad)
    reasons = {item["value"]: item["reason"] for item in kept}
    starts = ["not_json: ", "bad_key: ", "range: ", "too_old: ", "database: ", "schema: spooled for topic", "schema: "]
    for (_, _, value), start in zip(bad, starts, strict=True):
        assert reasons[value.decode()].startswith(start)
    assert box.deliverer.counts.accepted == len(good)
    assert sum(box.deliverer.counts.refused.values()) == len(bad)


def test_poison_in_the_spool_stops_nothing(box: Box) -> None:
    box.spool.write(Batch("box:9400", [(RAW, box.gpus[0], b"no json"), *box.scrape(0).messages]), "test")
    box.spool.sync()
    box.offer(1)
    box.until_home()
    assert box.numbers() == box.expected(0, 1)
    assert "not_json" in (box.spool_dir / "rejected.jsonl").read_text()


@pytest.mark.native
def test_no_schema_is_said_before_the_start(native_postgres: NativePostgres) -> None:
    with psycopg.connect(native_postgres.dsn, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS nothing_in_it")
        connection.execute("CREATE DATABASE nothing_in_it")
    dsn = native_postgres.dsn.replace("dbname=gpu_health", "dbname=nothing_in_it")
    with pytest.raises(NotUsableError, match=r"gpu_metrics.*does not exist.*run `gpumon migrate`"):
        check(Settings(timescale_dsn=SecretStr(dsn)))


def test_a_good_database_passes(database: str) -> None:
    assert check(Settings(timescale_dsn=SecretStr(database))) is None


def test_one_that_is_away_is_no_reason_not_to_start() -> None:
    problem = check(Settings(timescale_dsn=SecretStr("host=127.0.0.1 port=1 user=x dbname=x password=hidden")))
    assert problem is not None
    assert "PGHOST" in problem
    assert "hidden" not in problem
