"""Values of the Fleet dashboard, computed a second time in Python."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from statistics import mean

import pytest

from tests.integration.dashboards.dataset import (
    A100_HOST,
    DAY,
    EPOCH,
    HOUR,
    MINUTE,
    a100,
    begin_of,
)
from tests.integration.dashboards.story import (
    Story,
    between,
    panel,
)

pytestmark = pytest.mark.timescale

FLEET_UID = "gpu-fleet"


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
    assert dict(zip(result.column("gpu_id"), result.column("peak temperature"), strict=True))[gpu] == peak


def test_an_error_in_the_hour_in_which_the_range_begins_is_shown(story: Story) -> None:
    name, gpu = "ecc_dbe_vol_total", story.data.gpu_ids[a100(0)]
    rows = [row for row in story.data.rows if row["gpu_id"] == gpu and name in row]
    at = next(after["time"] for before, after in pairwise(rows) if after[name] > before[name])
    hour = begin_of(at, HOUR)
    result = between(story, panel(FLEET_UID, "Memory errors"), hour + MINUTE, hour + 2 * HOUR)
    assert dict(zip(result.column("time"), result.column(name), strict=True))[hour] >= 1


def test_a_share_of_hours_is_not_said(story: Story) -> None:
    """Nearly every hour under load has a throttled moment: it would be 100 %."""
    for length, said in ((15 * MINUTE, True), (6 * HOUR, False), (30 * DAY, False)):
        result = story.result(panel(FLEET_UID, "Most throttled GPUs"), length, "all")
        assert any(share is not None for share in result.column("minutes with throttling")) == said


def test_recent_xids_are_those_that_were_told(story: Story) -> None:
    result = story.result(panel(FLEET_UID, "Recent XIDs"), 6 * HOUR, "all")
    told = [e for e in story.data.events if e["kind"] == "xid" and e["time"] >= story.data.end - 6 * HOUR]
    found = zip(result.column("time"), result.column("XID"), result.column("do now"), strict=True)
    assert sorted(found) == sorted((e["time"], e["code"], "reset") for e in told)


def test_lost_gpus_are_those_that_are_lost(story: Story) -> None:
    result = story.result(panel(FLEET_UID, "Lost GPUs"), 6 * HOUR, "all")
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
