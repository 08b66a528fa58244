"""The sink killed with SIGKILL at every point a batch passes, on every rung of the ladder, and at random instants.

Each death is of a real process under load; a successor takes its place in the group and must find everything as it was.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator

import psycopg
import pytest

from tests.faults.events import POISONED_GPU, REFUSED_TEMPERATURE, encode, event
from tests.faults.exporter import gpu_uuid
from tests.faults.harness import Pipeline, key, place, source
from tests.support.processes import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timescale]

RUNGS = {
    "direct": ("copied_direct", ["before_copy", "copied_direct", "before_commit", "after_db_commit"]),
    "staged": ("staged", ["staged", "before_commit", "after_db_commit"]),
    "bisected": ("bisecting", ["bisecting", "before_commit", "after_db_commit"]),
}
LONG = {("direct", "before_copy"), ("direct", "after_offset_commit"), ("staged", "before_commit"),
        ("staged", "after_offset_commit"), ("bisected", "after_offset_commit")}  # fmt: skip
"""Nearly the same as their neighbours: not in the quick run."""
DEATHS = [
    pytest.param(rung, point, marks=[pytest.mark.long] if (rung, point) in LONG else [])
    for rung, (_, points) in RUNGS.items()
    for point in [*points, "after_offset_commit"]
]


class Running:
    """One pipeline under load for all deaths; each test brings its own sinks."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.collector = pipeline.collector()
        self.poison: set[tuple[int, int]] = set()
        self._poisoned = POISONED_GPU
        first = pipeline.sink()
        pipeline.wait_for_rows()
        first.stop()

    def provoke(self, rung: str) -> None:
        """Put into the topic what sends the sink up to `rung`."""
        if rung == "staged":
            self.repeat_some()
        if rung == "bisected":
            self.poison_some()

    def repeat_some(self) -> None:
        """Messages that are rows already."""
        written = self.pipeline.written()
        old = []
        for message in self.pipeline.messages():
            partition, offset = place(message)
            if offset < written.get(partition, 0) and self.pipeline.sample(message.value()) is not None:
                old.append(message)
        self.pipeline.produce([(key(m), m.value()) for m in old[-400:]])

    def poison_some(self) -> None:
        """Rows the database refuses, two to a batch or so."""
        self._poisoned += 10
        gpus = range(self._poisoned, self._poisoned + 3)
        bad = [(gpu_uuid(gpu), encode(event(gpu, 1, metrics={"gpu_temp": REFUSED_TEMPERATURE}))) for gpu in gpus]
        self.poison |= set(self.pipeline.produce(bad))

    def judge(self, what: str) -> None:
        accepted = self.pipeline.quiet(self.collector)
        self.pipeline.wait_drained()
        topic = self.pipeline.in_topic()
        balance = self.pipeline.balance(set(topic))
        letters = Counter(source(m)[1:] for m in self.pipeline.dead_letters())
        repeated = letters.total() - len(letters)
        print(f"{what}: {balance}, of them {repeated} repeats; {len(self.poison)} poisonous")
        self.pipeline.exporter.resume()
        assert accepted == len(topic), "the collector's count is not what is in the topic"
        assert (balance.lost, balance.twice, balance.invented) == (0, 0, 0), balance
        assert set(letters) == self.poison, "dead letters are not exactly the poison"


@pytest.fixture(scope="module")
def running(kafka: str, timescale: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    pipeline = Pipeline(tmp_path_factory.mktemp("pipeline"), kafka, timescale)
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


@pytest.mark.parametrize(("rung", "point"), DEATHS)
def test_killed_at(rung: str, point: str, running: Running) -> None:
    pipeline = running.pipeline
    mark, _ = RUNGS[rung]
    running.provoke(rung)
    before_it = point in ("before_copy", mark)
    doomed = pipeline.sink_that_dies(point, "" if before_it else mark, hit=2 if point == "bisecting" else 1)
    assert doomed.wait(60) == -signal.SIGKILL, doomed.tail(20)
    assert f"dying at {point}" in doomed.log
    if not before_it and point != "after_offset_commit":
        assert mark in doomed.log.partition("this batch passed")[2], "the rung was not hit"
    successor = pipeline.sink()
    running.judge(f"sink killed at {point} ({rung})")
    successor.stop()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_killed_at_20_random_instants(running: Running) -> None:
    """Under load, with repeats and poison in the stream, so that all rungs are under way when it dies."""
    seed = random.randrange(1_000_000)
    generator = random.Random(seed)
    instants = [generator.uniform(0.0, 2.0) for _ in range(20)]
    print(f"seed {seed}; seconds after the start of its work: {', '.join(f'{instant:.3f}' for instant in instants)}")
    for instant in instants:
        running.repeat_some()
        running.poison_some()
        doomed = running.pipeline.sink()
        wait_until(
            lambda d=doomed: d.metric("gpumon_sink_messages_total") > 0,  # type: ignore[misc]  # bound now
            within=60,
            what="a sink at work",
        )
        time.sleep(instant)  # the instant is the fault itself
        doomed.kill()
    successor = running.pipeline.sink()
    running.judge("sink killed at 20 random instants")
    successor.stop()
