"""Values of the Host dashboard, computed a second time in Python."""

from __future__ import annotations

import datetime as dt
from itertools import groupby, pairwise
from statistics import mean
from typing import Final

import pytest

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


def test_runs_are_exact_to_the_minute_where_hours_are_read(story: Story) -> None:
    """Two of the eight changes are within twelve minutes: shorter than an hour."""
    result = story.result(panel(HOST_UID, "Runs by memo"), SPAN, P40_HOST)
    of_gpu = [row for row in result.rows if row[2] == "GPU 0"]
    found = [(row[0], row[1], row[6], row[-1]) for row in reversed(of_gpu)]
    minutes = minutes_of(story.data, p40(story), story.data.end - SPAN)
    islands = groupby(minutes, key=lambda row: (row["status_tag"], row["status_memo"]))
    runs = [(*said, list(rows)) for said, rows in islands if said[1] is not None]
    assert found == [
        (tag, memo, max(r["peak"] for r in rows), sum(r["samples"] for r in rows)) for tag, memo, rows in runs
    ]
    assert len(found) >= 6
    assert [(row[3], row[4]) for row in reversed(of_gpu)] == [(r[0]["minute"], r[-1]["minute"]) for _, _, r in runs]


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


# --- names -----------------------------------------------------------------------------------------------------------


def test_a_board_that_was_replaced_is_told_from_the_new_one(story: Story) -> None:
    """Both are GPU 0: a line, a tile and an entry of the drop-down for each, called by its UUID."""
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
    assert set(tiles.column("metric")) == names
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
