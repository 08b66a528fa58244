"""Values of the Host dashboard, computed a second time in Python."""

from __future__ import annotations

import datetime as dt
import re
from itertools import groupby, pairwise
from statistics import mean
from typing import Any, Final

import pytest

from grafana import style
from tests.integration.dashboards.dataset import (
    A100_HOST,
    DAY,
    HOUR,
    MINUTE,
    P40_HOST,
    SPAN,
    T4_HOST,
    Dataset,
    Row,
    a100,
    begin_of,
)
from tests.integration.dashboards.story import (
    DASHBOARDS,
    RANGES,
    Story,
    between,
    panel,
    shown,
)
from tests.support.database import insert, register, value_of
from tests.support.grafana_checks import Result, plain

pytestmark = pytest.mark.timescale

HOST_UID = "gpu-telemetry"
MICROSECOND = dt.timedelta(microseconds=1)
EDGES: Final = {"15 min": None, "6 h": None, "2 days": MINUTE, "30 days": HOUR}
"""What is read, by range: rows, minutes, hours. The first is in it whole."""


def samples(data: Dataset, name: str, host: str) -> list[Row]:
    """Those of a host that are in a range."""
    start = data.end - RANGES[name]
    return data.between(begin_of(start, EDGES[name] or MICROSECOND), data.end, host)


def by_tag(rows: list[Row], *, width: dt.timedelta | None) -> dict[str, list[Row]]:
    """A minute, where rows are read a row, belongs to the tag it ended with."""
    last = {(row["gpu_id"], begin_of(row["time"], width or MICROSECOND)): row.get("status_tag") for row in rows}
    tags: dict[str, list[Row]] = {}
    for row in rows:
        tag = last[row["gpu_id"], begin_of(row["time"], width or MICROSECOND)]
        tags.setdefault(tag or "untagged", []).append(row)
    return tags


def temps(rows: list[Row]) -> list[int]:
    return [row["gpu_temp"] for row in rows if row.get("gpu_temp") is not None]


@pytest.mark.parametrize("host", [P40_HOST, A100_HOST, T4_HOST])
@pytest.mark.parametrize("name", RANGES)
def test_temperatures_and_samples_of_a_host(story: Story, name: str, host: str) -> None:
    length = RANGES[name]
    rows = samples(story.data, name, host)
    assert shown(story, HOST_UID, "Max Temp", length, host) == [[max(temps(rows))]]
    assert shown(story, HOST_UID, "Avg Temp", length, host) == [[pytest.approx(mean(temps(rows)))]]
    assert shown(story, HOST_UID, "Total Samples", length, host) == [[len(rows)]]
    tags = by_tag(rows, width=EDGES[name] and MINUTE)
    assert dict(shown(story, HOST_UID, "Samples by Status", length, host)) == {t: len(r) for t, r in tags.items()}
    spread = shown(story, HOST_UID, "Temperature Distribution by Status", length, host)
    assert {tag: (low, high) for tag, low, _, high in spread} == {
        tag: (min(temps(rows)), max(temps(rows))) for tag, rows in tags.items()
    }
    for tag, _, average, _ in spread:
        assert average == pytest.approx(mean(temps(tags[tag])), abs=0.05 + 1e-9)


def test_current_temperatures_are_the_newest(story: Story) -> None:
    """The GPU that was lost nine minutes ago has none."""
    newest: dict[int, Row] = {}
    for row in story.data.rows:
        if row["host"] == A100_HOST:
            newest[row["gpu_id"]] = row
    fresh = [r["gpu_temp"] for r in newest.values() if r["time"] == story.data.end and "gpu_temp" in r]
    values = [row[-1] for row in shown(story, HOST_UID, "Current Temperature", 6 * HOUR, A100_HOST)]
    assert len(fresh) == 3
    assert sorted(value for value in values if value is not None) == sorted(fresh)


def test_recent_status_changes_are_those_that_were_made(story: Story) -> None:
    result = story.result(panel(HOST_UID, "Recent Status Changes"), 6 * HOUR, P40_HOST)
    told = [e for e in story.data.events if e["kind"] == "status" and e["time"] >= story.data.end - 6 * HOUR]
    wanted = [(e["time"], e["detail"]["tag"], e["detail"]["memo"]) for e in reversed(told)]
    assert list(zip(result.column("time"), result.column("status"), result.column("memo"), strict=True)) == wanted
    assert result.column("before") == [*(tag for _, tag, _ in wanted[1:]), "idle"]


