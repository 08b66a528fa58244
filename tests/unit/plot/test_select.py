"""What is asked for: names, times, ranges; and the rule by which a level of the data is chosen."""

from __future__ import annotations

import datetime as dt
import json
from zoneinfo import ZoneInfo

import pytest

from services.__main__ import build_parser
from services.contract.catalogue import METRICS, SAMPLED, Kind
from services.plot import run as command
from services.plot.select import (
    DAYS,
    HOURS,
    LEVELS,
    MINUTES,
    POINTS,
    ROWS,
    SHORT_NAMES,
    Level,
    Selection,
    SelectionError,
    bucket_seconds,
    choose,
    finest,
    metric,
    parse_time,
    shown,
    time_range,
)
from services.settings import load

NOW = dt.datetime(2026, 1, 4, 6, tzinfo=dt.UTC)
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


def selection(*flags: str) -> Selection:
    return command.make_selection(build_parser("plot").parse_args(["plot", *flags]), NOW)


# --- names ----------------------------------------------------------------------------------------------------------


def test_every_short_name_is_a_column_and_every_sampled_column_is_a_name() -> None:
    assert {metric(name).column for name in SHORT_NAMES} <= {m.column for m in SAMPLED}
    for each in SAMPLED:
        assert metric(each.column) is each


def test_a_property_and_a_stranger_are_refused_with_what_there_is() -> None:
    for each in METRICS:
        if each.kind is Kind.PROPERTY:
            with pytest.raises(SelectionError, match="fixed property"):
                metric(each.column)
    with pytest.raises(SelectionError, match=r"--metric warmth: unknown; short names are temp, .* sm_clock"):
        metric("warmth")


def test_units_are_those_people_read() -> None:
    assert (shown(metric("memory")).unit, shown(metric("memory")).factor * 1024) == ("GiB", 1.0)
    assert shown(metric("energy")).factor * 3.6e9 == pytest.approx(1.0)
    assert shown(metric("power")).unit == "W"


# --- times ----------------------------------------------------------------------------------------------------------


def test_a_time_without_offset_is_local() -> None:
    tokyo = ZoneInfo("Asia/Tokyo")
    assert parse_time("2026-01-04T09:00", tokyo) == dt.datetime(2026, 1, 4, tzinfo=dt.UTC)
    assert parse_time("2026-01-04T00:00:00+09:00", tokyo) == dt.datetime(2026, 1, 3, 15, tzinfo=dt.UTC)
    assert parse_time("2026-01-04T00:00:00Z").utcoffset() == dt.timedelta(0)
    assert parse_time("2026-01-04").tzinfo is not None


