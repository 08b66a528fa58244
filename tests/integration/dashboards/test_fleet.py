"""Values of the Fleet dashboard, computed a second time in Python."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from statistics import mean
from typing import Any

import pytest

from grafana.fleet import MARK_SILENT
from services.contract.clocks_event import THROTTLING
from tests.integration.dashboards.dataset import (
    A100_HOST,
    DAY,
    EPOCH,
    HOUR,
    MINUTE,
    P40_HOST,
    PLACES,
    Row,
    a100,
    begin_of,
)
from tests.integration.dashboards.story import (
    Story,
    between,
    panel,
)
from tests.support.database import register, value_of

pytestmark = pytest.mark.timescale

FLEET_UID = "gpu-fleet"


@contextmanager
def changed(story: Story, *statements: str) -> Iterator[None]:
    """The database after these, for a while."""
    with story.connection.transaction(force_rollback=True):
        for statement in statements:
            story.connection.execute(statement.encode())
        yield


def stored(story: Story, level: str) -> str:
    """The table in which an aggregate's buckets are."""
    return str(value_of(
        story.connection,
        "SELECT format('%%I.%%I', materialization_hypertable_schema, materialization_hypertable_name) "
        "FROM timescaledb_information.continuous_aggregates WHERE view_name = %s",
        (f"gpu_metrics_{level}",),
    ))  # fmt: skip


def asked(story: Story, title: str, start: dt.datetime, end: dt.datetime) -> list[dict[str, Any]]:
    """What the panel shows of the range, a dict for each row."""
    result = between(story, panel(FLEET_UID, title), start, end)
    return [dict(zip([name for name, _ in result.columns], row, strict=True)) for row in result.rows]


def now(story: Story, title: str) -> dict[str, Any]:
    """The one row of a panel that shows what is now."""
    (row,) = asked(story, title, story.data.end - HOUR, story.data.end)
    return row


def newest(story: Story) -> dict[int, Row]:
    return {row["gpu_id"]: row for row in story.data.rows}


def reporting(story: Story) -> dict[int, Row]:
    """GPU -> newest sample, of those that are not silent. The data set's end is now."""
    return {g: row for g, row in newest(story).items() if row["time"] > story.data.end - 4 * MINUTE}


def cut(story: Story) -> tuple[int, tuple[int, ...]]:
    """The GPU in MIG instances, and these."""
    board = a100(3)
    ids = story.data.gpu_ids
    return ids[board], tuple(n for (uuid, instance), n in ids.items() if uuid == board[0] and instance is not None)


def test_a_peak_in_the_hour_in_which_the_range_begins_is_shown(story: Story) -> None:
    """The fleet opens with two hours, read from hours: what is hottest may lie in the first, which began before."""
    gpu = story.data.gpu_ids[a100(0)]
    hours: dict[dt.datetime, int] = {}
    for row in story.data.rows:
        if row["gpu_id"] == gpu and "gpu_temp" in row and row["time"] >= story.data.end - DAY:
            hour = begin_of(row["time"], HOUR)
            hours[hour] = max(hours.get(hour, 0), row["gpu_temp"])
    first, peak = next((h, t) for h, t in hours.items() if t > max(hours.get(h + n * HOUR, t) for n in (1, 2)))
    start = first + MINUTE
    result = between(story, panel(FLEET_UID, "Hottest GPUs"), start, start + 2 * HOUR)
    assert dict(zip(result.column("gpu_id"), result.column("peak"), strict=True))[gpu] == peak


def test_an_error_in_the_hour_in_which_the_range_begins_is_shown(story: Story) -> None:
    name, gpu = "ecc_dbe_vol_total", story.data.gpu_ids[a100(0)]
    rows = [row for row in story.data.rows if row["gpu_id"] == gpu and name in row]
    at = next(after["time"] for before, after in pairwise(rows) if after[name] > before[name])
    hour = begin_of(at, HOUR)
    result = between(story, panel(FLEET_UID, "Uncorrected memory errors"), hour + MINUTE, hour + 2 * HOUR)
    assert {(time, metric): value for time, metric, value in result.rows}[hour, "ECC uncorrected"] >= 1