def changes_of(story: Story, start: dt.datetime, tags: dict[int, str | None], length: dt.timedelta) -> list[Any]:
    """Columns before and status, the first change first, of a host whose operator said `tags` so many seconds after
    `start`, of which samples tell the same; of a GPU of another host they say something else."""
    with story.connection.transaction(force_rollback=True):
        gpu, other = (
            register(story.connection, start - HOUR, uuid=f"GPU-{host}", hostname=host) for host in ("told", "other")
        )
        insert(story.connection, [{"time": start, "gpu_id": gpu, "status_tag": "idle"}])
        insert(story.connection, [{"time": start + dt.timedelta(seconds=1), "gpu_id": other, "status_tag": "other"}])
        for seconds, tag in tags.items():
            time = start + dt.timedelta(seconds=seconds)
            insert(story.connection, [{"time": time, "gpu_id": gpu, "status_tag": tag}])
            story.connection.execute(
                "INSERT INTO gpu_events (time, kind, hostname, source, code, detail) "
                "VALUES (%s, 'status', 'told', 'mock', 0, jsonb_build_object('tag', %s::text))",
                (time, tag),
            )
        end = start + HOUR
        result = between(story, panel(HOST_UID, "Recent Status Changes"), end - length, end, {"host": "told"})
    return list(zip(result.column("before"), result.column("status"), strict=True))[::-1]


@pytest.mark.parametrize("length", [2 * HOUR, 12 * HOUR, 10 * DAY], ids=str)
def test_before_the_first_change_it_was_what_samples_say(story: Story, length: dt.timedelta) -> None:
    """What the collector found when it started no event tells. Later ones follow each other, over "nothing" too."""
    start = begin_of(story.data.end, HOUR) + HOUR  # nothing of that hour is stored
    assert changes_of(story, start, {90: "bench", 190: "prod"}, length) == [("idle", "bench"), ("bench", "prod")]
    assert changes_of(story, start, {90: None, 190: "prod"}, length) == [("idle", None), (None, "prod")]
    assert changes_of(story, start, {361: "bench"}, length) == [(None, "bench")], "over five minutes ago"
    of_rows = "idle" if length <= 6 * HOUR else None
    assert changes_of(story, start, {30: "bench"}, length) == [(of_rows, "bench")], "of minutes only whole ones tell"


@pytest.mark.parametrize(("name", "width"), [("6 h", MINUTE), ("2 days", MINUTE), ("30 days", HOUR)])
def test_energy_is_what_the_counter_grew(story: Story, name: str, width: dt.timedelta) -> None:
    """kWh by GPU, over a restart of the counter, and over the time in which one was lost: its counter went on."""
    start = begin_of(story.data.end - RANGES[name], width)
    values = {row[-2]: row[-1] for row in shown(story, HOST_UID, "Energy", RANGES[name], A100_HOST)}
    for index in range(4):
        gpu = story.data.gpu_ids[a100(index)]
        rows = [row for row in story.data.rows if row["gpu_id"] == gpu and start <= row["time"]]
        assert values[f"GPU {index}"] == pytest.approx(grown(rows) / 3.6e9, rel=1e-9)


def grown(rows: list[Row]) -> int:
    """mJ from the first row to the last. A restart begins at zero."""
    name = "total_energy_consumption"
    return sum(
        after[name] - (0 if name in after.get("counter_resets", {}) else before[name])
        for before, after in pairwise(rows)
    )


def test_energy_over_a_restart_that_nobody_saw_is_unknown(story: Story) -> None:
    with story.connection.transaction(force_rollback=True):
        end = story.data.end + 2 * MINUTE
        gpu = story.data.gpu_ids[a100(1)]
        insert(story.connection, [{"time": end, "gpu_id": gpu, "total_energy_consumption": 5}])
        result = between(story, panel(HOST_UID, "Energy"), end - HOUR, end, {"host": A100_HOST})
    values = {row[-2]: row[-1] for row in result.rows}
    assert values["GPU 1"] is None
    assert values["GPU 0"] > 0


# --- status over long ranges -----------------------------------------------------------------------------------------


