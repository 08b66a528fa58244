"""`gpumon plot` on a real TimescaleDB that holds a burn-in: levels, filters, gaps, files, and no data."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.__main__ import main
from services.plot.data import Picture, with_gaps
from services.plot.query import MOST_GPUS, NothingToShowError, read
from services.plot.select import Selection, metric
from services.store.connect import Connection
from tests.support.burn_in import BURN_IN, HOST, P40_AND_T4, fill
from tests.support.database import empty, insert, migrated, refresh, register, value_of

pytestmark = pytest.mark.timescale

STEP = 20.0
MINUTE, HOUR, DAY = (dt.timedelta(seconds=n) for n in (60, 3600, 86_400))
RECORDED = sum(phase.minutes for phase in BURN_IN if phase.recorded) * 60 / STEP
TEMP = (metric("temp"),)


@dataclasses.dataclass(frozen=True)
class Story:
    """The database and when what is in it happened."""

    connection: Connection
    dsn: str
    start: dt.datetime
    end: dt.datetime

    def selection(self, **more: Any) -> Selection:
        given = {"start": self.start, "end": self.end + MINUTE, "metrics": TEMP, **more}
        return Selection(**given)

    def read(self, **more: Any) -> Picture:
        return read(self.connection, self.selection(**more))


@pytest.fixture(scope="module")
def story(timescale: str) -> Iterator[Story]:
    with migrated(timescale) as connection:
        now = value_of(connection, "SELECT date_trunc('minute', now())")
        end = now - 10 * MINUTE
        yield Story(connection, timescale, fill(connection, end, STEP), end)


def tags(picture: Picture) -> list[str | None]:
    return [run.tag for run in picture.runs]


# --- what is read ---------------------------------------------------------------------------------------------------


def test_few_rows_are_read_as_they_are(story: Story) -> None:
    picture = story.read(metrics=(metric("temp"), metric("power")))
    assert (picture.relation, picture.bucket) == ("gpu_metrics", 0.0)
    assert [(s.gpu.name, s.metric.column, len(s.times)) for s in picture.series] == [
        ("0 Tesla P40", "gpu_temp", RECORDED), ("1 Tesla T4", "gpu_temp", RECORDED),
        ("0 Tesla P40", "power_usage", RECORDED), ("1 Tesla T4", "power_usage", RECORDED),
    ]  # fmt: skip
    stored = story.connection.execute(
        "SELECT extract(epoch FROM time)::float8, gpu_temp FROM gpu_metrics WHERE gpu_id = 1 ORDER BY time"
    ).fetchall()
    assert list(picture.series[0].times) == [time for time, _ in stored]
    assert list(picture.series[0].values) == [temp for _, temp in stored]


def test_gpus_come_with_their_limits(story: Story) -> None:
    p40, t4 = story.read(metrics=(metric("power"),)).gpus
    assert (p40.hostname, p40.slowdown_temp, p40.memory_total, p40.power_limit) == (HOST, 92, 23_040, 250)
    assert (t4.slowdown_temp, t4.power_limit) == (P40_AND_T4[1].slowdown_temp, 70)


def test_runs_are_the_phases_and_the_gap_is_a_gap(story: Story) -> None:
    picture = story.read()
    wanted: list[tuple[str | None, str | None]] = []
    for phase in BURN_IN:
        if phase.recorded and (not wanted or wanted[-1] != (phase.tag, phase.memo)):
            wanted.append((phase.tag, phase.memo))
    assert [(run.tag, run.memo) for run in picture.runs] == wanted
    lengths = [run.end - run.start for run in picture.runs]
    assert lengths == [phase.minutes * 60 for phase in BURN_IN if phase.recorded]
    line = with_gaps(picture.series[0])
    assert np.isnan(line.values).sum() == 1
    missing = float(line.times[np.flatnonzero(np.isnan(line.values))[0]])
    silent = next(phase for phase in BURN_IN if not phase.recorded)
    before = sum(phase.minutes for phase in BURN_IN[: BURN_IN.index(silent)]) * 60
    assert missing - story.start.timestamp() == pytest.approx(before, abs=2 * STEP)


def test_throttling_is_where_the_bits_say_so(story: Story) -> None:
    picture = story.read()
    hot = [held for held in picture.throttled if held.by_heat]
    assert {held.gpu.name for held in hot} == {"0 Tesla P40"}
    bench = next(run for run in picture.runs if run.memo == "gpu-burn fan=25%")
    assert all(bench.start <= held.start and held.end <= bench.end for held in hot)
    seconds = value_of(
        story.connection, "SELECT count(*) FROM gpu_metrics WHERE gpu_id = 1 AND clocks_event_reasons & 104 <> 0"
    ) * STEP  # fmt: skip
    assert sum(held.end - held.start for held in hot) == seconds


@pytest.mark.parametrize("level", ["gpu_metrics_1min", "gpu_metrics_1hour"])
def test_a_long_range_is_read_from_the_aggregates_with_minima_and_maxima(story: Story, level: str) -> None:
    """Many rows far apart in time, which the rule counts: one more sample long ago makes the range long."""
    longer = {"gpu_metrics_1min": 5, "gpu_metrics_1hour": 80}[level]
    old = story.start - longer * DAY
    story.connection.execute("INSERT INTO gpu_metrics (time, gpu_id, gpu_temp) SELECT %s + n * interval '1 s', 1, 20 "
                             "FROM generate_series(1, 5000) n", (old,))  # fmt: skip
    try:
        refresh(story.connection)
        picture = story.read(start=old - HOUR)
        assert picture.relation == level
        recent = picture.series[0].times > story.start.timestamp()
        low, high = picture.series[0].low, picture.series[0].high
        assert low is not None
        assert high is not None
        temps = story.connection.execute("SELECT min(gpu_temp), max(gpu_temp) FROM gpu_metrics WHERE gpu_id = 1 "
                                         "AND time > %s", (story.start,)).fetchone()  # fmt: skip
        assert (low[recent].min(), high[recent].max()) == temps
        assert (low[recent] <= picture.series[0].values[recent] + 1e-9).all()
        assert picture.points <= 2000
        found, mean = picture.series[0].summary(), value_of(
            story.connection, "SELECT avg(gpu_temp)::float8 FROM gpu_metrics WHERE gpu_id = 1"
        )  # fmt: skip
        assert found is not None
        assert found[1] == pytest.approx(mean)
        filtered = story.read(start=old - HOUR, tags=("bench",))
        assert filtered.relation == "gpu_metrics"
        assert filtered.notes == ("throttled: any sample of a minute",)
    finally:
        story.connection.execute("DELETE FROM gpu_metrics WHERE time < %s", (story.start,))
        refresh(story.connection)


def test_many_rows_of_a_short_range_are_put_into_buckets(story: Story) -> None:
    gpu = register(story.connection, story.start, uuid="GPU-fast", hostname="fast", index=0)
    insert(story.connection, ({"time": story.end - n * dt.timedelta(seconds=1), "gpu_id": gpu, "gpu_temp": n % 90,
                               "sm_clock": 1000} for n in range(7200)))  # fmt: skip
    try:
        picture = story.read(hosts=("fast",), start=story.end - 2 * HOUR)
        assert (picture.relation, picture.bucket) == ("gpu_metrics", 5.0)
        (line,) = picture.series
        assert line.counts.sum() == 7200
        assert line.summary() == pytest.approx((0.0, sum(n % 90 for n in range(7200)) / 7200, 89.0))
    finally:
        story.connection.execute("DELETE FROM gpu_metrics WHERE gpu_id = %s", (gpu,))
        story.connection.execute("DELETE FROM gpus WHERE gpu_id = %s", (gpu,))


# --- filters --------------------------------------------------------------------------------------------------------


def test_by_tag_without_prod_and_by_memo(story: Story) -> None:
    assert set(tags(story.read(tags=("bench",)))) == {"bench"}
    assert set(tags(story.read(exclude_prod=True))) == {"idle", "bench"}
    two = story.read(memos=("gpu-burn fan=100%", "gpu-burn fan=25%"))
    assert [run.memo for run in two.runs] == ["gpu-burn fan=100%", "gpu-burn fan=25%"]
    assert len(two.series[0].times) == 60 * 60 / STEP
    assert np.isnan(with_gaps(two.series[0]).values).sum() == 1
    one = story.read(memos=("gpu-burn fan=25%",), exclude_prod=True)
    assert len(one.series[0].times) == 30 * 60 / STEP


def test_rows_without_a_tag_are_not_prod(story: Story) -> None:
    gpu = register(story.connection, story.start, uuid="GPU-untagged", hostname="untagged")
    insert(story.connection, [{"time": story.end - MINUTE, "gpu_id": gpu, "gpu_temp": 1}])
    try:
        assert len(story.read(hosts=("untagged",), exclude_prod=True).series[0].times) == 1
    finally:
        story.connection.execute("DELETE FROM gpu_metrics WHERE gpu_id = %s", (gpu,))
        story.connection.execute("DELETE FROM gpus WHERE gpu_id = %s", (gpu,))


@pytest.mark.parametrize("name", ["1", "GPU-burn-in-1", "gpu-BURN-in-1"])
def test_one_gpu(story: Story, name: str) -> None:
    assert [gpu.name for gpu in story.read(gpus=(name,)).gpus] == ["1 Tesla T4"]


def test_a_gpu_that_moved_is_shown_while_it_was_at_the_host(story: Story) -> None:
    moved = story.end - HOUR
    gpu = register(story.connection, story.end - 2 * HOUR, uuid="GPU-moved", hostname="here")
    register(story.connection, moved, uuid="GPU-moved", hostname="there")
    insert(story.connection, [{"time": story.end - n * MINUTE, "gpu_id": gpu, "gpu_temp": n} for n in range(1, 120)])
    try:
        here, there = (story.read(hosts=(host,)).series[0] for host in ("here", "there"))
        assert (here.values.min(), here.values.max()) == (61, 119)
        assert (there.values.min(), there.values.max()) == (1, 60)
        assert (here.gpu.hostname, there.gpu.hostname) == ("here", "there")
    finally:
        story.connection.execute("DELETE FROM gpu_metrics WHERE gpu_id = %s", (gpu,))
        story.connection.execute("DELETE FROM gpus WHERE gpu_id = %s", (gpu,))


def test_more_gpus_than_can_be_told_apart_are_refused(story: Story) -> None:
    seen = story.end - MINUTE
    gpus = [
        register(story.connection, seen, uuid=f"GPU-many-{n}", hostname="many", index=n) for n in range(MOST_GPUS + 1)
    ]
    insert(story.connection, [{"time": seen, "gpu_id": gpu, "gpu_temp": 1} for gpu in gpus])
    try:
        with pytest.raises(NothingToShowError, match=r"^at least 17 GPUs have data in this range"):
            story.read(hosts=("many",))
        with pytest.raises(NothingToShowError, match=r"^17 GPUs have data in this range"):
            story.read(hosts=("many",), end=seen + HOUR)
        assert len(story.read(hosts=("many",), gpus=("3", "4")).gpus) == 2
    finally:
        story.connection.execute("DELETE FROM gpu_metrics WHERE gpu_id = ANY(%s)", (gpus,))
        story.connection.execute("DELETE FROM gpus WHERE gpu_id = ANY(%s)", (gpus,))


def test_every_sampled_metric_can_be_read_from_every_level(story: Story) -> None:
    from services.contract.catalogue import SAMPLED
    from services.plot.select import DAYS, HOURS, MINUTES, ROWS
    from services.plot.statements import points

    given = {"start": story.start, "end": story.end, "ids": [1], "since": [story.start], "until": [story.end]}
    for level, bucket in ((ROWS, 0.0), (ROWS, 600.0), (MINUTES, 600.0), (HOURS, 3600.0), (DAYS, 86_400.0)):
        rows = story.connection.execute(points(story.selection(metrics=SAMPLED), level, bucket), given).fetchall()
        assert all(len(row) == 2 + 4 * len(SAMPLED) for row in rows)
        assert rows or level in (HOURS, DAYS)  # their first bucket may begin before the range


# --- without data ---------------------------------------------------------------------------------------------------


def test_no_data_says_what_was_asked_and_what_there_is(story: Story) -> None:
    with pytest.raises(NothingToShowError) as error:
        story.read(start=story.start - DAY, end=story.start - HOUR)
    said = str(error.value)
    assert said.startswith("no data from ")
    ends = story.connection.execute("SELECT min(time), max(time) FROM gpu_metrics").fetchone()
    assert ends is not None
    first, last = (time.astimezone(story.start.tzinfo).isoformat(timespec="seconds") for time in ends)
    assert said.endswith(f"; there is data between {first} and {last}"), "to the sample, and not in the future"
    tokyo = dt.timezone(9 * HOUR)
    asked = (story.start - DAY).astimezone(tokyo)
    with pytest.raises(NothingToShowError) as error:
        story.read(start=asked, end=asked + HOUR)
    said = str(error.value)
    assert said.startswith(f"no data from {asked.isoformat()} to {(asked + HOUR).isoformat()}; ")
    assert said.count("+09:00") == 4, "in the zone of the question"
    with pytest.raises(NothingToShowError, match=r"\(tag nobody\); there is data of any status between"):
        story.read(tags=("nobody",))
    with pytest.raises(NothingToShowError, match=rf"no GPU matches host nowhere; hosts with GPUs: .*{HOST} \(2\)"):
        story.read(hosts=("nowhere",))


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMESCALE_DSN", story.dsn)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_command_writes_a_picture(
    story: Story, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "directory" / f"picture.{suffix}"
    flags = ["--hours", "6", "--metric", "temp", "--metric", "power", "--out", str(out)]
    assert main(["plot", *flags]) == 0
    assert f"\nwrote {out} (from gpu_metrics)\n" in capsys.readouterr().out
    body = out.read_bytes()
    assert body.startswith({"png": b"\x89PNG", "svg": b"<?xml"}[suffix])
    assert list(out.parent.iterdir()) == [out]
    if suffix == "svg":
        assert b"GPU temperature, power draw: attic-01" in body
        assert b"gpu-burn" in body
    else:
        assert len(body) < 150_000


@pytest.mark.usefixtures("environment")
def test_the_command_says_in_json_what_it_drew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", "--gpu", "0", "--out", str(tmp_path / "x.png"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    (series,) = said["series"]
    assert (series["host"], series["gpu"], series["metric"], series["unit"]) == (HOST, 0, "gpu_temp", "°C")
    assert series["points"] == RECORDED
    assert series["min"] < 30 < series["avg"] < 85 < series["max"]
    assert {held["by"] for held in said["throttled"]} == {"heat", "power"}


@pytest.mark.usefixtures("environment")
def test_without_data_there_is_no_picture(story: Story, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.png"
    start = (story.start - 2 * DAY).isoformat()
    assert main(["plot", "--start", start, "--hours", "1", "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("gpumon plot: no data from ")
    assert said.count("\n") == 1
    assert not out.exists()


@pytest.mark.usefixtures("environment")
def test_a_file_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["plot", "--out", str(tmp_path / "file" / "x.png")]) == 1
    assert capsys.readouterr().err == f"gpumon plot: --out {tmp_path}/file/x.png: {tmp_path}/file: File exists\n"


# Last: it drops the rows.
def test_rows_that_are_gone_are_read_from_the_minutes(story: Story) -> None:
    story.connection.execute("SELECT drop_chunks('gpu_metrics', older_than => now() + interval '1 day')")
    picture = story.read(tags=("bench",))
    assert picture.relation == "gpu_metrics_1min"
    assert picture.notes == ("status: that of the last sample of each minute", "throttled: any sample of a minute")
    assert [run.memo for run in picture.runs] == ["gpu-burn fan=100%", "gpu-burn fan=25%"]
    assert any(held.by_heat for held in picture.throttled)
    empty(story.connection)
    with pytest.raises(NothingToShowError, match="knows no GPU yet"):
        story.read()