def test_a_share_of_hours_is_not_said(story: Story) -> None:
    """Nearly every hour under load has a throttled moment: it would be 100 %. Of time that is counted it is said."""
    for length, minutes in ((15 * MINUTE, True), (6 * HOUR, False), (30 * DAY, False)):
        for row in asked(story, "Most throttled GPUs", story.data.end - length, story.data.end):
            counted = row["by heat"] is not None or row["by power"] is not None
            assert (row["share"] is not None) == (counted or minutes)
            assert row["share"] is None or 0 <= row["share"] <= 100
            assert max(row["by heat"] or 0, row["by power"] or 0) <= row["of"] <= (length + DAY).total_seconds()


def test_recent_xids_are_those_that_were_told(story: Story) -> None:
    result = story.result(panel(FLEET_UID, "Recent XIDs"), 6 * HOUR, "all")
    told = [e for e in story.data.events if e["kind"] == "xid" and e["time"] >= story.data.end - 6 * HOUR]
    found = zip(result.column("time"), result.column("XID"), result.column("do now"), strict=True)
    assert sorted(found) == sorted((e["time"], e["code"], "reset") for e in told)


def test_lost_gpus_are_those_that_are_lost(story: Story) -> None:
    result = story.result(panel(FLEET_UID, "Lost and silent GPUs"), 6 * HOUR, "all")
    assert [tuple(row) for row in zip(result.column("host"), result.column("GPU"), strict=True)] == [
        (A100_HOST, "GPU 2")
    ]


def test_power_by_cluster_is_the_sum_of_the_means(story: Story) -> None:
    """In minutes, where a minute holds six samples of each GPU."""
    result = story.result(panel(FLEET_UID, "Power by cluster"), 15 * MINUTE, "all")
    at = EPOCH + (story.data.end - 5 * MINUTE - EPOCH) // MINUTE * MINUTE
    watts: dict[int, list[float]] = {}
    for row in story.data.rows:
        if row["host"] == A100_HOST and at <= row["time"] < at + MINUTE and "power_usage" in row:
            watts.setdefault(row["gpu_id"], []).append(row["power_usage"])
    of = {(time, name): value for time, name, value in result.rows}
    assert len(watts) == 3
    assert of[at, "east"] == pytest.approx(sum(mean(values) for values in watts.values()), rel=1e-5)


@pytest.mark.parametrize("length", [HOUR, 2 * HOUR, 6 * HOUR], ids=str)
@pytest.mark.parametrize("title", ["Power by cluster", "GPUs reporting"])
def test_up_to_six_hours_the_picture_is_current(story: Story, title: str, length: dt.timedelta) -> None:
    rows = asked(story, title, story.data.end - length, story.data.end)
    told = [row["time"] for row in rows if row["metric"] == "attic" and row["value"] is not None]
    assert story.data.end - told[-1] <= 6 * MINUTE
    assert told[0] - (story.data.end - length) <= 6 * MINUTE
    assert len(told) > 50


# --- silence ---------------------------------------------------------------------------------------------------------


SILENCES = {
    "minutes": ("1min", MINUTE, 40 * MINUTE, HOUR, 5 * MINUTE),
    "every second minute": ("1min", 2 * MINUTE, 80 * MINUTE, 2 * HOUR, 5 * MINUTE),
    "every sixth minute": ("1min", 6 * MINUTE, 4 * HOUR, 6 * HOUR, 12 * MINUTE),
    "hours": ("1hour", HOUR, 20 * HOUR, 30 * HOUR, 2 * HOUR),
    "every third hour": ("1hour", 3 * HOUR, 60 * HOUR, 5 * DAY, 6 * HOUR),
}
"""What is read -> level, from one bucket to the next, how long before the end the silence began, range, gap."""


@pytest.mark.parametrize("title", ["Power by cluster", "GPUs reporting"])
@pytest.mark.parametrize("read", SILENCES)
def test_a_cluster_that_was_silent_is_a_gap(story: Story, title: str, read: str) -> None:
    """Of all its GPUs there are no samples for ten buckets; nobody else's line breaks there."""
    level, width, since, length, gap = SILENCES[read]

    def breaks() -> Counter[tuple[dt.datetime, str]]:
        rows = asked(story, title, story.data.end - length, story.data.end)
        return Counter((row["time"], row["metric"]) for row in rows if row["value"] is None)

    begin = begin_of(story.data.end - since, width)
    before = breaks()
    assert "east" not in {cluster for _, cluster in before}
    silence = f"""DELETE FROM {stored(story, level)} WHERE bucket >= '{begin}' AND bucket < '{begin + 10 * width}'
        AND gpu_id IN (SELECT gpu_id FROM gpus WHERE cluster = 'east')"""
    with changed(story, silence):
        after = breaks()
    holds = (
        MINUTE if gap == 5 * MINUTE else gap / 2
    )  # of minutes the last one's, else a bucket, of which the gap is two
    assert after - before == Counter({(begin - width + holds, "east"): 1})
    assert before - after == Counter()