def minutes_of(data: Dataset, gpu: int, start: dt.datetime) -> list[Row]:
    """The last row of each minute, with its first time, its samples and its highest temperature."""
    found: dict[dt.datetime, Row] = {}
    for row in data.rows:
        if row["gpu_id"] == gpu and begin_of(row["time"], MINUTE) >= begin_of(start, MINUTE):
            before = found.get(minute := begin_of(row["time"], MINUTE))
            samples, peak = (before["samples"], before["peak"]) if before else (0, row["gpu_temp"])
            found[minute] = {**row, "minute": minute, "samples": samples + 1, "peak": max(peak, row["gpu_temp"])}
    return list(found.values())


def p40(story: Story) -> int:
    numbers: list[int] = [row["gpu_id"] for row in story.data.rows if row["host"] == P40_HOST]
    return min(numbers)


def runs_of(result: Result, gpu: str = "GPU 0") -> list[dict[str, Any]]:
    """The rows of one GPU, the first run first."""
    names = [name for name, _ in result.columns]
    rows = [dict(zip(names, map(plain, row), strict=True)) for row in reversed(result.rows)]
    return [row for row in rows if row["GPU"] == gpu]


def islands(rows: list[Row]) -> list[tuple[tuple[str, str], list[Row]]]:
    """Rows of a GPU by what was said, where there is a memo."""
    same = groupby(rows, key=lambda row: (row["status_tag"], row["status_memo"]))
    return [(said, list(run)) for said, run in same if said[1] is not None]


def test_runs_are_exact_to_the_minute_where_hours_are_read(story: Story) -> None:
    """Two of the eight changes are within twelve minutes: shorter than an hour."""
    found = runs_of(story.result(panel(HOST_UID, "Runs by memo"), SPAN, P40_HOST))
    runs = islands(minutes_of(story.data, p40(story), story.data.end - SPAN))
    assert [(r["status"], r["memo"], r["peak temperature"], r["samples"]) for r in found] == [
        (tag, memo, max(r["peak"] for r in rows), sum(r["samples"] for r in rows)) for (tag, memo), rows in runs
    ]
    assert len(found) >= 6
    ends = [(rows[0]["minute"], min(rows[-1]["minute"] + MINUTE, story.data.end)) for _, rows in runs]
    assert [(r["from"], r["to"]) for r in found] == ends
    assert [r["duration"] for r in found] == [(end - begin).total_seconds() for begin, end in ends]


def test_a_runs_rise_is_from_its_first_sample_to_its_peak(story: Story) -> None:
    found = runs_of(story.result(panel(HOST_UID, "Runs by memo"), 6 * HOUR, P40_HOST))
    rows = [r for r in samples(story.data, "6 h", P40_HOST) if r["gpu_id"] == p40(story)]
    runs = [run for _, run in islands(rows)]
    starts = [run[0]["gpu_temp"] for run in runs]
    assert [r["start temperature"] for r in found] == starts
    peaks = [max(temps(run)) for run in runs]
    assert [r["rise"] for r in found] == [peak - start for peak, start in zip(peaks, starts, strict=True)]
    assert any(peak > start for peak, start in zip(peaks, starts, strict=True))
    assert [r["duration"] for r in found] == [(run[-1]["time"] - run[0]["time"]).total_seconds() for run in runs]


def test_the_start_of_a_run_is_no_average_of_an_hour(story: Story) -> None:
    """Of minutes it is the first minute's; of hours nobody knows."""
    query = panel(HOST_UID, "Runs by memo")
    minutes = runs_of(between(story, query, story.data.end - 8 * HOUR, story.data.end, {"host": P40_HOST}))
    rows = [r for r in story.data.rows if r["gpu_id"] == p40(story) and r["time"] >= story.data.end - 8 * HOUR]
    firsts = [
        mean(temps([r for r in run if begin_of(r["time"], MINUTE) == begin_of(run[0]["time"], MINUTE)]))
        for run in by_minute(rows)
    ]
    assert [r["start temperature"] for r in minutes] == pytest.approx(firsts)
    hours = runs_of(story.result(query, SPAN, P40_HOST))
    assert {(r["start temperature"], r["rise"]) for r in hours} == {(None, None)}
    assert all(r["peak temperature"] is not None for r in hours)


