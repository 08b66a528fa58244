"""Values of the Host dashboard, computed a second time in Python."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from statistics import mean
from typing import Final

import pytest

from tests.integration.dashboards.dataset import (
    A100_HOST,
    HOUR,
    MINUTE,
    P40_HOST,
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
    panel,
    shown,
)
from tests.support.database import register

pytestmark = pytest.mark.timescale

HOST_UID = "gpu-telemetry"
BUCKETS: Final = {"15 min": None, "6 h": None, "2 days": MINUTE, "30 days": HOUR}
"""Of a host, by range: rows, minutes, hours."""
Bucket = list[Row]
"""The rows of a GPU in a bucket, in order."""


def buckets(data: Dataset, length: dt.timedelta, width: dt.timedelta | None, host: str) -> list[Bucket]:
    """What a panel over the last `length` is computed from: buckets that reach into it, whole."""
    start = data.end - length if width is None else begin_of(data.end - length, width)
    found: dict[tuple[int, dt.datetime], Bucket] = {}
    for row in data.rows:
        begin = row["time"] if width is None else begin_of(row["time"], width)
        if row["host"] == host and start <= begin <= data.end:
            found.setdefault((row["gpu_id"], begin), []).append(row)
    return list(found.values())


def temps(rows: list[Row]) -> list[int]:
    return [row["gpu_temp"] for row in rows if row.get("gpu_temp") is not None]


def by_tag(found: list[Bucket]) -> dict[str, list[Row]]:
    """A bucket belongs to the tag of its last row."""
    tags: dict[str, list[Row]] = {}
    for rows in found:
        tags.setdefault(rows[-1].get("status_tag") or "untagged", []).extend(rows)
    return tags


@pytest.mark.parametrize("host", [P40_HOST, A100_HOST, T4_HOST])
@pytest.mark.parametrize("name", RANGES)
def test_temperatures_and_samples_of_a_host(story: Story, name: str, host: str) -> None:
    length = RANGES[name]
    found = buckets(story.data, length, BUCKETS[name], host)
    rows = [row for bucket in found for row in bucket]
    assert shown(story, HOST_UID, "Max Temp", length, host) == [[max(temps(rows))]]
    assert shown(story, HOST_UID, "Avg Temp", length, host) == [[pytest.approx(mean(temps(rows)))]]
    assert shown(story, HOST_UID, "Total Samples", length, host) == [[len(rows)]]
    tags = by_tag(found)
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


@pytest.mark.parametrize("name", ["6 h", "2 days"])
def test_energy_is_what_the_counter_grew(story: Story, name: str) -> None:
    """kWh by GPU, over a restart of the counter; not of the GPU that was lost, whose growth meanwhile nobody knows."""
    start, end = begin_of(story.data.end - RANGES[name], MINUTE), story.data.end
    values = {row[-2]: row[-1] for row in shown(story, HOST_UID, "Energy", RANGES[name], A100_HOST)}
    for index in (0, 1, 3):
        gpu = story.data.gpu_ids[a100(index)]
        rows = [row for row in story.data.rows if row["gpu_id"] == gpu and minute(row) <= end]
        assert values[f"GPU {index}"] == pytest.approx(grown(rows, start) / 3.6e9, rel=1e-9)


def minute(row: Row) -> dt.datetime:
    time: dt.datetime = row["time"]
    return begin_of(time, MINUTE)


def grown(rows: list[Row], start: dt.datetime) -> int:
    """mJ in the minutes that begin at `start` or later. A restart begins at zero; what grew over more than ten minutes
    without a row is not counted (docs/schema.md)."""
    name = "total_energy_consumption"
    return sum(
        after[name] - (0 if name in after.get("counter_resets", {}) else before[name])
        for before, after in pairwise(rows)
        if minute(after) >= start and minute(after) - minute(before) <= 10 * MINUTE
    )


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
