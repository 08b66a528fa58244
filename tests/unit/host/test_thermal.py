"""What a load did to a GPU, from lists of samples."""

from __future__ import annotations

import math

import pytest

from services.host.series import Sample
from services.host.thermal import (
    start_temperature,
    steady_temperature,
    summarise,
    throttled_seconds,
    time_to_steady,
)

BEGIN, END = 1000.0, 1900.0
TAU = 120.0
"""Seconds in which a board covers 63 % of the way to its final temperature."""


def warming(time: float) -> float:
    """30 C idle, 80 C at last."""
    return 30.0 if time <= BEGIN else 80.0 - 50.0 * math.exp(-(time - BEGIN) / TAU)


def burn(step: float = 10.0, *, power: float | None = 250.0, energy: bool = False) -> list[Sample]:
    """From two minutes before the load to one behind it."""
    times = [BEGIN - 120 + step * n for n in range(int((END + 60 - BEGIN + 120) / step) + 1)]
    return [
        Sample(
            time,
            round(warming(time)),
            power if BEGIN <= time <= END else 50.0 if power is not None else None,
            0x4 if BEGIN <= time < BEGIN + 100 else 0x20 if BEGIN + 800 <= time <= END else 0x1,
            int(time * 250_000) if energy else None,
        )
        for time in times
    ]


def test_a_whole_burn() -> None:
    summary = summarise(burn(), BEGIN, END)
    assert (summary.start, summary.peak, summary.steady) == (30, 80, 80)
    assert summary.samples == 91
    assert (summary.gaps, summary.gap_seconds) == (0, 0)
    assert summary.mean_watts == pytest.approx(250, abs=3)  # the straight lines to 50 W at both edges
    assert summary.degrees_per_watt == pytest.approx(50 / 250, rel=0.02)
    assert summary.throttled.power == pytest.approx(100)
    assert summary.throttled.thermal == pytest.approx(100)
    assert summary.throttled.any == pytest.approx(200)
    assert summary.throttled.other == 0
    assert summary.unknown == {}


def test_time_to_steady_is_when_it_comes_within_a_degree_and_stays() -> None:
    summary = summarise(burn(), BEGIN, END)
    assert summary.time_to_steady is not None
    # 79 C is shown from 78.5 on: 50 e^(-t/120) = 1.5 at 421 s
    assert summary.time_to_steady == pytest.approx(TAU * math.log(50 / 1.5), abs=10)


def test_a_temperature_that_only_passes_through_is_not_steady() -> None:
    """A board that overshoots before its fan answers."""
    overshoot = [
        (BEGIN + 10.0 * n, 60.0 + (min(n, 10) * 4 if n <= 10 else max(20 - (n - 10), 10) * 2)) for n in range(91)
    ]
    steady, _ = steady_temperature(overshoot, BEGIN, END)
    assert steady == 80
    at = time_to_steady(overshoot, BEGIN, END, steady)
    assert at is not None
    assert at > 100  # n = 5, 50 s: 80 C on the way up to 100 C


def test_not_steady_yet() -> None:
    rising = [Sample(BEGIN + 10.0 * n, 30 + n) for n in range(31)]
    summary = summarise(rising, BEGIN, BEGIN + 300)
    assert (summary.peak, summary.steady, summary.time_to_steady, summary.degrees_per_watt) == (60, None, None, None)
    assert summary.unknown["steady"] == "not reached: +6.0 C from the last minute but one to the last"
    assert summary.unknown["degrees_per_watt"] == "steady and mean_watts unknown"


def test_a_degree_between_the_last_two_minutes_is_steady_and_more_is_not() -> None:
    def ending(last: float) -> list[tuple[float, float]]:
        return [(BEGIN + 10.0 * n, 80.0 if n <= 12 else last) for n in range(1, 19)]

    assert steady_temperature(ending(81.0), BEGIN, BEGIN + 180)[0] == 81.0
    assert steady_temperature(ending(81.1), BEGIN, BEGIN + 180)[0] is None
    assert steady_temperature(ending(78.9), BEGIN, BEGIN + 180)[0] is None