def by_minute(rows: list[Row]) -> list[list[Row]]:
    """Runs, where a minute belongs to what it ended with."""
    last = {begin_of(row["time"], MINUTE): (row["status_tag"], row["status_memo"]) for row in rows}
    same = groupby(rows, key=lambda row: last[begin_of(row["time"], MINUTE)])
    return [list(run) for said, run in same if said[1] is not None]


def test_a_run_that_goes_on_at_the_begin_of_the_range_has_no_start(story: Story) -> None:
    """It began half an hour before: what it was at the edge is not what it began with."""
    begin = story.data.end - 2 * HOUR - 30 * MINUTE
    first, *others = runs_of(between(story, panel(HOST_UID, "Runs by memo"), begin, story.data.end, {"host": P40_HOST}))
    assert (first["memo"], first["start temperature"], first["rise"]) == ("gpu-burn fan=25%", None, None)
    assert len(others) == 2
    assert all(r["start temperature"] is not None for r in others)


@pytest.mark.parametrize("title", ["Runs by memo", "Recent Status Changes"])
def test_a_row_leads_to_its_own_time(story: Story, title: str) -> None:
    """The link's range has the run's start, and a minute around it."""
    result = story.result(panel(HOST_UID, title), 6 * HOUR, P40_HOST)
    begins = result.column("from" if title == "Runs by memo" else "time")
    assert [ms(begin - MINUTE) for begin in begins] == result.column("begin_ms")
    if title == "Recent Status Changes":
        lasted = [dt.timedelta(seconds=s) for s in result.column("lasted")[1:]]  # the newest holds until now
        ends = [begin + length for begin, length in zip(begins[1:], lasted, strict=True)]
        assert [ms(end + MINUTE) for end in ends] == result.column("end_ms")[1:]
        assert ends == begins[:-1]
        return
    assert [ms(end + MINUTE) for end in result.column("to")] == result.column("end_ms")
    (row,) = [r for r in runs_of(result) if r["memo"] == "gpu-burn fan=25%"]
    start, end = (dt.datetime.fromtimestamp(row[name] / 1000, dt.UTC) for name in ("begin_ms", "end_ms"))
    there = runs_of(between(story, panel(HOST_UID, title), start, end, {"host": P40_HOST}))
    (same,) = [r for r in there if r["memo"] == row["memo"]]
    for name in ("start temperature", "peak temperature", "rise", "duration", "samples"):
        assert same[name] == row[name]


def ms(time: dt.datetime) -> int:
    return round(time.timestamp() * 1000)


def test_the_status_timeline_changes_when_the_status_did(story: Story) -> None:
    result = story.result(panel(HOST_UID, "Status Timeline"), SPAN, P40_HOST)
    states = [(time, tag) for time, tag in result.rows if tag is not None]
    minutes = minutes_of(story.data, p40(story), story.data.end - SPAN)
    changes = [next(rows)["minute"] for _, rows in groupby(minutes, key=lambda row: row["status_tag"])]
    found = [next(same)[0] for _, same in groupby(states, key=lambda state: state[1])]
    assert found == changes
    assert len(changes) >= 8
    assert [tag for tag, _ in groupby(tag for _, tag in states)] == [
        tag for tag, _ in groupby(minutes, key=lambda row: row["status_tag"])
    ]


def test_a_gpu_without_a_tag_does_not_hide_the_hosts_status(story: Story) -> None:
    """Read by another exporter, which knows of no status."""
    end = story.data.end + 2 * MINUTE
    with story.connection.transaction(force_rollback=True):
        other = register(story.connection, end, uuid="GPU-untagged", hostname=P40_HOST, index=2)
        both = [{"time": end, "gpu_id": gpu, "gpu_temp": 40} for gpu in (p40(story), other)]
        insert(story.connection, [{**both[0], "status_tag": "bench"}, both[1]])
        story.connection.execute("SELECT refresh_gpu_latest()")
        result = between(story, panel(HOST_UID, "Status Timeline"), end - MINUTE, end, {"host": P40_HOST})
    assert [tag for _, tag in result.rows] == ["bench"]


@pytest.mark.parametrize("title", ["Max Temp", "Avg Temp", "Total Samples"])
def test_figures_without_status_need_no_status(story: Story, title: str) -> None:
    """A database that was there before gpu_usage_1hour has minutes for its first weeks only; hours are there."""
    query = panel(HOST_UID, title)
    ends = (story.data.end - SPAN, story.data.end)
    with story.connection.transaction(force_rollback=True):
        before = between(story, query, *ends, {"host": P40_HOST}).rows
        story.connection.execute("SELECT drop_chunks('gpu_usage_1hour', older_than => now() - INTERVAL '1 day')")
        assert between(story, query, *ends, {"host": P40_HOST}).rows == before


