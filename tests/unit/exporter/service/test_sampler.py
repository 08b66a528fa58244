"""The sampler: what it says while the driver works, fails and hangs."""

from __future__ import annotations

import threading

import pytest

from services.exporter.reading import Source, SourceError, Sweep, Trouble
from services.exporter.sampler import Sampler
from tests.support.processes import wait_until
from tests.unit.exporter.service.doubles import FakeClock, ScriptedSource, reading, sweep

NO_DRIVER = SourceError(Trouble.NO_DRIVER, "the driver is not loaded")
GOOD = sweep(reading())


def sampler(*sources: Source | SourceError, clock: FakeClock, interval: float | None = 1.0) -> Sampler:
    """Opens one source after the other; the last one stays."""
    waiting = list(sources)

    def opened() -> Source:
        source = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if isinstance(source, SourceError):
            raise source
        return source

    return Sampler(opened, lambda _: None, interval=interval, clock=clock)


def slow(clock: FakeClock, seconds: float) -> Sweep:
    clock.now += seconds
    return GOOD


def test_before_the_first_reading_nothing_is_fresh() -> None:
    status = sampler(ScriptedSource([GOOD]), clock=FakeClock()).status()
    assert not status.fresh
    assert (status.sweep, status.age, status.problem) == (None, None, "no reading yet")


def test_readings_keep_their_interval_however_long_they_take() -> None:
    clock = FakeClock()
    source = ScriptedSource([lambda: slow(clock, 0.25), lambda: slow(clock, 2.25)])
    sampling = sampler(source, clock=clock)
    assert sampling.step() == 0.75
    assert sampling.step() == 0.75, "the next whole interval, not at once"
    status = sampling.status()
    assert (status.reads, status.duration, status.age) == (2, 2.25, 2.25)
    assert status.fresh


def test_a_reading_goes_stale() -> None:
    clock = FakeClock()
    sampling = sampler(ScriptedSource([GOOD]), clock=clock)
    sampling.step()
    clock.now = 10.0
    assert sampling.status().fresh
    clock.now = 10.1
    status = sampling.status()
    assert not status.fresh
    assert status.problem == "the last reading is 10 s old"
    assert status.sweep is GOOD, "what was last known stays known"


@pytest.mark.parametrize(
    ("name", "interval", "stale_after", "expected"),
    [
        ("nvml", None, None, (1.0, 10.0)),
        ("mock", None, None, (1.0, 10.0)),
        ("nvidia-smi", None, None, (5.0, 15.0)),
        ("nvidia-smi", 20.0, None, (20.0, 60.0)),
        ("nvml", 0.5, 2.0, (0.5, 2.0)),
    ],
)
def test_times_suit_the_source(
    name: str, interval: float | None, stale_after: float | None, expected: tuple[float, float]
) -> None:
    source = ScriptedSource([GOOD], name=name)
    sampling = Sampler(lambda: source, lambda _: None, interval=interval, stale_after=stale_after, clock=FakeClock())
    sampling.step()
    assert (sampling.interval, sampling.stale_after) == expected


def test_a_failing_source_is_opened_anew_with_growing_delay() -> None:
    clock = FakeClock()
    broken = ScriptedSource([GOOD, SourceError(Trouble.FAILED, "unknown error")])
    healed = ScriptedSource([GOOD])
    sampling = sampler(broken, NO_DRIVER, NO_DRIVER, healed, clock=clock)
    sampling.step()
    delays = [sampling.step() for _ in range(3)]
    assert delays == [1.0, 2.0, 4.0]
    assert broken.closed == 1
    clock.now = 20.0
    assert sampling.status().problem == "the driver is not loaded (last reading 20 s ago)"
    sampling.step()
    status = sampling.status()
    assert status.fresh
    assert status.failures[Trouble.FAILED] == 1
    assert status.failures[Trouble.NO_DRIVER] == 2
    assert status.reads == 2


