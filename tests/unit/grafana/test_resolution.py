"""Which table a range of time is read from."""

from __future__ import annotations

import datetime as dt
import re

import pytest

from grafana import resolution
from grafana.gaps import HOLDS, with_gaps
from grafana.resolution import ERRORS, FLEET, PER_GPU, RANKING, USAGE, Level, increases, read, shown
from services.settings import load
from services.store.policies import RETENTION, desired
from tests.support.grafana_dashboards import committed
from tests.support.grafana_sql import parse_duration

LADDERS = {"PER_GPU": PER_GPU, "USAGE": USAGE, "FLEET": FLEET, "RANKING": RANKING, "ERRORS": ERRORS}
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
KEPT = {
    policy.relation: dt.timedelta(seconds=policy.config["drop_after"])
    for policy in desired(load())
    if policy.kind == RETENTION
}
RANGES = [dt.timedelta(minutes=5), HOUR, 3 * HOUR, 6 * HOUR, 6.01 * HOUR, DAY, 2 * DAY, 7 * DAY, 60 * DAY, 400 * DAY]


def length(text: str) -> dt.timedelta:
    number, unit = text.split()
    return parse_duration(number + unit[0])


def holds(condition: str, shown_range: dt.timedelta, began: dt.timedelta | None = None) -> bool:
    """Whether the condition over the length of the range, and over how long ago it began, is true."""
    ago = began or shown_range
    fits = re.sub(re.escape(resolution.LENGTH) + r" <= INTERVAL '([^']+)'",
                  lambda m: str(shown_range <= length(m[1])), condition)  # fmt: skip
    kept = re.sub(re.escape(resolution.FROM) + " > " + re.escape(resolution.kept_since("#")).replace(r"\#", r"(\w+)"),
                  lambda m: str(ago < KEPT[m[1]]), fits)  # fmt: skip
    words = kept.replace("NOT", "not").replace("AND", "and").replace("true", "True")
    assert not set(re.findall(r"\w+", words)) - {"True", "False", "not", "and"}, words
    return bool(eval(words))


@pytest.mark.parametrize("shown_range", RANGES, ids=str)
@pytest.mark.parametrize("name", LADDERS)
@pytest.mark.parametrize("began", [dt.timedelta(), 8 * DAY, 31 * DAY, 366 * DAY], ids=str)
def test_exactly_one_level_is_read(name: str, shown_range: dt.timedelta, began: dt.timedelta) -> None:
    levels = LADDERS[name]
    found = [holds(shown(levels, index), shown_range, shown_range + began) for index in range(len(levels))]
    assert sum(found) == 1
    level = levels[found.index(True)]
    assert not level.dropped or shown_range + began < KEPT[level.relation]


@pytest.mark.parametrize(
    ("hours", "relation"),
    [
        (6, "gpu_metrics"), (7, "gpu_metrics_1min"), (48, "gpu_metrics_1min"), (49, "gpu_metrics_1hour"),
        (60 * 24, "gpu_metrics_1hour"), (61 * 24, "gpu_metrics_1day"),
    ],
)  # fmt: skip
def test_levels_for_a_gpu(hours: int, relation: str) -> None:
    found = [level.relation for i, level in enumerate(PER_GPU) if holds(shown(PER_GPU, i), hours * HOUR)]
    assert found == [relation]


def test_rows_are_never_read_for_more_than_a_day() -> None:
    """In every query of every dashboard: the branch over gpu_metrics has its limit."""
    branches = 0
    for dashboard in committed():
        for query in dashboard.queries():
            for branch in re.split(r"\nUNION ALL\n", query.sql):
                if re.search(r"\bgpu_metrics m\b", branch):
                    (limit,) = re.findall(r"CASE WHEN [^\n]+? <= INTERVAL '([^']+)' THEN", branch)
                    assert length(limit) <= 6 * HOUR, query.name
                    branches += 1
    assert branches > 30


def test_fleet_reads_no_rows() -> None:
    assert not any(level.raw for level in (*FLEET, *RANKING, *ERRORS))