def test_a_few_hours_of_last_week_are_read_from_what_is_kept_of_them(story: Story) -> None:
    """Rows are dropped after a week; two hours ten days ago are minutes, a day thirty-five days ago would be hours."""
    end = story.data.end - 10 * DAY + 30 * MINUTE  # half an hour from the samples: no edge cuts a minute that has one
    rows = [row for row in story.data.rows if row["host"] == P40_HOST and end - 2 * HOUR <= row["time"] <= end]
    assert rows
    for title, wanted in (("Total Samples", len(rows)), ("Max Temp", max(temps(rows)))):
        result = between(story, panel(HOST_UID, title), end - 2 * HOUR, end, {"host": P40_HOST})
        assert result.rows == [(wanted,)], title
    lines = between(story, panel(HOST_UID, "GPU Temperature"), end - 2 * HOUR, end, {"host": P40_HOST})
    assert any(value is not None for value in lines.column("value"))


def test_what_is_kept_is_what_the_settings_say(story: Story) -> None:
    """RETENTION of two days: three days ago is minutes, in a range of which rows would be read by default."""
    end = story.data.end - 3 * DAY + 30 * MINUTE
    query = panel(HOST_UID, "Total Samples")
    with story.connection.transaction(force_rollback=True):
        default = between(story, query, end - 2 * HOUR, end, {"host": P40_HOST}).rows
        story.connection.execute("DELETE FROM gpu_metrics WHERE time < now() - INTERVAL '2 days'")
        assert between(story, query, end - 2 * HOUR, end, {"host": P40_HOST}).rows == [(0,)]
        changed = story.connection.execute(
            "UPDATE retention SET drop_after = INTERVAL '2 days' WHERE relation = 'gpu_metrics'"
        )
        assert changed.rowcount == 1
        assert between(story, query, end - 2 * HOUR, end, {"host": P40_HOST}).rows == default != [(0,)]


def test_a_short_job_is_a_short_band_over_long_ranges(story: Story) -> None:
    """Read from hours: it began and ended within one; before and after is one row of that hour."""
    start = begin_of(story.data.end, HOUR) + HOUR  # nothing of that hour is stored
    with story.connection.transaction(force_rollback=True):
        gpu = register(story.connection, start, uuid="GPU-busy", hostname="busy", index=0)
        tags = ["bench" if 10 <= minute < 15 else "idle" for minute in range(40)]
        insert(
            story.connection,
            [{"time": start + n * MINUTE, "gpu_id": gpu, "status_tag": tag} for n, tag in enumerate(tags)],
        )
        end = start + 40 * MINUTE
        bands = between(story, panel(HOST_UID, "Status Timeline"), end - 3 * DAY, end, {"host": "busy"}).rows
    changes = [next(same) for _, same in groupby(bands, key=lambda band: band[1])]
    assert [tag for _, tag in changes] == ["idle", "bench", "idle"]
    assert changes[1][0] == start + 10 * MINUTE
    assert changes[2][0] <= start + 20 * MINUTE


def test_status_is_exact_where_minutes_are_kept_no_more(story: Story) -> None:
    query = panel(HOST_UID, "Samples by Status")
    with story.connection.transaction(force_rollback=True):
        story.connection.execute(
            "SELECT drop_chunks('gpu_metrics_1min', older_than => %s::timestamptz)", (story.data.end - HOUR,)
        )
        kept = value_of(story.connection, "SELECT min(bucket) FROM gpu_metrics_1min")
        result = between(story, query, story.data.end - SPAN, story.data.end, {"host": P40_HOST})
    assert kept > story.data.end - DAY
    tags = by_tag(samples(story.data, "30 days", P40_HOST), width=MINUTE)
    found = dict(zip(result.column("status"), result.column("samples"), strict=True))
    assert found == {tag: len(rows) for tag, rows in tags.items()}


# --- averages and peaks ----------------------------------------------------------------------------------------------