# --- counters that restarted -----------------------------------------------------------------------------------------


def violations(story: Story, values: list[tuple[int, int, int | None]]) -> tuple[list[str], dt.datetime]:
    """Statements that make the first A100's time held back by heat, hour by hour, (first, last, resets); and when."""
    gpu = story.data.gpu_ids[a100(0)]
    begin = begin_of(story.data.end - 20 * HOUR, HOUR)
    return [
        f"""UPDATE {stored(story, "1hour")} SET first_thermal_violation = {first}, last_thermal_violation = {last},
            resets_thermal_violation = {"NULL" if resets is None else resets}, or_clocks_event_reasons = {THROTTLING}
        WHERE gpu_id = {gpu} AND bucket = '{begin + number * HOUR}'"""
        for number, (first, last, resets) in enumerate(values)
    ], begin


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([(100, 150, None), (160, 170, None), (170, 190, None)], 90),
        ([(100, 150, None), (160, 170, None), (3, 8, None)], None),
        ([(100, 150, None), (160, 8, None), (8, 20, None)], None),
        # 160 -> 172, from zero to 5; from there to 9 between the hours, and on to 30
        ([(100, 150, None), (160, 5, 172), (9, 30, None)], 102),
        # the very first sample of the hour came after the restart: first_ has what was reached before added to it
        ([(100, 150, None), (155, 40, 153), (40, 45, None)], 98),
        ([(100, 100, None), (100, 100, None), (100, 100, None)], 0),
    ],
    ids=["no restart", "unseen", "unseen within an hour", "written", "written at the first sample", "nothing"],
)
def test_time_held_back_over_a_restart(
    story: Story, values: list[tuple[int, int, int | None]], expected: int | None
) -> None:
    """Lower at the end, and nobody saw it start again: unknown, which is neither negative nor zero."""
    statements, begin = violations(story, values)
    with changed(story, *statements):
        rows = asked(story, "Most throttled GPUs", begin + MINUTE, begin + len(values) * HOUR - MINUTE)
    (row,) = (row for row in rows if row["gpu_id"] == story.data.gpu_ids[a100(0)])
    assert row["by heat"] == (None if expected is None else pytest.approx(expected / 1e9))


def test_time_held_back_is_unknown_where_only_the_days_before_have_the_restart(story: Story) -> None:
    """Days, and of today hours: a counter that fell unseen in the days must not look like the growth of today."""
    gpu = story.data.gpu_ids[a100(1)]
    today = story.data.end.replace(hour=0, minute=0, second=0, microsecond=0)
    high = f"""UPDATE {stored(story, "1day")} SET first_thermal_violation = 9e17::bigint,
        last_thermal_violation = 9e17::bigint, resets_thermal_violation = NULL
        WHERE gpu_id = {gpu} AND bucket = '{today - 3 * DAY}'"""
    with changed(story, high):
        rows = asked(story, "Most throttled GPUs", story.data.end - 5 * DAY, story.data.end)
    assert [row["by heat"] for row in rows if row["gpu_id"] == gpu] in ([], [None])


# --- sums ------------------------------------------------------------------------------------------------------------


def test_power_now_is_the_sum_and_says_what_is_not_in_it(story: Story) -> None:
    watts = {g: row["power_usage"] for g, row in reporting(story).items() if "power_usage" in row}
    assert len(watts) == 5
    shown = now(story, "Now")
    assert shown["power"] == pytest.approx(sum(watts.values()), rel=1e-6)
    assert shown["without power"] == 0
    silenced = next(g for g, row in reporting(story).items() if row["host"] == P40_HOST)
    with changed(story, f"UPDATE gpu_metrics SET power_usage = NULL WHERE gpu_id = {silenced} AND {recent(story)}"):
        shown = now(story, "Now")
        models = asked(story, "Clusters and models", story.data.end - HOUR, story.data.end)
    assert shown["power"] == pytest.approx(sum(watts.values()) - watts[silenced], rel=1e-6)
    assert shown["without power"] == 1
    assert {row["cluster"]: row["without power"] for row in models} == {"attic": 1, "east": 0, "none": None}


def recent(story: Story) -> str:
    """Condition on the rows that may be newest samples."""
    return f"time > '{story.data.end - 5 * MINUTE}'"


