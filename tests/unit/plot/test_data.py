"""Gaps, runs, summaries, and the local zone over summer time."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from services.plot.data import Gpu, lonely, merge_runs, with_gaps
from services.plot.zone import LocalZone
from tests.unit.plot.pictures import P40, START, held, run, series

NAN = float("nan")


def test_a_gap_gets_a_point_without_a_value() -> None:
    times = START + np.array([0.0, 10, 20, 60, 70])
    line = with_gaps(series([1, 2, 3, 4, 5], times=times, low=np.arange(5.0), high=np.arange(5.0)))
    assert list(line.times - START) == [0, 10, 20, 30, 60, 70]
    assert np.isnan(line.values).tolist() == [False, False, False, True, False, False]
    assert line.low is not None
    assert np.isnan(line.low[3])
    assert line.counts[3] == 0


def test_jitter_is_no_gap() -> None:
    times = START + np.array([0.0, 10.3, 19.9, 42.0, 50.0])
    assert len(with_gaps(series([1, 2, 3, 4, 5], times=times)).values) == 5
    assert len(with_gaps(series([1.0])).values) == 1


def test_a_changed_interval_is_no_gap() -> None:
    times = START + np.concatenate((np.arange(0, 30, 1.0), np.arange(30, 300, 10.0), np.arange(300, 330, 1.0)))
    assert not np.isnan(with_gaps(series([1.0] * len(times), times=times)).values).any()


@pytest.mark.parametrize("steps", [[80.0 * 86_400, 7200.0], [10, 10, 600, 600, 10, 10], [600, 10, 10]])
def test_gaps_are_seen_among_few_points_and_in_a_row(steps: list[float]) -> None:
    times = START + np.concatenate(([0.0], np.cumsum(steps)))
    missing = np.isnan(with_gaps(series([1.0] * len(times), times=times)).values).sum()
    assert missing == sum(step > 100 for step in steps) - (7200.0 in steps)


def test_points_that_stand_alone() -> None:
    values = np.array([1, NAN, 2, 3, NAN, 4, NAN, 5])
    assert lonely(values).tolist() == [True, False, False, False, False, True, False, True]


def test_the_mean_is_of_samples_not_of_points() -> None:
    line = series([10.0, 20.0, NAN], counts=np.array([3.0, 1.0, 0.0]), low=np.array([8.0, 19.0, NAN]),
                  high=np.array([12.0, 25.0, NAN]))  # fmt: skip
    assert line.summary() == (8.0, 12.5, 25.0)
    assert series([NAN]).summary() is None


def test_the_gpus_of_a_host_tell_of_one_run() -> None:
    found = merge_runs([run(0, 100), run(3, 98), run(105, 200), run(50, 60, host="b")], gap=10)
    assert [(r.hostname, r.start - START, r.end - START, r.tag) for r in found] == [
        ("attic-01", 0, 200, "bench"), ("b", 50, 60, "bench"),
    ]  # fmt: skip
    assert len(merge_runs([run(0, 100), run(111, 200)], gap=10)) == 2


def test_the_same_run_later_is_another_when_something_else_was_between() -> None:
    found = merge_runs([run(0, 100), run(100, 110, tag="idle"), run(110, 200)], gap=60)
    assert [r.tag for r in found] == ["bench", "idle", "bench"]


def test_heat_and_power() -> None:
    assert [held(0, 1, bits).by_heat for bits in (0x4, 0x80, 0x8, 0x20, 0x40, 0x24)] == [
        False, False, True, True, True, True,
    ]  # fmt: skip


def test_names_of_gpus() -> None:
    assert P40.name == "0 Tesla P40"
    assert replace(P40, model="NVIDIA H100", instance_id=7).name == "0/7 H100"
    assert Gpu(1, "GPU-x", "h").name == "? GPU-x"


# --- time zone ------------------------------------------------------------------------------------------------------


@pytest.fixture
def berlin() -> Iterator[None]:
    before = os.environ.get("TZ")  # noqa: TID251  # the C library's own
    os.environ["TZ"] = "Europe/Berlin"  # noqa: TID251
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]  # noqa: TID251
    else:
        os.environ["TZ"] = before  # noqa: TID251
    time.tzset()


@pytest.mark.usefixtures("berlin")
def test_the_local_zone_follows_summer_time() -> None:
    for utc, offset, name in (
        ("2026-03-29T00:59", 1, "CET"),
        ("2026-03-29T01:00", 2, "CEST"),
        ("2026-10-25T01:00", 1, "CET"),
    ):
        moment = dt.datetime.fromisoformat(utc).replace(tzinfo=dt.UTC)
        local = moment.astimezone(LocalZone())
        assert (local.utcoffset(), local.tzname()) == (dt.timedelta(hours=offset), name)
        assert local.timestamp() == moment.timestamp()


@pytest.mark.usefixtures("berlin")
def test_the_hour_that_comes_twice_is_two_hours() -> None:
    first, second = (dt.datetime(2026, 10, 25, hour, 30, tzinfo=dt.UTC).astimezone(LocalZone()) for hour in (0, 1))
    assert (first.hour, second.hour) == (2, 2)
    assert (first.fold, second.fold) == (0, 1)
    assert second.timestamp() - first.timestamp() == 3600