def test_of_rows_a_line_is_called_as_its_gpu(story: Story) -> None:
    for title in ("GPU Temperature", "Power", "Power limit"):
        lines = story.result(panel(HOST_UID, title), 6 * HOUR, P40_HOST)
        assert set(lines.column("metric")) == {"GPU 0", "GPU 1"}


def test_of_buckets_averages_are_called_so_and_peaks_are_beside_them(story: Story) -> None:
    """The highest of an hour in which it was hot for a while is not its average."""
    result = story.result(panel(HOST_UID, "GPU Temperature"), 30 * DAY, P40_HOST)
    names = [f"GPU {index} {what}" for index in (0, 1) for what in ("average", "peak")]
    assert sorted(set(result.column("metric"))) == names
    rows = [r for r in samples(story.data, "30 days", P40_HOST) if r["gpu_id"] == p40(story)]
    hours = {hour: temps(list(of)) for hour, of in groupby(rows, key=lambda row: begin_of(row["time"], HOUR))}
    averages, peaks = (
        {time: value for time, metric, value in result.rows if metric == name and value is not None}
        for name in names[:2]
    )
    assert peaks == {hour: max(of) for hour, of in hours.items()}
    assert averages == pytest.approx({hour: mean(of) for hour, of in hours.items()})
    assert any(peak - averages[hour] > 5 for hour, peak in peaks.items())


def test_where_there_is_no_peak_the_name_says_average_all_the_same(story: Story) -> None:
    lines = story.result(panel(HOST_UID, "Power limit"), 30 * DAY, P40_HOST)
    assert set(lines.column("metric")) == {"GPU 0 average", "GPU 1 average"}


def test_a_gap_is_one_in_the_average_and_in_the_peak(story: Story) -> None:
    """The T4's exporter was away for half an hour, five hours ago."""
    end = story.data.end
    result = between(story, panel(HOST_UID, "GPU Temperature"), end - 7 * HOUR, end, {"host": T4_HOST})
    for name in ("GPU 0 average", "GPU 0 peak"):
        gaps = [time for time, metric, value in result.rows if metric == name and value is None]
        assert [time for time in gaps if end - 5 * HOUR - 2 * MINUTE < time <= end - 5 * HOUR + MINUTE], name


# --- boards ----------------------------------------------------------------------------------------------------------


def test_mig_instances_are_not_counted_as_boards(story: Story) -> None:
    ((text,),) = shown(story, HOST_UID, "GPU", 6 * HOUR, A100_HOST)
    boards = {uuid for uuid, _ in story.data.gpu_ids if uuid in uuids(story, A100_HOST)}
    assert len(boards) == 4
    model = next(row["model"] for row in story.data.rows if row["host"] == A100_HOST)
    assert text == f"4 x {model} + 2 MIG instances"
    assert "MIG" not in shown(story, HOST_UID, "GPU", 6 * HOUR, P40_HOST)[0][0]


def uuids(story: Story, host: str) -> set[str]:
    here = {row["gpu_id"] for row in story.data.rows if row["host"] == host}
    return {uuid for (uuid, _), number in story.data.gpu_ids.items() if number in here}


# --- looks -----------------------------------------------------------------------------------------------------------


def look(title: str) -> Any:
    return next(p for p in DASHBOARDS[HOST_UID].panels() if p["title"] == title)


def overridden(title: str, name: str) -> dict[str, Any]:
    """Regular expression of the fields -> value of the property, where it has one."""
    return {
        override["matcher"]["options"]: set_.get("value")
        for override in look(title)["fieldConfig"]["overrides"]
        for set_ in override["properties"]
        if set_["id"] == name
    }


@pytest.mark.parametrize("title", ["Temperature by Status", "Samples by Status"])
def test_no_status_has_not_the_colour_of_one(title: str) -> None:
    colours = {fields: colour["fixedColor"] for fields, colour in overridden(title, "color").items()}
    assert colours["/^untagged\\b/i"] == style.GREY
    assert style.GREY not in style.STATUS_COLOURS.values()


@pytest.mark.parametrize("title", ["Status Timeline", "Throttling"])
def test_a_gap_is_neither_in_the_legend_of_states_nor_a_band(title: str) -> None:
    """Grafana lists what NULL reads; "" would be the number 0, and a NULL with a mapping is drawn."""
    assert overridden(title, "noValue") == {"/.*/": None}
    kinds = {mapping["type"] for mapping in look(title)["fieldConfig"]["defaults"]["mappings"]}
    assert kinds == {"value"}


