"""Events become rows, whatever comes with them: duplicates, poison, late ones, new fields."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
from confluent_kafka import Consumer

from services.ops.clock import SystemClock
from services.sink import dlq_command
from services.sink.letter_reader import Letters, read_all
from tests.integration.sink.harness import Bench, wait_for

pytestmark = pytest.mark.timescale


def letters(bench: Bench) -> Letters:
    consumer = Consumer(
        {
            "bootstrap.servers": bench.settings.kafka_bootstrap,
            "group.id": "reader",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
        }
    )
    try:
        return Letters(read_all(consumer, bench.settings.kafka_topic_invalid, SystemClock()))
    finally:
        consumer.close()


def test_events_become_rows_and_offsets_and_the_newest_is_known(bench_on_both: Bench) -> None:
    bench = bench_on_both
    bench.send(*(bench.sample(number) for number in range(300)))
    with bench.sink() as sink:
        bench.wait_for_rows(300)
        wait_for(lambda: "after_offset_commit" in sink.passed, "offsets in Kafka")
    assert bench.temperatures() == [number % 100 for number in range(300)]
    assert bench.stored() == 300
    assert sink.paths() == {"direct"}
    assert sink.value("rows_inserted_total") == 300
    assert sink.value("freshness_seconds_count") == 300
    newest = "SELECT l.time = max(m.time) FROM gpu_latest l JOIN gpu_metrics m USING (gpu_id) JOIN gpus USING (gpu_id) "
    assert bench.one(newest + "WHERE gpu_uuid = %s GROUP BY l.time", [bench.gpu])


def test_duplicates_take_the_staging_table_and_are_counted(bench: Bench) -> None:
    bench.send(*(bench.sample(number) for number in range(50)))
    with bench.sink() as sink:
        bench.wait_for_rows(50)
        bench.send(*(bench.sample(number) for number in range(40, 60)))
        bench.wait_for_offsets(70)
    assert bench.temperatures() == list(range(60))
    assert "staged" in sink.paths()
    assert sink.value("rows_duplicate_total") == 10


def test_poison_among_good_ones_each_with_its_reason(bench: Bench) -> None:
    poison: dict[str, dict[str, Any] | bytes] = {
        "not_json": b"\xff\xfe not json",
        "schema": {**bench.sample(1), "metrics": []},
        "range": {**bench.sample(2), "metrics": {"gpu_temp": 900}},
        "too_old": {**bench.sample(3), "time": "2020-01-01T00:00:00Z"},
        "in_future": {**bench.sample(4), "time": "2099-01-01T00:00:00Z"},
        "unsupported_version": bench.sample(5, schema_version=99),
        "no_identity": {**bench.sample(6), "gpu": {"hostname": "h"}},
    }
    good = [bench.sample(number) for number in range(100, 200)]
    bench.send(*good[:50], *poison.values(), *good[50:])
    bench.send(bench.sample(7), key="GPU-somebody-else")
    with bench.sink() as sink:
        bench.wait_for_offsets(108)
    assert bench.count() == 100
    found = letters(bench)
    assert sorted(item.reason for item in found.letters.values()) == sorted([*poison, "bad_key"])
    values = {item.reason: item.value for item in found.letters.values()}
    assert values["not_json"] == poison["not_json"]
    assert {sink.value("dead_letters_total", reason=reason) for reason in poison} == {1.0}


def test_a_row_the_database_refuses_is_found_alone(bench: Bench) -> None:
    """A NUL character is good JSON and no text of PostgreSQL: only the database can tell."""
    good = [bench.sample(number) for number in range(64)]
    bad = bench.sample(70, tenant={"pod": "a\0b"})
    worse = bench.sample(71, extra={"labels": {"x": "a\0b"}})
    bench.send(*good[:20], bad, *good[20:40], worse, *good[40:])
    with bench.sink() as sink:
        bench.wait_for_offsets(66)
    assert bench.temperatures() == list(range(64))
    assert "bisected" in sink.paths()
    assert "bisecting" in sink.passed
    states = {item.sqlstate for item in letters(bench).letters.values()}
    assert states == {"22021", "22P05"}
    assert {item.reason for item in letters(bench).letters.values()} == {"database"}


def test_an_identity_the_database_refuses_is_found_alone(bench: Bench) -> None:
    bad = {**bench.sample(1), "gpu": {"uuid": bench.gpu, "hostname": "a\0b"}}
    bench.send(bench.sample(0), bad, bench.sample(2))
    with bench.sink():
        bench.wait_for_offsets(3)
    assert bench.temperatures() == [0, 2]
    (item,) = letters(bench).letters.values()
    assert (item.reason, item.sqlstate) == ("database", "22P05")


def test_late_and_out_of_order_rows_are_kept_and_do_not_move_the_newest_back(bench: Bench) -> None:
    with bench.sink():
        bench.send(*(bench.sample(number) for number in (50, 10, 40, 20)))
        bench.wait_for_rows(4)
        bench.send(bench.sample(5))
        bench.wait_for_rows(5)
    assert bench.temperatures() == [5, 10, 20, 40, 50]
    query = "SELECT l.time FROM gpu_latest l JOIN gpus USING (gpu_id) WHERE gpu_uuid = %s"
    assert (bench.one(query, [bench.gpu]) - bench.begin).total_seconds() == 50


def test_a_new_field_is_kept(bench: Bench) -> None:
    sample = {**bench.sample(1), "future_field": {"a": 1}}
    sample["metrics"]["gpu_temp_hotspot"] = 77.5
    bench.send(bench.sample(0), sample)
    with bench.sink():
        bench.wait_for_rows(2)
    assert bench.temperatures() == [0, 1]
    query = "SELECT extra FROM gpu_metrics JOIN gpus USING (gpu_id) WHERE gpu_uuid = %s AND extra IS NOT NULL"
    assert bench.one(query, [bench.gpu]) == {"fields": {"future_field": {"a": 1}, "metrics.gpu_temp_hotspot": 77.5}}


def test_events_of_gpus_are_stored_once(bench: Bench) -> None:
    xid = {"schema_version": 1, "time": bench.time(1), "kind": "xid", "gpu_uuid": bench.gpu, "code": 79, "source": "s"}
    bench.send(bench.sample(0))
    with bench.sink() as sink:
        bench.wait_for_rows(1)
        bench.send(
            xid, xid, b"garbage", {**xid, "detail": {"x": "a\0b"}, "code": 48}, topic=bench.settings.kafka_topic_events
        )
        bench.wait_for_offsets(5)
    query = "SELECT array_agg(ARRAY[code, (gpu_id IS NOT NULL)::int]) FROM gpu_events WHERE gpu_uuid = %s"
    assert bench.one(query, [bench.gpu]) == [[79, 1]]
    assert sorted(item.reason for item in letters(bench).letters.values()) == ["database", "not_json"]
    assert sink.value("dead_letters_total", reason="database") == 1


def test_documents_and_events_with_a_status_go_where_they_belong(bench: Bench) -> None:
    """Good and bad ones mixed, so that the good ones are found by halving; twice, because Kafka repeats."""
    detail = {"document": "nvidia-smi", "hash": "a1", "content": {"format": "nvidia-smi-xml", "xml": "<gpu/>"}}
    document = {"schema_version": 1, "time": bench.time(1), "kind": "snapshot", "gpu_uuid": bench.gpu, "detail": detail}
    document |= {"hostname": "node-1", "source": "s"}
    xid = {"schema_version": 1, "time": bench.time(2), "kind": "xid", "gpu_uuid": bench.gpu, "code": 79, "source": "s"}
    told = {**xid, "code": 48, "status": {"tag": "bench", "memo": "run 4"}}
    later = {**document, "time": bench.time(3)}
    old = {**document, "time": "2020-01-01T00:00:00Z"}
    stranger = {**document, "gpu_uuid": f"{bench.gpu}-2"}
    nul = {**document, "time": bench.time(4), "detail": {**detail, "content": {"xml": "a\0b"}}}
    bad = [nul, {**document, "detail": {}}, {**xid, "time": "2020-01-01T00:00:00Z"}]
    bench.send(bench.sample(0))
    with bench.sink() as sink:
        bench.wait_for_rows(1)
        bench.send(document, xid, *bad, told, later, old, stranger, topic=bench.settings.kafka_topic_events)
        bench.wait_for_offsets(10)
        bench.send(document, told, topic=bench.settings.kafka_topic_events)
        bench.wait_for_offsets(12)
    query = (
        "SELECT array_agg(ARRAY[code::text, status_tag, status_memo] ORDER BY code) FROM gpu_events WHERE gpu_uuid = %s"
    )
    assert bench.one(query, [bench.gpu]) == [["48", "bench", "run 4"], ["79", None, None]]
    query = (
        "SELECT array_agg(ARRAY[s.kind, s.hash, s.content ->> 'xml', (s.gpu_id = g.gpu_id)::text] ORDER BY s.time) "
        "FROM gpu_snapshots s JOIN gpus g USING (gpu_uuid) WHERE gpu_uuid = %s"
    )
    assert bench.one(query, [bench.gpu]) == [["nvidia-smi", "a1", "<gpu/>", "true"]] * 3, "also the old one: the newest"
    query = "SELECT count(*) FROM gpu_snapshots WHERE gpu_uuid = %s AND gpu_id IS NULL"
    assert bench.one(query, [f"{bench.gpu}-2"]) == 1, "not in the inventory yet"
    assert sorted(item.reason for item in letters(bench).letters.values()) == ["database", "schema", "too_old"]
    assert sink.value("gpu_events_inserted_total") == 6


def test_a_moved_gpu_keeps_its_id_and_has_a_history(bench: Bench) -> None:
    moved = {**bench.sample(1), "gpu": {"uuid": bench.gpu, "hostname": "node-2"}}
    bench.send(bench.sample(0), moved, bench.sample(2))
    with bench.sink():
        bench.wait_for_rows(3)
    assert (
        bench.one(
            "SELECT count(DISTINCT gpu_id) FROM gpu_metrics JOIN gpus USING (gpu_id) WHERE gpu_uuid = %s", [bench.gpu]
        )
        == 1
    )
    assert bench.one("SELECT hostname FROM gpus WHERE gpu_uuid = %s", [bench.gpu]) == "node-1"


def test_replayed_letters_become_rows_when_the_reason_is_gone(bench: Bench) -> None:
    bench.send(b"garbage", bench.sample(0))
    fixable = {**bench.sample(1), "gpu": {"uuid": bench.gpu, "hostname": "node-1"}, "metrics": {"gpu_temp": 1}}
    short = bench.settings.model_copy(update={"max_age": 60.0})
    with bench.sink(short):
        bench.send(fixable)
        bench.wait_for_offsets(3)
    assert {item.reason for item in letters(bench).letters.values()} == {"not_json", "too_old"}

    parser = argparse.ArgumentParser()
    dlq_command.add_arguments(parser)
    args = parser.parse_args(["replay", "--reason", "too_old", "--json"])
    assert dlq_command.run(args, bench.settings) == 0
    with bench.sink():
        bench.wait_for_offsets(5)
    assert bench.temperatures() == [0, 1]
    assert dlq_command.run(args, bench.settings) == 0
    assert len(letters(bench).replayed) == 2, "doing it again replays nothing"


def test_jsonb_is_stored_as_it_came(bench: Bench) -> None:
    resets = {"total_energy_consumption": 123_456_789_012}
    bench.send(bench.sample(0, resets=resets, status={"tag": "prod", "memo": "Größe"}))
    with bench.sink():
        bench.wait_for_rows(1)
    columns = "json_build_array(counter_resets, status_tag, status_memo, extra)"
    query = f"SELECT {columns} FROM gpu_metrics JOIN gpus USING (gpu_id) WHERE gpu_uuid = %s"
    assert bench.one(query, [bench.gpu]) == [resets, "prod", "Größe", None]