@pytest.mark.parametrize("text", ["yesterday", "", "04.01.2026", "2026-13-01"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(SelectionError, match="ISO 8601; for example"):
        parse_time(text)


@pytest.mark.parametrize(
    ("hours", "start", "end", "expected"),
    [
        (None, None, None, (NOW - 6 * HOUR, NOW)),
        (24, None, None, (NOW - 24 * HOUR, NOW)),
        (None, NOW - 2 * HOUR, None, (NOW - 2 * HOUR, NOW)),
        (1, NOW - 2 * HOUR, None, (NOW - 2 * HOUR, NOW - HOUR)),
        (1, None, NOW - HOUR, (NOW - 2 * HOUR, NOW - HOUR)),
        (None, NOW - 3 * HOUR, NOW - HOUR, (NOW - 3 * HOUR, NOW - HOUR)),
    ],
)
def test_ranges(
    hours: float | None, start: dt.datetime | None, end: dt.datetime | None, expected: tuple[dt.datetime, dt.datetime]
) -> None:
    assert time_range(hours, start, end, NOW) == expected


def test_impossible_ranges() -> None:
    with pytest.raises(SelectionError, match="before it begins"):
        time_range(None, NOW, NOW - HOUR, NOW)
    with pytest.raises(SelectionError, match="two of them"):
        time_range(1, NOW - HOUR, NOW, NOW)


def test_the_first_and_the_last_year_can_be_asked_for_in_any_offset() -> None:
    for offset in ("-23:59", "+23:59"):
        asked = selection("--start", f"1970-01-01T00:00:00{offset}", "--end", f"2100-12-31T23:59:59{offset}")
        assert asked.end.timestamp() > asked.start.timestamp()
    assert selection("--start", "1970-01-01").start.timestamp() == pytest.approx(0, abs=DAY.total_seconds())


def test_the_runbooks_command_lines() -> None:
    asked = selection("--hours", "24", "--exclude-prod", "--include-memo", "fan=100%", "--include-memo", "fan=25%")
    assert (asked.start, asked.exclude_prod, asked.memos) == (NOW - DAY, True, ("fan=100%", "fan=25%"))
    assert asked.by_status
    assert asked.filters() == ["without prod", "memo 'fan=100%' or 'fan=25%'"]
    asked = selection("--start", "2026-01-04T00:00:00+09:00", "--end", "2026-01-04T06:00:00+09:00")
    assert asked.end - asked.start == 6 * HOUR
    assert [m.column for m in asked.metrics] == ["gpu_temp"]
    assert selection("--status-tag", "prod").tags == ("prod",)


@pytest.mark.parametrize(
    "flags",
    [
        ("--hours", "0"), ("--hours", "nan"), ("--hours", "-1"), ("--hours", "inf"), ("--hours", "1e300"),
        ("--hours", "1e9"), ("--hours", "1e6"), ("--start", "soon"), ("--start", "0001-01-01"),
        ("--start", "0001-01-01T00:00:00+14:00"), ("--end", "9999-12-31T23:59:59-14:00"),
        ("--start", "9990-01-01", "--hours", "1e6"), ("--start", "1969-12-31"), ("--end", "2101-01-01"),
        ("--start", "2090-01-01", "--hours", "1e6"), ("--gpu", ""), ("--gpu", "0", "--gpu", " "), ("--metric", "x"),
        ("--out", "picture.gif"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_ends_with_a_line_and_two(
    flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    args = build_parser("plot").parse_args(["plot", *flags])
    assert command.run(args, load(timescale_dsn="postgresql://u:secret@127.0.0.1:1/x")) == 2
    said = capsys.readouterr().err
    assert said.startswith("gpumon plot: ")
    assert said.count("\n") == 1


def test_without_a_database_one_line_and_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    args = build_parser("plot").parse_args(["plot", "--json"])
    assert command.run(args, load(timescale_dsn="postgresql://u:secret@127.0.0.1:1/x")) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "cannot connect" in told.err
    assert "secret" not in told.err


def test_the_json_is_json() -> None:
    from tests.unit.plot.pictures import held, picture, run, series

    found = command.summary(
        picture(series([1.0, float("nan"), 3.0]), runs=(run(0, 20),), throttled=(held(0, 10),)), command.DEFAULT_OUT
    )
    said = json.loads(json.dumps(found, allow_nan=False))
    assert said["series"][0]["min"] == 1.0
    assert said["series"][0]["avg"] == 2.0
    assert said["series"][0]["points"] == 3
    assert said["throttled"][0] | {"by": "heat", "seconds": 10.0} == said["throttled"][0]
    assert said["runs"][0]["tag"] == "bench"


# --- levels ---------------------------------------------------------------------------------------------------------


def test_buckets_are_round_and_make_about_as_many_points_as_are_wanted() -> None:
    for span in (60.0, 3600.0, 86_400.0, 7 * 86_400.0, 90 * 86_400.0):
        assert span / bucket_seconds(span) <= POINTS
    assert bucket_seconds(60) == 1
    assert bucket_seconds(86_400) == 60
    assert bucket_seconds(1e12) == 86_400


@pytest.mark.parametrize(
    ("span", "rows", "base", "by_status", "expected"),
    [
        (6 * 3600, 2160, ROWS, False, (ROWS, 0)),
        (6 * 3600, 21_600, ROWS, False, (ROWS, 15)),
        (7 * 86_400, 604_800, ROWS, False, (MINUTES, 600)),
        (7 * 86_400, 604_800, ROWS, True, (ROWS, 600)),
        (7 * 86_400, 600, ROWS, False, (ROWS, 0)),
        (20 * 86_400, 600, MINUTES, False, (MINUTES, 1800)),
        (3600, 60, MINUTES, False, (MINUTES, 60)),
        (90 * 86_400, 1_000_000, HOURS, False, (HOURS, 7200)),
        (90 * 86_400, 1_000_000, MINUTES, True, (MINUTES, 7200)),
        (9 * 365 * 86_400, 10_000_000, DAYS, False, (DAYS, 86_400)),
    ],
)
def test_the_level(span: float, rows: int, base: Level, by_status: bool, expected: tuple[Level, float]) -> None:
    assert choose(span, rows, base, by_status=by_status) == expected


def test_the_finest_level_that_reaches_back() -> None:
    reach: dict[str, dt.datetime | None] = {
        ROWS.relation: NOW - 7 * DAY, MINUTES.relation: NOW - 30 * DAY, HOURS.relation: NOW - 365 * DAY,
        DAYS.relation: NOW - 3000 * DAY,
    }  # fmt: skip
    found = [finest(reach, NOW - n * DAY) for n in (1, 7, 8, 31, 400, 4000)]
    assert found == [ROWS, ROWS, MINUTES, HOURS, DAYS, DAYS]


def test_a_young_database_is_read_by_its_rows_though_its_buckets_begin_before_them() -> None:
    first = dt.datetime(2026, 1, 4, 5, 17, 31, tzinfo=dt.UTC)
    reach: dict[str, dt.datetime | None] = {
        ROWS.relation: first, MINUTES.relation: first.replace(second=0),
        HOURS.relation: first.replace(minute=0, second=0), DAYS.relation: first.replace(hour=0, minute=0, second=0),
    }  # fmt: skip
    assert finest(reach, NOW - 30 * DAY) is ROWS


def test_an_empty_database_has_no_level_to_prefer() -> None:
    assert finest({level.relation: None for level in LEVELS}, NOW) is ROWS
