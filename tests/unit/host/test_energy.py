"""Gaps, integrals and energy, from lists of samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.host.energy import energy
from services.host.series import Sample, gaps, integral, longest_step, order


def constant(watts: float, *, step: float = 10.0, count: int = 12, counter: int | None = None) -> list[Sample]:
    return [
        Sample(step * n, power=watts, energy=None if counter is None else counter + round(watts * step * n * 1000))
        for n in range(count)
    ]


def test_the_counter_is_preferred_and_read_between_samples() -> None:
    series = constant(200.0, counter=5_000_000)
    used = energy(series, 15.0, 85.0)
    assert used.joules == pytest.approx(14_000)
    assert (used.method, used.covered) == ("counter", 70)


def test_without_a_counter_the_power_is_integrated() -> None:
    used = energy(constant(200.0), 15.0, 85.0)
    assert used.joules == pytest.approx(14_000)
    assert used.method == "power"


def test_a_counter_that_started_again_is_not_used() -> None:
    series = constant(200.0, counter=5_000_000)
    series[6:] = [Sample(s.time, power=s.power, energy=(s.energy or 0) - 6_000_000) for s in series[6:]]
    assert energy(series, 15.0, 85.0).method == "power"


def test_a_gap_does_not_matter_to_a_counter_but_to_the_power() -> None:
    with_counter = [s for s in constant(200.0, counter=0) if not 30 < s.time < 70]
    assert energy(with_counter, 15.0, 85.0).joules == pytest.approx(14_000)
    without = [s for s in constant(200.0) if not 30 < s.time < 70]
    used = energy(without, 15.0, 85.0)
    assert (used.joules, used.reason) == (None, "samples cover 30 of 70 s")


def test_an_end_in_a_gap_is_not_guessed() -> None:
    series = [s for s in constant(200.0, counter=0) if not 30 < s.time < 70]
    assert energy(series, 15.0, 50.0).joules is None


def test_a_run_shorter_than_two_samples_is_unknown() -> None:
    used = energy(constant(200.0, counter=0), 41.0, 58.0)
    assert (used.joules, used.reason) == (None, "17.0 s are less than two samples, 10.0 s apart")


def test_samples_that_end_too_early() -> None:
    used = energy(constant(200.0, counter=0), 10.0, 200.0)
    assert (used.joules, used.reason) == (None, "samples cover 100 of 190 s")


def test_no_samples() -> None:
    assert energy([], 0.0, 10.0).reason == "neither an energy counter nor power readings"


def test_a_ramp_is_integrated_as_a_straight_line() -> None:
    assert integral([(0.0, 0.0), (10.0, 100.0), (20.0, 200.0)], 5.0, 15.0) == pytest.approx((1000.0, 10.0))


@given(
    st.lists(st.floats(0, 700, allow_nan=False), min_size=3, max_size=50),
    st.floats(0, 1), st.floats(0, 1), st.floats(0, 1),
)  # fmt: skip
def test_an_integral_is_the_sum_of_its_parts(values: list[float], first: float, second: float, third: float) -> None:
    points = [(10.0 * n, v) for n, v in enumerate(values)]
    low, middle, high = sorted(f * points[-1][0] for f in (first, second, third))
    whole = integral(points, low, high)
    parts = integral(points, low, middle), integral(points, middle, high)
    assert whole[0] == pytest.approx(parts[0][0] + parts[1][0], abs=1e-6)
    assert whole[1] == pytest.approx(high - low)


def test_gaps_at_the_edges_and_in_between() -> None:
    times = [0.0, 10, 20, 30, 70, 80, 90]
    assert gaps(times, 0.0, 90.0) == [(30.0, 70.0)]
    assert gaps(times, 0.0, 100.0) == [(30.0, 70.0)]  # ten seconds after the last: the next may still come
    assert gaps(times, 0.0, 120.0) == [(30.0, 70.0), (90.0, 120.0)]
    assert gaps(times, 35.0, 65.0) == [(35.0, 65.0)]
    assert gaps(times, 12.0, 18.0) == []
    assert gaps([], 0.0, 10.0) == [(0.0, 10.0)]
    assert gaps([5.0], 0.0, 10.0) == [(0.0, 10.0)]


def test_one_missing_sample_is_a_gap_and_a_late_one_is_not() -> None:
    assert longest_step([0.0, 10, 20, 30]) == 15
    assert longest_step([0.0, 1, 2, 3]) == 3
    assert gaps([0.0, 10, 20, 40, 50], 0.0, 50.0) == [(20.0, 40.0)]
    assert gaps([0.0, 10, 20, 34, 40, 50], 0.0, 50.0) == []


def test_order_keeps_the_first_of_one_time() -> None:
    assert order([Sample(2.0, 50), Sample(1.0, 40), Sample(2.0, 60)]) == [Sample(1.0, 40), Sample(2.0, 50)]
