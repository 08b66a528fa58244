"""One target's life, with a clock moved by hand and a reader that says what it is told."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from services.collector.batch import Batch
from services.collector.pool import Pool
from services.collector.reader import Reading, ScrapeRefused
from services.collector.scrape import ScrapeFailedError
from services.collector.targets import Target, parse_static
from services.collector.worker import INLINE_BYTES, Shared, Worker
from services.contract.event import Event, Gpu, GpuEvent, Metrics, Status

TARGET = parse_static("gpu1:9400")
START = 1_700_000_000_000


class ManualClock:
    """Sleeping moves it; `late` ms are added to each awakening."""

    def __init__(self, ticks: int, late: int = 0) -> None:
        self._now = START
        self._left = ticks
        self._late = late

    def now(self) -> int:
        return self._now

    async def sleep_until(self, when: int) -> None:
        if self._left == 0:
            await asyncio.Event().wait()
        self._left -= 1
        self._now = max(self._now, when) + self._late
        await asyncio.sleep(0)

    def advance(self, milliseconds: int) -> None:
        self._now += milliseconds


class FakeReader:
    hostname: str | None = "node-7"

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.times: list[dt.datetime] = []
        self.statuses: list[Status | None] = []
        self.threads: set[int] = set()
        self.restored: Mapping[str, Any] | None = None
        self.gate: threading.Event | None = None
        self.snapshot: float | None = None

    def read(self, body: bytes, time: dt.datetime, status: Status | None = None) -> Reading:
        self.threads.add(threading.get_ident())
        if self.gate is not None:
            self.gate.wait(5)
        if body == b"stale":
            refused = ScrapeRefused("stale", "too old")
            refused.happenings = (GpuEvent(schema_version=1, time=time, kind="xid", gpu_uuid="GPU-1", code=119),)
            raise refused
        if body == b"garbage":
            raise ScrapeRefused("not_an_exposition", "line 1")
        self.bodies.append(body)
        self.times.append(time)
        self.statuses.append(status)
        event = Event(schema_version=1, time=time, gpu=Gpu(uuid="GPU-1", hostname="h"), metrics=Metrics())
        return Reading([event], [], 7, 2, self.snapshot)

    def checkpoint(self) -> dict[str, Any]:
        return {"bodies": len(self.bodies)}

    def restore(self, state: Mapping[str, Any]) -> None:
        if "bodies" not in state:
            raise ValueError("not a checkpoint")
        self.restored = state


class Bench:
    def __init__(self, answers: list[bytes | ScrapeFailedError], clock: ManualClock | None = None) -> None:
        self.answers = list(answers)
        self.batches: list[Batch] = []
        self.snapshots: list[bytes | ScrapeFailedError] = []
        self.reader = FakeReader()
        self.room = True
        self.clock = clock or ManualClock(len(answers))
        self.shared = Shared(
            interval=10_000,
            tolerance=5,
            topic="metrics",
            topic_events="events",
            fetch=self.fetch,
            fetch_snapshot=self.fetch_snapshot,
            offer=self.offer,
            status=lambda _: Status(tag="bench"),
            executor=ThreadPoolExecutor(1),
            clock=self.clock,
        )
        self.worker = Worker(TARGET, self.reader, self.shared)

    async def fetch(self, target: Target) -> bytes:
        answer = self.answers.pop(0)
        if isinstance(answer, ScrapeFailedError):
            raise answer
        return answer

    async def fetch_snapshot(self, target: Target) -> bytes:
        answer = self.snapshots.pop(0)
        if isinstance(answer, ScrapeFailedError):
            raise answer
        return answer

    def offer(self, batch: Batch) -> bool:
        if self.room:
            self.batches.append(batch)
        return self.room

    def run(self) -> None:
        async def main() -> None:
            task = asyncio.create_task(self.worker.run())
            while self.answers:
                await asyncio.sleep(0)
            for _ in range(20):
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        asyncio.run(main())

    def kinds(self) -> list[str]:
        """Of what was offered: `sample`, or the kind of a GpuEvent."""
        return [
            "sample" if topic == "metrics" else msgspec.json.decode(value, type=GpuEvent).kind
            for batch in self.batches
            for topic, _, value in batch.messages
        ]


def test_samples_are_offered_under_their_planned_time() -> None:
    bench = Bench([b"x", b"y"], ManualClock(2, late=3))
    bench.run()
    assert bench.kinds() == ["sample", "sample"]
    [first, second] = bench.reader.times
    assert second - first == dt.timedelta(seconds=10)
    assert bench.batches[0].messages[0][1] == "GPU-1"
    assert bench.shared.on_plan == 2
    assert bench.reader.statuses == [Status(tag="bench")] * 2


def test_a_late_start_is_told_as_it_was() -> None:
    bench = Bench([b"x"], ManualClock(1, late=40))
    bench.run()
    planned = Worker(TARGET, bench.reader, bench.shared)._schedule.next(START).planned
    assert bench.reader.times[0].timestamp() * 1000 == planned + 40
    assert bench.shared.on_plan == 0


def test_a_target_that_goes_and_comes_is_reported_once_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    down = ScrapeFailedError("refused", "nobody there")
    bench = Bench([b"x", down, down, ScrapeFailedError("timeout", "slow"), b"y", b"z"])
    bench.run()
    assert bench.kinds() == ["sample", "target_down", "sample", "target_up", "sample"]
    assert bench.shared.refused == {"refused": 2, "timeout": 1}
    assert caplog.text.count("target is down") == 1
    assert caplog.text.count("target is up") == 1
    event = msgspec.json.decode(bench.batches[1].messages[0][2], type=GpuEvent)
    assert event.detail == {"reason": "refused", "detail": "nobody there"}
    assert (event.source, event.hostname, event.gpu_uuid) == ("gpu1:9400", "node-7", None)
    assert bench.batches[1].messages[0][1] == "gpu1:9400"


def test_a_refused_body_is_down_too_and_offers_no_sample() -> None:
    bench = Bench([b"garbage", b"x"])
    bench.run()
    assert bench.kinds() == ["target_down", "sample", "target_up"]
    assert bench.shared.refused == {"not_an_exposition": 1}
    assert bench.worker.seen.samples == 7


def test_a_target_that_was_never_up_is_down_once() -> None:
    bench = Bench([ScrapeFailedError("refused", "")] * 3)
    bench.run()
    assert bench.kinds() == ["target_down"]
    assert bench.worker.seen.up is False
    assert bench.worker.seen.last_success is None


def test_no_room_is_a_refused_scrape() -> None:
    bench = Bench([b"x"])
    bench.room = False
    bench.run()
    assert bench.shared.refused == {"backlog": 1}


def test_missed_ticks_are_counted() -> None:
    bench = Bench([b"x", b"y"])
    fetch = bench.fetch

    async def slow(target: Target) -> bytes:
        bench.clock.advance(25_000)
        return await fetch(target)

    bench.shared.fetch = slow
    bench.run()
    assert bench.worker.seen.missed == 4, "two for each of two scrapes"


def test_a_large_body_is_read_in_another_thread() -> None:
    bench = Bench([b"x" * INLINE_BYTES, b"x" * (INLINE_BYTES + 1)])
    bench.run()
    assert len(bench.reader.threads) == 2
    assert threading.get_ident() in bench.reader.threads


def test_cancelled_while_reading_the_scrape_is_finished_first() -> None:
    bench = Bench([b"x" * (INLINE_BYTES + 1)])
    bench.reader.gate = threading.Event()

    async def main() -> None:
        task = asyncio.create_task(bench.worker.scrape(START))
        while not bench.reader.threads:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.sleep(0.01)
        assert bench.reader.gate is not None
        bench.reader.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert bench.kinds() == ["sample"]


def test_memory_over_a_restart() -> None:
    bench = Bench([ScrapeFailedError("refused", "")])
    bench.run()
    again = Bench([ScrapeFailedError("refused", ""), b"x"])
    again.worker.restore(bench.worker.checkpoint())
    again.run()
    assert again.kinds() == ["sample", "target_up"], "down was reported before the restart"
    assert again.reader.restored == {"bodies": 0}


@pytest.mark.parametrize("state", [{}, {"up": True}, {"up": True, "reader": {}}])
def test_a_state_that_cannot_be_read_is_dropped(state: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench([])
    bench.worker.restore(state)
    assert bench.worker.seen.up is None
    assert "saved state not usable" in caplog.text


def test_the_pool_follows_the_list() -> None:
    made: list[Target] = []

    async def main() -> None:
        def make(target: Target) -> Worker:
            made.append(target)
            return Worker(target, FakeReader(), bench.shared)

        bench = Bench([], ManualClock(0))
        pool = Pool(make, {"a:1": {"up": False, "reader": {"bodies": 5}}})
        await pool.follow([parse_static("a:1"), parse_static("b:1")])
        first = {worker.target.source: worker for worker in pool.workers}
        assert first["a:1"].seen.up is False
        relabelled = Target("b:1", "http://b:1/metrics", "b:1", {"rack": "new"})
        await pool.follow([parse_static("a:1"), relabelled, parse_static("c:1")])
        now = {worker.target.source: worker for worker in pool.workers}
        assert list(now) == ["a:1", "b:1", "c:1"]
        assert now["a:1"] is first["a:1"]
        assert now["b:1"] is not first["b:1"]
        assert now["b:1"].checkpoint()["reader"] == {"bodies": 0}
        await pool.follow([parse_static("c:1")])
        assert [worker.target.source for worker in pool.workers] == ["c:1"]
        assert list(await pool.stop()) == ["c:1"], "what is gone is forgotten"

    asyncio.run(main())
    assert [target.source for target in made] == ["a:1", "b:1", "b:1", "c:1"]


def test_a_fault_of_ours_costs_one_scrape_of_one_target(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench([b"x", b"y", b"z"])
    read = bench.reader.read

    def broken(body: bytes, time: dt.datetime, status: Status | None = None) -> Reading:
        if body == b"y":
            raise IndexError("bug")
        return read(body, time, status)

    bench.reader.read = broken  # type: ignore[method-assign]  # on purpose
    bench.run()
    assert bench.kinds() == ["sample", "target_down", "sample", "target_up"]
    assert bench.shared.refused == {"internal_error": 1}
    assert "IndexError: bug" in caplog.text, "with its traceback"


def test_a_task_that_breaks_is_noticed() -> None:
    class BrokenClock(ManualClock):
        async def sleep_until(self, when: int) -> None:
            raise IndexError

    async def main() -> None:
        bench = Bench([], BrokenClock(1))
        pool = Pool(lambda target: Worker(target, FakeReader(), bench.shared), {})
        await pool.follow([TARGET])
        for _ in range(10):
            await asyncio.sleep(0)
        assert isinstance(pool.failure(), IndexError)

    asyncio.run(main())


def test_documents_are_fetched_beside_the_scrapes_and_remembered() -> None:
    document = (
        b'{"hostname": "h", "documents": [{"gpu_uuid": "GPU-1", "time": "2026-01-01T00:00:00Z", "hash": "a", '
        b'"content": {"xml": "<gpu/>"}}]}'
    )
    bench = Bench([b"x", b"y"])
    bench.reader.snapshot = 1.0
    bench.snapshots = [ScrapeFailedError("timeout", "slow"), document]
    bench.run()
    assert sorted(bench.kinds()) == ["sample", "sample", "snapshot"]
    assert bench.shared.refused == {}
    assert bench.shared.snapshots == {"timeout": 1, "published": 1}
    state = bench.worker.checkpoint()
    assert state["snapshots"] == {"GPU-1": ["a", "2026-01-01T00:00:00+00:00"]}
    again = Bench([])
    again.worker.restore(state)
    assert again.worker.checkpoint()["snapshots"] == state["snapshots"]


def test_what_a_refused_scrape_says_all_the_same() -> None:
    bench = Bench([b"stale", b"x"])
    bench.run()
    assert bench.kinds() == ["target_down", "xid", "sample", "target_up"]


def test_events_of_a_target_carry_the_hosts_status() -> None:
    bench = Bench([b"garbage"])
    bench.run()
    ((_, _, value),) = bench.batches[0].messages
    assert msgspec.json.decode(value, type=GpuEvent).status == Status(tag="bench")


def test_what_was_cut_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench([b"x"] * 5)
    cuts = iter((7, 7, 0, 5, 5))
    read = bench.reader.read

    def cutting(body: bytes, time: dt.datetime, status: Status | None = None) -> Reading:
        return dataclasses.replace(read(body, time, status), cut=next(cuts))

    bench.reader.read = cutting  # type: ignore[method-assign]  # the double, with one more thing to say
    bench.run()
    assert bench.shared.cut == 24
    assert caplog.text.count("more series than are taken") == 2, "and again when it begins again"