def test_a_gpu_in_mig_instances_is_counted_once_now(story: Story) -> None:
    """dcgm-exporter repeats the GPU's power with each instance, and may have no series of the GPU itself."""
    board, instances = cut(story)
    assert len(instances) == 2
    before = now(story, "Now")
    of_board = reporting(story)[board]["power_usage"]
    ids = ", ".join(map(str, instances))
    repeated = f"UPDATE gpu_metrics SET power_usage = {of_board - 1} WHERE gpu_id IN ({ids}) AND {recent(story)}"
    alone = f"UPDATE gpu_metrics SET power_usage = NULL WHERE gpu_id = {board} AND {recent(story)}"
    with changed(story, repeated):
        assert now(story, "Now")["power"] == pytest.approx(before["power"], rel=1e-6)
        (east,) = (r for r in asked(story, "Clusters and models", story.data.end - HOUR, story.data.end)
                   if r["cluster"] == "east")  # fmt: skip
        of_east = [r["power_usage"] for r in reporting(story).values() if r["host"] == A100_HOST and "power_usage" in r]
        assert east["power"] == pytest.approx(sum(of_east), rel=1e-6)
    with changed(story, repeated, alone):
        shown = now(story, "Now")
    assert shown["power"] == pytest.approx(before["power"] - 1, rel=1e-6)
    assert shown["without power"] == 0


@pytest.mark.parametrize("level", ["1min", "1hour"])
def test_power_over_time_counts_a_gpu_in_mig_instances_once(story: Story, level: str) -> None:
    board, instances = cut(story)
    length = {"1min": HOUR, "1hour": 30 * HOUR}[level]
    end = begin_of(story.data.end, HOUR)
    before = between(story, panel(FLEET_UID, "Power by cluster"), end - length, end).rows
    repeated = f"""UPDATE {stored(story, level)} i SET sum_power_usage = b.sum_power_usage,
        count_power_usage = b.count_power_usage FROM {stored(story, level)} b
        WHERE b.gpu_id = {board} AND i.bucket = b.bucket AND i.gpu_id IN ({", ".join(map(str, instances))})"""
    with changed(story, repeated):
        after = between(story, panel(FLEET_UID, "Power by cluster"), end - length, end).rows
    assert [row[:2] for row in after] == [row[:2] for row in before]
    assert [row[2] for row in after] == pytest.approx([row[2] for row in before], nan_ok=True)


@pytest.mark.parametrize("level", ["1min", "1hour"])
def test_gpus_reporting_counts_a_gpu_in_mig_instances_once(story: Story, level: str) -> None:
    board, instances = cut(story)
    length = {"1min": HOUR, "1hour": 30 * HOUR}[level]
    start, end = begin_of(story.data.end, HOUR) - length, begin_of(story.data.end, HOUR)

    def told() -> dict[tuple[dt.datetime, str], float]:
        rows = between(story, panel(FLEET_UID, "GPUs reporting"), start, end).rows
        return {(time, cluster): value for time, cluster, value in rows if value is not None and start <= time < end}

    def boards() -> Counter[tuple[dt.datetime, str]]:
        rows = story.connection.execute(
            f"""SELECT DISTINCT m.bucket, coalesce(g.cluster, 'none'), g.gpu_uuid
            FROM gpu_metrics_{level} m JOIN gpus g USING (gpu_id) WHERE bucket >= %s AND bucket < %s""".encode(),
            (start, end),
        )
        return Counter((time, cluster) for time, cluster, _ in rows)

    everything = boards()
    assert told() == everything
    with changed(story, f"DELETE FROM {stored(story, level)} WHERE gpu_id = {board}"):
        assert told() == everything, "its instances report"
    of_board = ", ".join(map(str, (board, *instances)))
    with changed(story, f"DELETE FROM {stored(story, level)} WHERE gpu_id IN ({of_board})"):
        assert told() == boards() != everything


