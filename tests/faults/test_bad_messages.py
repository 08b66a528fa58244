"""What must not stop or dirty the pipeline: poison, repeats, late and early samples, what a newer collector adds.

All of it goes into the raw topic under load, among the collector's good samples and by hand-made good ones.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.faults.events import NUL, POISONED_GPU, POISONS, REFUSED_TEMPERATURE, Document, encode, event, gpu_event
from tests.faults.exporter import CountingExporter, gpu_uuid
from tests.faults.harness import Pipeline, Sample, headers, key, source

pytestmark = [pytest.mark.kafka, pytest.mark.timescale]

_numbers = itertools.count(1_000_000)
"""Numbers of samples made by hand: the exporter's never get there."""


class Running:
    """One pipeline under load for all tests of this module."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.collector, self.sink = pipeline.collector(), pipeline.sink()
        self.by_hand: set[Sample] = set()
        self.poison: dict[tuple[str, int, int], str] = {}
        self.refused: set[Sample] = set()
        """Samples that may be refused, and were."""
        pipeline.wait_for_rows()

    def good(self, *, ago: float = 0.0, **changes: Any) -> tuple[str, Document]:
        """(key, document) of a new good sample of one of the exporter's GPUs."""
        gpu = self.pipeline.first_gpu + random.randrange(self.pipeline.exporter.gpus)
        number = next(_numbers)
        self.by_hand.add((gpu_uuid(gpu), number))
        return gpu_uuid(gpu), event(gpu, number, ago=ago, **changes)

    def put(self, messages: list[tuple[str, Document]]) -> None:
        self.pipeline.produce([(key, encode(document)) for key, document in messages])

    def judge(self, what: str) -> None:
        """Everything written; nothing lost, twice or invented; dead letters exactly the poison so far."""
        pipeline = self.pipeline
        pipeline.quiet(self.collector)
        pipeline.wait_drained()
        topic = pipeline.in_topic()
        for sample in self.refused:
            del topic[sample]
        balance = pipeline.balance(set(topic))
        letters = Counter(source(letter) for letter in pipeline.dead_letters())
        inserted = int(self.sink.metric("gpumon_sink_rows_inserted_total"))
        print(f"{what}: {balance} ({len(self.poison)} poisonous); the sink counted {inserted} inserted")
        pipeline.exporter.resume()
        assert self.by_hand - self.refused <= set(topic)
        assert (balance.lost, balance.twice, balance.invented) == (0, 0, 0), balance
        assert inserted == balance.rows, "the sink's count of inserted rows is not the table's"
        assert set(letters) == set(self.poison), "dead letters are not exactly the poison"
        assert max(letters.values(), default=1) == 1, "a dead letter came twice"
        assert self.sink.running, self.sink.tail(20)

    def rows(self, key: str, number: int) -> list[dict[str, Any]]:
        query = (
            "SELECT m.* FROM gpu_metrics m JOIN gpus USING (gpu_id)"
            " WHERE gpu_uuid = %s AND total_energy_consumption = %s"
        )
        with psycopg.connect(self.pipeline.dsn, row_factory=psycopg.rows.dict_row) as connection:
            return connection.execute(query, [key, number]).fetchall()


