from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.collector.schedule import Schedule, phase, sample_time

NOW = 1_700_000_000_123


def test_ticks_are_multiples_of_the_interval_plus_the_phase() -> None:
    schedule = Schedule("gpu1:9400", 10_000)
    ticks = []
    now = NOW
    for _ in range(5):
        tick = schedule.next(now)
        ticks.append(tick.planned)
        now = tick.planned + 40
    assert {planned % 10_000 for planned in ticks} == {phase("gpu1:9400", 10_000)}
    assert [b - a for a, b in pairwise(ticks)] == [10_000] * 4


def test_the_phase_is_the_same_after_a_restart_and_differs_between_targets() -> None:
    assert Schedule("a", 10_000).next(NOW) == Schedule("a", 10_000).next(NOW)
    phases = sorted(phase(f"gpu{n}:9400", 10_000) for n in range(1000))
    assert max(b - a for a, b in pairwise(phases)) < 150  # spread over the whole interval
    assert phases[0] < 150
    assert phases[-1] > 9850


def test_the_same_tick_is_not_given_out_twice() -> None:
    schedule = Schedule("a", 1000)
    first = schedule.next(NOW)
    assert schedule.next(first.planned - 1).planned == first.planned + 1000  # the clock was slewed back a little


def test_missed_ticks_are_counted_not_queued() -> None:
    schedule = Schedule("a", 1000)
    first = schedule.next(NOW)
    tick = schedule.next(first.planned + 3500)
    assert (tick.planned, tick.missed) == (first.planned + 4000, 3)
    assert schedule.next(tick.planned + 10).missed == 0


def test_a_clock_set_back_far_does_not_stop_the_scrapes() -> None:
    schedule = Schedule("a", 1000)
    schedule.next(NOW)
    tick = schedule.next(NOW - 3_600_000)
    assert NOW - 3_600_000 < tick.planned <= NOW - 3_599_000
    assert tick.missed == 0


@given(st.text(max_size=20), st.integers(1, 100_000), st.lists(st.integers(0, 10**6), max_size=20))
def test_always_ahead_and_on_the_grid(name: str, interval: int, delays: list[int]) -> None:
    schedule = Schedule(name, interval)
    now, last = NOW, None
    for delay in delays:
        tick = schedule.next(now)
        assert tick.planned > now
        assert tick.planned % interval == phase(name, interval)
        if last is not None:
            assert tick.planned == last + (tick.missed + 1) * interval
        last, now = tick.planned, tick.planned + delay


def test_the_sample_carries_the_plan_where_the_start_was_close() -> None:
    assert sample_time(1000, 1000, 5) == 1000
    assert sample_time(1000, 1005, 5) == 1000
    assert sample_time(1000, 1006, 5) == 1006
    assert sample_time(1000, 999, 5) == 999