def test_the_delay_is_bounded_and_starts_over_after_a_success() -> None:
    sampling = sampler(*[NO_DRIVER] * 10, ScriptedSource([GOOD, NO_DRIVER]), clock=FakeClock())
    assert max(sampling.step() for _ in range(10)) == 60.0
    sampling.step()
    assert sampling.step() == 1.0


def test_no_driver_at_all() -> None:
    sampling = sampler(NO_DRIVER, clock=FakeClock())
    sampling.step()
    status = sampling.status()
    assert (status.problem, status.source, status.reads) == ("the driver is not loaded", None, 0)


def test_a_short_trouble_does_not_take_away_what_is_fresh() -> None:
    sampling = sampler(ScriptedSource([GOOD, NO_DRIVER]), clock=FakeClock())
    sampling.step()
    sampling.step()
    assert sampling.status().fresh


def test_a_hung_driver_is_said_to_hang_and_counted_once() -> None:
    clock = FakeClock()
    seen: list[tuple[str | None, int]] = []

    def hang() -> Sweep:
        clock.now += 5.0
        seen.append((sampling.status().problem, sampling.status().failures[Trouble.HUNG]))
        clock.now += 30.0
        seen.append((sampling.status().problem, sampling.status().failures[Trouble.HUNG]))
        return GOOD

    sampling = sampler(ScriptedSource([hang, GOOD]), clock=clock)
    sampling.step()
    assert seen[0] == ("no reading yet", 0)
    assert seen[1][0] is not None
    assert seen[1][0].startswith("nvml has not answered for 35 s")
    assert seen[1][1] == 1
    assert sampling.status().failures[Trouble.HUNG] == 1, "a counter does not go back"
    assert not sampling.status().fresh, "what took 35 s to read is 35 s old"
    sampling.step()
    assert sampling.status().fresh


def test_a_hang_that_the_source_reports_itself_counts_once() -> None:
    clock = FakeClock()

    def hang() -> Sweep:
        clock.now += 30.0
        raise SourceError(Trouble.HUNG, "nvidia-smi did not answer within 30 s")

    sampling = sampler(ScriptedSource([hang]), clock=clock)
    sampling.step()
    assert sampling.status().failures[Trouble.HUNG] == 1


def test_the_page_is_there_before_the_reading_counts() -> None:
    fresh: list[bool] = []
    source = ScriptedSource([GOOD])
    sampling = Sampler(lambda: source, lambda _: fresh.append(sampling.status().fresh), clock=FakeClock())
    sampling.step()
    assert fresh == [False]


def test_a_thread_that_hangs_holds_up_neither_status_nor_stop() -> None:
    hanging, release, crashes = threading.Event(), threading.Event(), []

    def hang() -> Sweep:
        hanging.set()
        release.wait(30)
        return GOOD

    source = ScriptedSource([hang])
    sampling = Sampler(lambda: source, lambda _: None)
    sampling.start(on_crash=lambda: crashes.append(1))
    assert hanging.wait(10)
    assert sampling.status().problem == "no reading yet"
    sampling.stop(within=0.01)
    release.set()
    wait_until(lambda: source.closed == 1, within=10, what="the thread's end")
    assert not crashes


def test_a_fault_of_the_program_comes_out() -> None:
    crashed = threading.Event()
    source = ScriptedSource([ZeroDivisionError("a fault")])
    sampling = Sampler(lambda: source, lambda _: None)
    sampling.start(on_crash=crashed.set)
    assert crashed.wait(10)
    assert isinstance(sampling.crash, ZeroDivisionError)


def test_once_closes_the_source_and_raises_its_error() -> None:
    source = ScriptedSource([GOOD])
    sampler(source, clock=FakeClock()).read_once()
    assert source.closed == 1
    with pytest.raises(SourceError, match="not loaded"):
        sampler(NO_DRIVER, clock=FakeClock()).read_once()