@pytest.mark.parametrize(("seconds", "step", "reason"), [
    (119, 10, "the load ran for less than 120 s"),
    (180, 60, "fewer than two temperatures in one of the last two minutes"),
])  # fmt: skip
def test_too_little_for_steady(seconds: float, step: float, reason: str) -> None:
    points = [(BEGIN + step * n, 80.0) for n in range(int(seconds / step) + 1)]
    assert steady_temperature(points, BEGIN, BEGIN + seconds) == (None, reason)


def test_start_is_the_last_one_before_the_load() -> None:
    assert start_temperature([(BEGIN - 70, 99.0), (BEGIN - 10, 31.0), (BEGIN, 32.0), (BEGIN + 10, 50.0)], BEGIN) == 32
    assert start_temperature([(BEGIN - 61, 31.0), (BEGIN + 30, 60.0), (BEGIN + 40, 61.0)], BEGIN) == 60
    assert start_temperature([(BEGIN - 61, 31.0), (BEGIN + 61, 60.0), (BEGIN + 62, 61.0)], BEGIN) is None
    assert start_temperature([(BEGIN + 3, 60.0)], BEGIN) == 60
    assert start_temperature([], BEGIN) is None


def test_throttling_holds_until_the_next_sample_within_the_load() -> None:
    series = [Sample(BEGIN - 5, reasons=0x4), Sample(BEGIN + 5, reasons=0x0), Sample(BEGIN + 15, reasons=0x64),
              Sample(BEGIN + 25, reasons=0x8), Sample(BEGIN + 35, reasons=0x1)]  # fmt: skip
    held = throttled_seconds(series, BEGIN, BEGIN + 30)
    assert held.power == pytest.approx(5 + 10)
    assert held.thermal == pytest.approx(10)
    assert held.other == pytest.approx(5)
    assert held.any == pytest.approx(20)


def test_idle_clock_setting_and_sync_boost_are_no_throttling() -> None:
    series = [Sample(BEGIN + n, reasons=0x1 | 0x2 | 0x10 | 0x100) for n in range(5)]
    assert throttled_seconds(series, BEGIN, BEGIN + 4).any == 0


def test_throttling_is_unknown_where_no_sample_tells() -> None:
    held = throttled_seconds([Sample(BEGIN + n) for n in range(5)], BEGIN, BEGIN + 4)
    assert (held.thermal, held.power, held.other, held.any) == (None, None, None, None)


def test_throttling_in_a_gap_is_not_counted() -> None:
    """A power cap before a gap of a minute is not known to have lasted a minute."""
    times = [0, 1, 2, 3, 63, 64, 65]
    held = throttled_seconds([Sample(BEGIN + t, reasons=0x4) for t in times], BEGIN, BEGIN + 65)
    assert held.power == pytest.approx(5)


def test_gaps_are_counted_and_their_time_is_left_out() -> None:
    series = [s for s in burn() if not BEGIN + 200 < s.time < BEGIN + 300]
    summary = summarise(series, BEGIN, END)
    assert (summary.gaps, summary.gap_seconds) == (1, 100)
    assert summary.mean_watts == pytest.approx(250, abs=3)
    assert summary.energy.joules is None
    assert summary.unknown["energy"] == "samples cover 800 of 900 s"


def test_a_card_without_power() -> None:
    summary = summarise(burn(power=None), BEGIN, END)
    assert summary.steady == 80
    assert summary.mean_watts is None
    assert summary.unknown == {
        "mean_watts": "no power readings under load",
        "energy": "neither an energy counter nor power readings",
        "degrees_per_watt": "mean_watts unknown",
    }


def test_nothing_at_all() -> None:
    summary = summarise([], BEGIN, END)
    assert (summary.samples, summary.gaps, summary.gap_seconds) == (0, 1, 900)
    assert set(summary.unknown) == {"start", "peak", "steady", "mean_watts", "throttled", "energy", "degrees_per_watt"}


def test_a_load_that_drew_nothing_gives_no_division_by_zero() -> None:
    series = [Sample(BEGIN + 10.0 * n, 30, 0.0) for n in range(91)]
    summary = summarise(series, BEGIN, END)
    assert summary.mean_watts == 0
    assert summary.degrees_per_watt is None
    assert "degrees_per_watt" in summary.unknown