@pytest.mark.parametrize("name", LADDERS)
def test_a_gap_is_longer_than_from_one_bucket_that_is_read_to_the_next(name: str) -> None:
    """Else every bucket would be followed by a gap, and lines would be points."""
    steps = {"minute": dt.timedelta(minutes=1), "hour": HOUR, "day": DAY}
    for level in (level for level in LADDERS[name] if not (level.raw or level.by_usage)):  # those know their ends
        assert length(level.gap) >= 2 * level.every * steps[level.step]


@pytest.mark.parametrize("name", LADDERS)
def test_a_range_that_is_a_millisecond_longer_is_read_from_the_same_level(name: str) -> None:
    """Of "now-2h to now" `now` may be read twice."""
    for index, level in enumerate(LADDERS[name]):
        if level.upto is not None:
            assert " - INTERVAL '1 second') <= INTERVAL" in shown(LADDERS[name], index)


def test_of_the_last_level_everything_is_read() -> None:
    """Else nothing would be read of a range older than all retentions."""
    for name, levels in LADDERS.items():
        assert [level.dropped for level in levels] == [True] * (len(levels) - 1) + [False], name


def test_levels_use_the_columns_their_tables_have() -> None:
    rows, minutes = PER_GPU[0], PER_GPU[1]
    assert rows.average("gpu_temp") == "m.gpu_temp::float8"
    assert minutes.average("gpu_temp") == "m.sum_gpu_temp / nullif(m.count_gpu_temp, 0)::float8"
    assert (minutes.lowest("x"), minutes.highest("x"), minutes.last("x"), minutes.bits("x")) == (
        "m.min_x", "m.max_x", "m.last_x", "m.or_x",
    )  # fmt: skip
    assert (rows.samples, minutes.samples) == ("1", "m.samples")


def _where(level: Level) -> str:
    return f"WHERE m.gpu_id = 1 /* {level.relation} */"


def queries(name: str) -> list[str]:
    """What a ladder is read with."""
    found = [read(lambda level: level.time, _where, LADDERS[name])]
    if name in ("PER_GPU", "ERRORS"):
        found.append(increases(["x"], _where, LADDERS[name]))
    return found


@pytest.mark.parametrize("name", LADDERS)
def test_buckets_are_read_from_the_one_in_which_the_range_begins(name: str) -> None:
    for sql in queries(name):
        for branch in sql.split("UNION ALL"):
            assert ("$__timeFilter(" in branch) == ("FROM gpu_metrics m" in branch)
            assert "FROM gpu_metrics m" in branch or f"', {resolution.FROM})" in branch


@pytest.mark.parametrize("name", LADDERS)
def test_a_level_that_is_not_shown_reaches_none_of_its_chunks(name: str) -> None:
    """Its time is bounded by -infinity: a plain false above a join would be noticed only after both are planned."""
    for sql in queries(name):
        for branch in sql.split("UNION ALL"):
            last = "gpu_metrics_1day" in branch or "m.bucket >= time_bucket(INTERVAL '1 day'" in branch
            assert last or re.search(r" m\.(time|bucket) <= CASE WHEN [^\n]+ ELSE '-infinity' END", branch)


def test_increases_start_from_minutes() -> None:
    sql = increases(["total_energy_consumption"], _where)
    assert "FROM gpu_metrics m" not in sql
    first = sql.split("UNION ALL")[0]
    assert "FROM gpu_metrics_1min m" in first
    assert "<= INTERVAL '6 hours'" in first
    assert "INTERVAL '10 minute' PRECEDING" in first


def test_gaps_are_rows_of_nulls_by_series() -> None:
    sql = with_gaps(("value",), "metric")
    assert "PARTITION BY metric ORDER BY time" in sql
    assert f"SELECT time + {HOLDS}, metric, NULL FROM" in sql
    assert sql.endswith("ORDER BY 1, 2")
    assert 'SELECT time, "a", "b c" FROM sample' in with_gaps(("a", "b c"))