@pytest.mark.parametrize("title", ["Runs by memo", "Recent Status Changes"])
def test_tables_of_what_was_done_say_how_to_have_one(title: str) -> None:
    assert "gpumon status set" in look(title)["fieldConfig"]["defaults"]["noValue"]
    assert overridden(title, "noValue")["/.*/"] == style.NO_VALUE, "of a cell"
    assert overridden(title, "custom.hidden") == {"/^(begin|end)_ms$/": True}
    ((_, (found,)),) = overridden(title, "links").items()
    assert "from=${__data.fields.begin_ms}&to=${__data.fields.end_ms}" in found["url"]


def test_runs_come_right_after_the_runbooks_twelve() -> None:
    titles = [p["title"] for p in DASHBOARDS[HOST_UID].panels()]
    assert titles[11:13] == ["Recent Status Changes", "Runs by memo"]
    (columns,) = overridden("Runs by memo", "custom.filterable")
    assert all(re.search(columns.strip("/"), name) for name in ("status", "memo", "GPU"))


# --- names -----------------------------------------------------------------------------------------------------------


def test_a_board_that_was_replaced_is_told_from_the_new_one(story: Story) -> None:
    """Both are GPU 0: a line and an entry of the drop-down for each, called by its UUID. Of now there is one."""
    end = story.data.end + 2 * MINUTE
    with story.connection.transaction(force_rollback=True):
        new = register(story.connection, end, uuid="GPU-11112222-new", hostname=P40_HOST, index=0, model="P40")
        insert(story.connection, [{"time": end, "gpu_id": new, "gpu_temp": 33}])
        story.connection.execute("SELECT refresh_gpu_latest()")
        lines = between(story, panel(HOST_UID, "GPU Temperature"), end - HOUR, end, {"host": P40_HOST})
        tiles = between(story, panel(HOST_UID, "Current Temperature"), end - HOUR, end, {"host": P40_HOST})
        sql = str({v["name"]: v for v in DASHBOARDS[HOST_UID].variables}["gpu"]["query"])
        options = story.ask(sql.replace("${host:sqlstring}", f"'{P40_HOST}'"))
    uuid = next(key[0] for key, number in story.data.gpu_ids.items() if number == p40(story))
    names = {"GPU 0 (GPU-11112222)", f"GPU 0 ({uuid[:12]})", "GPU 1"}
    assert set(lines.column("metric")) == names
    assert set(tiles.column("metric")) == {"GPU 0", "GPU 1"}
    assert {name for name, _ in options} == names


@pytest.mark.parametrize("name", ["6 h", "30 days"])
def test_a_memo_used_again_is_another_run(story: Story, name: str) -> None:
    """'normal usage' held until 33 h before the end, and again in the last two hours."""
    result = story.result(panel(HOST_UID, "Runs by memo"), RANGES[name], P40_HOST)
    memos = [memo for memo, gpu in zip(result.column("memo"), result.column("GPU"), strict=True) if gpu == "GPU 0"]
    assert memos.count("normal usage") == (2 if name == "30 days" else 1)


def test_gpus_are_in_the_order_of_their_numbers(story: Story) -> None:
    variables = {v["name"]: v for v in DASHBOARDS[HOST_UID].variables}
    sql = str(variables["gpu"]["query"]).replace("${host:sqlstring}", f"'{A100_HOST}'")
    names = [row[0] for row in story.ask(sql)]
    assert [name[:5] for name in names] == sorted(name[:5] for name in names)
    assert len(names) == 6
    tiles = [row[1] for row in shown(story, HOST_UID, "Current Temperature", 6 * HOUR, A100_HOST)]
    assert tiles == names


def test_gpu_10_comes_after_gpu_9(story: Story) -> None:
    variables = {v["name"]: v for v in DASHBOARDS[HOST_UID].variables}
    sql = str(variables["gpu"]["query"])
    host = "twelve"
    with story.connection.transaction(force_rollback=True):
        for index in range(12):
            register(story.connection, story.data.end, uuid=f"GPU-twelve-{index}", hostname=host, index=index)
        names = [row[0] for row in story.ask(sql.replace("${host:sqlstring}", f"'{host}'"))]
    assert names == [f"GPU {index}" for index in range(12)]