def test_errors_of_a_gpu_in_mig_instances_count_once(story: Story) -> None:
    """Of all GPUs the one that is cut has the errors here, and its instances say the same."""
    board, instances = cut(story)
    table, name = stored(story, "1hour"), "pcie_replay_counter"
    start, end = (begin_of(story.data.end - before, HOUR) for before in (20 * HOUR, 6 * HOUR))
    grow = f"""UPDATE {table} SET first_{name} = n, last_{name} = n FROM generate_series(0, 40) n
        WHERE bucket = '{start - 12 * HOUR}'::timestamptz + n * INTERVAL '1 hour' AND gpu_id """

    def replays() -> dict[dt.datetime, float]:
        rows = asked(story, "Link errors", start, end)
        return {r["time"]: r["value"] for r in rows if r["metric"] == "PCIe replays" and r["value"] is not None}

    others = f"UPDATE {table} SET first_{name} = 0, last_{name} = 0 WHERE gpu_id <> {board}"
    with changed(story, others, f"{grow} = {board}"):
        assert set(replays().values()) == {1.0}
    with changed(story, others, f"{grow} IN {(board, *instances)}"):
        assert set(replays().values()) == {1.0}
    with changed(story, others, f"{grow} IN {instances}", f"UPDATE {table} SET first_{name} = NULL, last_{name} = NULL "
                 f"WHERE gpu_id = {board}"):  # fmt: skip
        assert set(replays().values()) == {1.0}


# --- who is there ----------------------------------------------------------------------------------------------------


def test_a_gpu_that_never_had_a_sample_is_known_and_silent(story: Story) -> None:
    before, heard = now(story, "GPUs"), reporting(story)
    boards = {gpu: uuid for (uuid, _), gpu in story.data.gpu_ids.items()}
    assert (before["GPUs"], before["reporting"]) == (len(set(boards.values())), len({boards[g] for g in heard}))
    assert before["MIG"] == len(cut(story)[1])
    assert before["silent"] + before["lost"] == before["GPUs"] - before["reporting"]
    start, end = story.data.end - HOUR, story.data.end
    with story.connection.transaction(force_rollback=True):
        register(story.connection, end, uuid="GPU-new", hostname="new-00", index=0, model="H100", **PLACES[A100_HOST])
        after = now(story, "GPUs")
        (on_map,) = (row for row in asked(story, "Temperature map", start, end) if row["host"] == "new-00")
        (model,) = (row for row in asked(story, "Clusters and models", start, end) if row["model"] == "H100")
        (late,) = (r for r in asked(story, "Hosts late by over a minute", start, end) if r["host"] == "new-00")
    assert after == before | {k: before[k] + 1 for k in ("GPUs", "hosts", "silent")}
    assert (on_map["GPUs"], on_map["silent"], on_map["hottest"], on_map["0"]) == (1, 1, None, MARK_SILENT)
    assert (model["GPUs"], model["silent"], model["power"], model["without power"]) == (1, 1, None, None)
    assert late["last sample"] is None


def test_what_is_dated_ahead_has_no_age(story: Story) -> None:
    """A clock that is two minutes fast is neither fresh nor late: it is said."""
    shown = now(story, "Freshness")
    assert shown["ahead"] == 0
    assert 0 < shown["median"] <= shown["oldest"] < 300
    gpu = story.data.gpu_ids[a100(0)]
    with changed(story, f"UPDATE gpu_latest SET time = now() + INTERVAL '2 minutes' WHERE gpu_id = {gpu}"):
        one = now(story, "Freshness")
        counted = now(story, "GPUs")
    assert one["ahead"] == 120
    assert one["median"] >= shown["median"]
    assert counted["reporting"] == now(story, "GPUs")["reporting"]
    with changed(story, "UPDATE gpu_latest SET time = now() + INTERVAL '2 minutes'"):
        assert now(story, "Freshness") == {"median": None, "oldest": None, "ahead": 120}


def test_errors_in_the_hour_in_which_a_gpu_was_cut_are_not_hidden(story: Story) -> None:
    """It says zero for the part of the hour in which it was whole; its instances had the errors after."""
    _, instances = cut(story)
    table, name = stored(story, "1hour"), "ecc_dbe_vol_total"
    hour = begin_of(story.data.end - 10 * HOUR, HOUR)
    mute = f"UPDATE {table} SET first_{name} = 0, last_{name} = 0"
    had = f"UPDATE {table} SET last_{name} = 40 WHERE bucket = '{hour}'::timestamptz AND gpu_id = {instances[0]}"
    later = (
        f"UPDATE {table} SET first_{name} = 40, last_{name} = 40 WHERE bucket > '{hour}' AND gpu_id = {instances[0]}"
    )
    with changed(story, mute, had, later):
        rows = asked(story, "Uncorrected memory errors", hour - 2 * HOUR, hour + 3 * HOUR)
    assert {row["time"]: row["value"] for row in rows if row["metric"] == "ECC uncorrected"}[hour] == 40