@pytest.fixture(scope="module")
def running(kafka: str, timescale: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    pipeline = Pipeline(
        tmp_path_factory.mktemp("pipeline"), kafka, timescale, more=_unknown_series, environment={"BATCH_SIZE": "500"}
    )
    try:
        with pipeline.exporter:
            pipeline.prepare()
            with psycopg.connect(timescale, autocommit=True) as connection:
                connection.execute(
                    f"ALTER TABLE gpu_metrics ADD CONSTRAINT refused CHECK (gpu_temp <> {REFUSED_TEMPERATURE})"
                )
            yield Running(pipeline)
    finally:
        pipeline.close()


def _unknown_series(exporter: CountingExporter, number: int) -> str:
    """A series no catalogue knows, on the exporter's first GPU only."""
    return f"DCGM_FI_DEV_NEVER_HEARD_OF{{{exporter.labels(exporter.first_gpu)}}} {number}.5\n"


def test_poison_among_good(running: Running) -> None:
    """Every kind of poison, each between good samples: one letter for each, with its reason and its very bytes."""
    pipeline = running.pipeline
    messages: list[tuple[str, bytes | None]] = []
    at: dict[int, int] = {}
    for number, poison in enumerate(POISONS):
        key, document = running.good()
        at[number] = len(messages) + 1
        gpu = POISONED_GPU + number
        messages += [(key, encode(document)), (poison.key(gpu), poison.value(gpu))]
    placed = pipeline.produce(messages)
    expected = {(pipeline.topic, *placed[at[number]]): poison for number, poison in enumerate(POISONS)}
    running.poison |= {identity: poison.name for identity, poison in expected.items()}
    running.judge(f"{len(POISONS)} kinds of poison among good")
    for letter in pipeline.dead_letters():
        poison = expected[source(letter)]
        given = headers(letter)
        assert given["reason"] == poison.reason, (poison.name, given)
        assert given.get("sqlstate", "") == poison.sqlstate, (poison.name, given)
        assert given["time"]
        assert given["error_class"]
        assert letter.value() == messages[at[POISONS.index(poison)]][1], poison.name
    with psycopg.connect(pipeline.dsn) as connection:
        poisoned = [gpu_uuid(POISONED_GPU + number) for number in range(len(POISONS) + 500)]
        stored = connection.execute(
            "SELECT gpu_uuid FROM gpu_metrics JOIN gpus USING (gpu_id) WHERE gpu_uuid = ANY(%s)", [poisoned]
        ).fetchall()
    assert stored == []


def test_poison_among_gpu_events(running: Running) -> None:
    """The rare topic too: bad events become dead letters, the good ones between them rows."""
    pipeline = running.pipeline
    good = [gpu_event(f"good-{number}") for number in range(6)]
    bad: list[bytes | None] = [
        b"not JSON",
        None,
        encode(gpu_event("bad", schema_version=2)),
        encode(gpu_event("bad", detail={"note": NUL})),
        encode(gpu_event("bad", instance_id=40_000)),
        encode({"schema_version": 1, "kind": "no time"}),
    ]
    messages = [
        (f"host-{n}", value) for n, pair in enumerate(zip(map(encode, good), bad, strict=True)) for value in pair
    ]
    placed = pipeline.produce(messages, pipeline.topic_events)
    running.poison |= {(pipeline.topic_events, *place): "bad event" for place in placed[1::2]}
    running.judge("6 bad GPU events among 6 good ones")
    with psycopg.connect(pipeline.dsn) as connection:
        kinds = connection.execute("SELECT kind FROM gpu_events WHERE kind LIKE 'good-%' ORDER BY kind").fetchall()
        assert [kind for (kind,) in kinds] == [f"good-{number}" for number in range(6)]
        assert connection.execute("SELECT FROM gpu_events WHERE kind = 'bad'").fetchall() == []


def test_extremes_are_kept_or_refused_but_never_stop_it(running: Running) -> None:
    """Valid documents at the edge of what a database takes: each is a row or a dead letter, and the rest goes on."""
    nested: object = 1
    for _ in range(900):
        nested = {"a": nested}
    extremes: list[dict[str, Any]] = [
        {"extra": {"nested": nested}},
        {"extra": {"list": [[]] * 50_000}},
        {"extra": {"labels": {"long": "x" * 800_000}}},
        {"extra": {"metrics": {"big": 10**300, "small": 1e-300}}},
        {"extra": {"k" * 60_000: 1}},
        {"resets": {"ecc_sbe_vol_total": 10**4_000}},
        {"tenant": {"pod": "\U0001f680" * 1_000, "namespace": "", "container": "\u202e\ufeff"}},
        {"status": {"tag": "prod", "memo": "'; DROP TABLE gpu_metrics; --"}},
    ]
    messages = [running.good(**extreme) for extreme in extremes]
    ordinary = [running.good() for _ in range(50)]
    placed = running.pipeline.produce([(k, encode(document)) for k, document in [*messages, *ordinary]])
    running.pipeline.quiet(running.collector)
    running.pipeline.wait_drained()
    letters = {source(letter) for letter in running.pipeline.dead_letters()}
    refused = [n for n in range(len(extremes)) if (running.pipeline.topic, *placed[n]) in letters]
    print(f"{len(extremes)} extremes: {len(extremes) - len(refused)} rows, {len(refused)} dead letters {refused}")
    for number in refused:
        running.poison[(running.pipeline.topic, *placed[number])] = "extreme"
        running.refused.add((messages[number][0], messages[number][1]["metrics"]["total_energy_consumption"]))
    running.judge("the same, and 50 ordinary ones")


def test_many_bad_rows_in_a_batch(running: Running) -> None:
    """Every tenth row of 500 is refused by the database: bisecting finds each, and writes all the others."""
    messages: list[tuple[str, Document]] = []
    bad: list[int] = []
    for number in range(500):
        if number % 10 == 3:
            bad.append(len(messages))
            gpu = POISONED_GPU + 100 + number
            messages.append((gpu_uuid(gpu), event(gpu, 1, metrics={"gpu_temp": REFUSED_TEMPERATURE})))
        else:
            messages.append(running.good())
    placed = running.pipeline.produce([(key, encode(document)) for key, document in messages])
    running.poison |= {(running.pipeline.topic, *placed[number]): "refused" for number in bad}
    running.judge("50 refused rows among 450 good ones")
    assert running.sink.metric("gpumon_sink_batches_total", path="bisected") > 0, "the rung was not hit"


def test_every_message_twice(running: Running) -> None:
    """The same batch again, and each new message two times in a row."""
    pipeline = running.pipeline
    again = [m for m in pipeline.messages() if pipeline.sample(m.value()) not in {None, *running.refused}]
    before = running.sink.metric("gpumon_sink_rows_duplicate_total")
    pipeline.produce([(key(m), m.value()) for m in again])
    new = [running.good() for _ in range(300)]
    running.put([message for message in new for _ in range(2)])
    running.judge(f"{len(again)} messages again, 300 new ones two times each")
    duplicates = running.sink.metric("gpumon_sink_rows_duplicate_total") - before
    assert duplicates == len(again) + 300
    assert running.sink.metric("gpumon_sink_batches_total", path="staged") > 0, "the rung was not hit"


def test_late_and_out_of_order(running: Running) -> None:
    """Samples of five days, shuffled; half of them again after their chunks were compressed, with new ones between."""
    ages = [random.uniform(0, 5 * 86_400) for _ in range(300)]
    late = [running.good(ago=age) for age in ages]
    running.put(late)
    running.judge("300 samples of five days, out of order")
    with psycopg.connect(running.pipeline.dsn, autocommit=True) as connection:
        compressed = connection.execute(
            "SELECT count(compress_chunk(c, if_not_compressed => true))"
            " FROM show_chunks('gpu_metrics', older_than => INTERVAL '2 hours') c"
        ).fetchone()
    assert compressed is not None
    assert compressed[0] > 100
    mixed = late[:150] + [running.good(ago=age + 1) for age in ages[150:]]
    random.shuffle(mixed)
    running.put(mixed)
    running.judge(f"150 repeats and 150 new late ones into {compressed[0]} compressed chunks")


def test_clock_in_the_future(running: Running) -> None:
    """A clock a little ahead is believed, one far ahead is not: MAX_FUTURE is 300 s."""
    near = [running.good(ago=-250.0) for _ in range(20)]
    running.put(near)
    far = [(gpu_uuid(POISONED_GPU + 700 + n), event(POISONED_GPU + 700 + n, 1, ago=-600.0)) for n in range(20)]
    placed = running.pipeline.produce([(key, encode(document)) for key, document in far])
    running.poison |= {(running.pipeline.topic, *place): "in the future" for place in placed}
    running.judge("20 samples 250 s ahead kept, 20 samples 600 s ahead refused")


def test_new_field_and_new_metric(running: Running) -> None:
    """What a newer collector sends is kept in `extra`, and so is a series the collector does not know."""
    key, document = running.good(new_field={"deep": [1, 2.5, "three"]})
    document["metrics"]["new_metric"] = 42
    document["tenant"] = {"pod": "trainer-0", "new_owner": "team-a"}
    running.put([(key, document)])
    running.judge("one event with unknown fields")
    (row,) = running.rows(key, document["metrics"]["total_energy_consumption"])
    assert row["gpu_temp"] == 50
    assert row["pod"] == "trainer-0"
    assert row["extra"]["fields"] == {
        "new_field": {"deep": [1, 2.5, "three"]},
        "metrics.new_metric": 42,
        "tenant.new_owner": "team-a",
    }
    (row,) = running.rows(gpu_uuid(running.pipeline.first_gpu), 2)
    assert row["extra"]["metrics"] == {"DCGM_FI_DEV_NEVER_HEARD_OF": 2.5}, json.dumps(row["extra"])
    (row,) = running.rows(gpu_uuid(running.pipeline.first_gpu + 1), 2)
    assert row["extra"] is None
