"""The run, with a clock that a wait moves: phases, the limit, and what is put back on any end."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.burn.drive import Drive, Now, Outcome, Result
from services.burn.journal import Journal
from services.burn.plan import Phase, Plan
from services.burn.watch import Watch
from services.contract.event import Status
from services.host import status
from services.host.live import Look, State
from services.host.series import Sample
from services.host.stop import Stop
from services.host.tags import Tags
from services.host.telemetry import Gpu
from tests.support.clock import HandClock

BEFORE = Status(tag="prod", memo="before")


class FakeStop(Stop):
    """`at`: when the signal comes."""

    def __init__(self, clock: HandClock, at: float = float("inf")) -> None:
        super().__init__()
        self._clock, self._at = clock, at

    def wait(self, seconds: float) -> None:
        self._clock.now += seconds
        if self._clock.now >= self._at:
            self._handle(15, None)


class FakeMonitor:
    """What `state` says at a time."""

    def __init__(self, clock: HandClock, state: Callable[[float], State]) -> None:
        self._clock, self._state = clock, state

    def state(self) -> State:
        return self._state(self._clock.now - 1000.0)


@dataclass
class FakeScreen:
    shown: list[Now] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    error: Exception | None = None

    def show(self, now: Now) -> None:
        if self.error:
            raise self.error
        self.shown.append(now)

    def say(self, line: str) -> None:
        self.said.append(line)

    def close(self) -> None: ...


def at(temp: float) -> Callable[[float], State]:
    return lambda now: State((Look(Gpu("GPU-1", 0), Sample(now, temp)),), 0.1, None, 1)


class Run:
    """A run of 10 s idle, 100 s of no load, 20 s cool-down."""

    def __init__(self, tmp_path: Path, *, final: Status | None = None, signal_at: float = float("inf"),
                 state: Callable[[float], State] | None = None, must_watch: bool = False,
                 idle: float = 10) -> None:  # fmt: skip
        self.path = tmp_path / "status.json"
        status.write(self.path, BEFORE)
        self.clock = HandClock(1000.0)
        self.screen = FakeScreen()
        self.journal = Journal(tmp_path / "logs", "burn-1", self.clock)
        self.tags = Tags(self.path, final, self.journal.tell)
        phases = (
            Phase("pre-idle", Status(tag="idle", memo="pre"), idle),
            Phase("burn", Status(tag="bench", memo="burn"), 100),
            Phase("post", Status(tag="idle", memo="post"), 0),
            Phase("cool-down", Status(tag="idle", memo="cool"), 20),
        )
        monitor: Any = FakeMonitor(self.clock, state) if state else None
        self.drive = Drive(
            Plan(phases, final, "none"), ([], None), tags=self.tags, journal=self.journal, screen=self.screen,
            stop=FakeStop(self.clock, 1000 + signal_at), clock=self.clock, monitor=monitor, watch=Watch(90),
            must_watch=must_watch,
        )  # fmt: skip

    def go(self) -> Outcome:
        self.tags.begin()
        try:
            return self.drive.run()
        finally:
            self.journal.close()

    def tag(self) -> Status | None:
        return status.read(self.path)


def test_phases_take_their_time(tmp_path: Path) -> None:
    run = Run(tmp_path)
    outcome = run.go()
    assert outcome.result is Result.COMPLETED
    lengths = [(p["name"], float(p["end"]) - float(p["begin"])) for p in outcome.phases]
    assert lengths == [("pre-idle", 10), ("burn", 100), ("post", 0), ("cool-down", 20)]
    assert (outcome.begin, outcome.end) == (1010, 1110)
    assert run.tag() == BEFORE
    assert run.screen.shown[0].remaining == 130
    assert run.screen.shown[-1].remaining == pytest.approx(0.25)


def test_the_final_tag_asked_for(tmp_path: Path) -> None:
    run = Run(tmp_path, final=Status(tag="idle", memo="end"))
    run.go()
    assert run.tag() == Status(tag="idle", memo="end")


@pytest.mark.parametrize("when", [5, 50, 115])
def test_a_signal_in_any_phase(tmp_path: Path, when: float) -> None:
    run = Run(tmp_path, signal_at=when)
    outcome = run.go()
    assert (outcome.result, outcome.reason) == (Result.INTERRUPTED, "SIGTERM received")
    assert run.clock.now < 1000 + when + 1
    assert run.tag() == BEFORE
    assert (outcome.begin is None) == (when == 5)


def test_too_hot_ends_it_at_once(tmp_path: Path) -> None:
    run = Run(tmp_path, state=at(91))
    outcome = run.go()
    assert outcome.result is Result.TOO_HOT
    assert outcome.end is not None
    assert outcome.begin is not None
    assert outcome.end - outcome.begin < 1
    assert [phase["name"] for phase in outcome.phases] == ["pre-idle", "burn"]
    assert run.tag() == BEFORE


def test_heat_outside_the_burn_is_not_the_burns(tmp_path: Path) -> None:
    hot_before = lambda now: at(95 if now < 10 else 60)(now)  # noqa: E731
    assert Run(tmp_path, state=hot_before).go().result is Result.COMPLETED


def blind(now: float) -> State:
    """The driver answers until 20 s, and never again."""
    return State((Look(Gpu("GPU-1", 0), Sample(min(now, 20), 60)),), max(now - 20, 0), "hung", 20)


def test_a_limit_that_was_asked_for_is_not_kept_blindly(tmp_path: Path) -> None:
    run = Run(tmp_path, state=blind, must_watch=True)
    outcome = run.go()
    assert outcome.result is Result.FAILED
    assert outcome.reason == "no temperature of GPU 0 for 60 s (hung): --max-temp cannot be kept"
    assert run.tag() == BEFORE


def test_without_one_the_run_goes_on_and_it_is_told(tmp_path: Path) -> None:
    run = Run(tmp_path, state=blind)
    assert run.go().result is Result.COMPLETED
    log = run.journal.path.read_text()
    since = dt.datetime.fromtimestamp(1020).astimezone()
    assert log.count("no limit is kept since") == 1
    assert f"no limit is kept since {since:%H:%M:%S}: no temperature of GPU 0 (hung)" in log


def test_temperatures_that_come_back_are_told_too(tmp_path: Path) -> None:
    run = Run(tmp_path, state=lambda now: blind(now) if now < 60 else at(60)(now))
    run.go()
    assert "the temperature of every GPU is read again: the limit is kept" in run.journal.path.read_text()


def two(now: float, *second: Look) -> State:
    return State((Look(Gpu("GPU-1", 0), Sample(now, 60)), *second), 0.1, None, 1)


def test_a_gpu_with_watts_and_no_temperature_is_not_watched(tmp_path: Path) -> None:
    run = Run(tmp_path, state=lambda now: two(now, Look(Gpu("GPU-2", 1), Sample(now, None, 200.0))), must_watch=True)
    outcome = run.go()
    assert outcome.result is Result.FAILED
    assert outcome.reason == (
        "no temperature of GPU 1 for 60 s (it is shown without one): --max-temp cannot be kept"
    )  # fmt: skip


def test_a_gpu_that_disappears_while_others_go_on_is_not_watched(tmp_path: Path) -> None:
    lost = lambda now: two(now, *([Look(Gpu("GPU-2", 1), Sample(now, 60))] if now < 30 else []))  # noqa: E731
    run = Run(tmp_path, state=lost, must_watch=True)
    outcome = run.go()
    assert outcome.reason == "no temperature of GPU 1 for 60 s (it is not shown any more): --max-temp cannot be kept"
    assert run.clock.now == pytest.approx(1090, abs=1)
    assert Run(tmp_path, state=lost).go().result is Result.COMPLETED


def test_a_gpu_that_disappears_while_idle_gets_no_load(tmp_path: Path) -> None:
    lost = lambda now: two(now, *([Look(Gpu("GPU-2", 1), Sample(now, 60))] if now < 30 else []))  # noqa: E731
    outcome = Run(tmp_path, state=lost, must_watch=True, idle=100).go()
    assert outcome.result is Result.FAILED
    assert outcome.begin is None


def test_a_status_that_cannot_be_written_any_more_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path)
    run.tags.begin()
    write = status.write

    def full(path: Path, what: Status | None) -> None:
        if what != BEFORE:
            raise status.StatusError("STATUS_FILE=x: cannot be written (No space left on device)")
        write(path, what)

    monkeypatch.setattr(status, "write", full)
    assert run.drive.run().result is Result.COMPLETED
    assert run.tags.failed
    assert run.tag() == BEFORE
    run.journal.close()
    assert run.journal.path.read_text().count("No space left on device") == 4


def test_an_unexpected_error_passes_through_with_the_tag_back(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.screen.error = RuntimeError("bug")
    with pytest.raises(RuntimeError, match="bug"):
        run.go()
    assert run.tag() == BEFORE


def test_a_second_run_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.tags.begin()
    second = Tags(run.path, Status(tag="idle"), run.journal.tell)
    with pytest.raises(status.StatusError, match="another burn or benchmark"):
        second.begin()
    second.restore()
    assert run.tag() == BEFORE
    run.tags.restore()
    second.begin()
    second.restore()
    assert run.tag() == Status(tag="idle")
    run.journal.close()


def test_no_status_before_is_no_status_after(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.path.unlink()
    run.go()
    assert run.tag() is None
