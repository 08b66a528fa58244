"""Documents of an exporter of ours: fetched when its gauge changes, published once, never at a sample's cost."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from services.collector.batch import Batch
from services.collector.publish import MAX_VALUE_BYTES
from services.collector.scrape import ScrapeFailedError, snapshot_url
from services.collector.snapshots import Snapshots
from services.collector.targets import Target, parse_static

TARGET = parse_static("gpu1:9400")
HOSTS = {"GPU-1": "node-1"}


def document(gpu: str | None = "GPU-1", hash_: str = "a", second: int = 1, xml: str = "<gpu/>") -> dict[str, Any]:
    return {
        "gpu_uuid": gpu,
        "time": f"2026-01-01T00:00:0{second}.500Z",
        "hash": hash_,
        "content": {"format": "nvidia-smi-xml", "xml": xml},
    }


def answer(*documents: dict[str, Any]) -> bytes:
    return json.dumps({"hostname": "pod-7", "documents": documents}).encode()


class Bench:
    def __init__(self) -> None:
        self.answers: list[bytes | Exception] = []
        self.fetched = 0
        self.batches: list[Batch] = []
        self.room = True
        self.counts: Counter[str] = Counter()
        self.snapshots = self.make()

    def make(self) -> Snapshots:
        return Snapshots(
            TARGET,
            fetch=self.fetch,
            offer=self.offer,
            topic="events",
            executor=ThreadPoolExecutor(1),
            counts=self.counts,
        )

    async def fetch(self, target: Target) -> bytes:
        assert target is TARGET
        self.fetched += 1
        given = self.answers.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    def offer(self, batch: Batch) -> bool:
        if self.room:
            self.batches.append(batch)
        return self.room

    def scrapes(self, *gauges: float | None) -> None:
        """As many scrapes, each with what follows from it."""

        async def main() -> None:
            for gauge in gauges:
                self.snapshots.follow(gauge, lambda: HOSTS)
                if self.snapshots._task is not None:
                    await asyncio.wait([self.snapshots._task])
            await self.snapshots.close()

        asyncio.run(main())

    def published(self) -> list[dict[str, Any]]:
        found = [json.loads(value) for batch in self.batches for _, _, value in batch.messages]
        self.batches.clear()
        return found


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_document_becomes_an_event(bench: Bench) -> None:
    bench.answers = [answer(document(), document(None))]
    bench.scrapes(17.0)
    (batch,) = bench.batches
    assert [(topic, key) for topic, key, _ in batch.messages] == [("events", "GPU-1"), ("events", "gpu1:9400")]
    one, host = bench.published()
    assert one == {
        "schema_version": 1,
        "time": "2026-01-01T00:00:01.500000Z",
        "kind": "snapshot",
        "hostname": "node-1",  # as its samples have it
        "gpu_uuid": "GPU-1",
        "detail": {"document": "nvidia-smi", "hash": "a", "content": {"format": "nvidia-smi-xml", "xml": "<gpu/>"}},
        "source": "gpu1:9400",
    }
    assert (host["hostname"], "gpu_uuid" in host) == ("pod-7", False)
    assert bench.counts == {"published": 2}


def test_an_exporter_that_does_not_say_its_host(bench: Bench) -> None:
    bench.answers = [json.dumps({"hostname": None, "documents": [document("GPU-9"), document()]}).encode()]
    bench.scrapes(1.0)
    assert [e["hostname"] for e in bench.published()] == ["gpu1", "node-1"]


def test_asked_only_when_the_gauge_changes(bench: Bench) -> None:
    bench.answers = [answer(document()), answer(document())]
    bench.scrapes(None, None)
    assert bench.fetched == 0
    bench.scrapes(17.0, 17.0, None, 17.0, 18.0, 18.0)
    assert bench.fetched == 2
    assert len(bench.published()) == 1, "the gauge changed, the document did not"


def test_published_again_on_change_and_on_the_slow_clock(bench: Bench) -> None:
    other = document("GPU-2")
    bench.answers = [
        answer(document(), other),
        answer(document(hash_="b", second=2), other),
        answer(document(hash_="b", second=3), other),
    ]
    bench.scrapes(1.0, 2.0, 3.0)
    told = [(e["gpu_uuid"], e["detail"]["hash"], e["time"][17:19]) for e in bench.published()]
    assert told == [("GPU-1", "a", "01"), ("GPU-2", "a", "01"), ("GPU-1", "b", "02"), ("GPU-1", "b", "03")]


def test_a_restart_repeats_nothing(bench: Bench) -> None:
    bench.answers = [answer(document()), answer(document())]
    bench.scrapes(1.0)
    saved = json.loads(json.dumps(bench.snapshots.checkpoint()))
    assert len(bench.published()) == 1
    bench.snapshots = bench.make()
    bench.snapshots.restore(saved)
    bench.scrapes(1.0)
    assert (bench.fetched, bench.published()) == (2, [])


BROKEN = [
    ScrapeFailedError("http_status", "HTTP 404 Not Found"),
    b"<html>",
    b'{"hostname": "h"}',
    b'{"hostname": 7, "documents": []}',
    b'{"hostname": "h", "documents": ' + b"[" * 100_000,
    b"\xff\xfe",
    IndexError("bug"),
]


@pytest.mark.parametrize("broken", BROKEN, ids=range(len(BROKEN)))
def test_a_failure_is_told_once_and_tried_again(
    bench: Bench, broken: bytes | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    bench.answers = [broken, broken, broken, answer(document())]
    bench.scrapes(1.0, 1.0, 1.0)
    assert caplog.text.count("no snapshots: tried again after each scrape") == 1
    assert sum(bench.counts.values()) == 3
    bench.scrapes(1.0, 1.0)
    assert (bench.fetched, len(bench.published())) == (4, 1)
    assert caplog.text.count("snapshots are back") == 1


ODD = [
    {"time": "9999-12-31T23:59:59-14:00"},
    {"time": "0001-01-01T00:00:00+14:00"},
    {"time": "yesterday"},
    {"content": "<gpu/>"},
    {"hash": None},
    {"gpu_uuid": 7},
    {"content": {"xml": "\udcff"}},
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_one_odd_document_holds_up_no_other(
    bench: Bench, odd: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    one = document("GPU-0") | odd
    bodies = [
        json.dumps({"hostname": "h", "documents": [one, document(second=second)]}, ensure_ascii=False)
        for second in (1, 2)
    ]
    bench.answers = [body.encode(errors="surrogateescape") for body in bodies]
    bench.scrapes(1.0, 1.0, 2.0, 2.0)
    assert bench.fetched == 2
    assert [e["gpu_uuid"] for e in bench.published()] == ["GPU-1"] * 2
    assert caplog.text.count("cannot be used") == 1
    assert "Traceback" not in caplog.text
    assert bench.counts == {"published": 2, "bad_document": 2}


def test_a_document_that_kafka_would_not_take(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    large = document("GPU-2", xml="x" * MAX_VALUE_BYTES)
    bench.answers = [answer(document(), large), answer(document(), large)]
    bench.scrapes(1.0, 2.0)
    assert [e["gpu_uuid"] for e in bench.published()] == ["GPU-1"]
    assert caplog.text.count("too large for Kafka") == 1
    assert bench.counts == {"published": 1, "too_large": 1}


def test_no_room_for_it_is_tried_again(bench: Bench) -> None:
    bench.answers = [answer(document()), answer(document())]
    bench.room = False
    bench.scrapes(1.0)
    bench.room = True
    bench.scrapes(1.0)
    assert (bench.fetched, len(bench.published()), bench.counts["backlog"]) == (2, 1, 1)


def test_one_at_a_time_and_none_left_behind(bench: Bench) -> None:
    async def main() -> None:
        hanging = asyncio.Event()

        async def hang(_: Target) -> bytes:
            bench.fetched += 1
            await hanging.wait()
            return b""

        snapshots = Snapshots(
            TARGET, fetch=hang, offer=bench.offer, topic="t", executor=ThreadPoolExecutor(1), counts=bench.counts
        )
        for gauge in (1.0, 2.0, 3.0):
            snapshots.follow(gauge, lambda: HOSTS)
            await asyncio.sleep(0)
        assert bench.fetched == 1
        await snapshots.close()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    ("metrics", "snapshot"),
    [
        ("http://gpu1:9400/metrics", "http://gpu1:9400/snapshot"),
        ("https://u:p@gpu1:9400/gpu/metrics?x=1", "https://u:p@gpu1:9400/gpu/snapshot"),
        ("http://gpu1:9400/", "http://gpu1:9400/snapshot"),
        ("http://gpu1:9400", "http://gpu1:9400/snapshot"),
    ],
)
def test_its_address(metrics: str, snapshot: str) -> None:
    assert snapshot_url(metrics) == snapshot
