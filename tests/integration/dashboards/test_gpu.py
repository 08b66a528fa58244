"""Values of the GPU dashboard, computed a second time in Python."""

from __future__ import annotations

import datetime as dt
import json
from itertools import groupby
from statistics import mean
from typing import Any

import pytest

from grafana import style
from grafana.frame import LOST_ACTION
from services.contract.clocks_event import THROTTLING
from tests.integration.dashboards.dataset import (
    A100_HOST,
    DAY,
    GONE,
    HOUR,
    MINUTE,
    P40_HOST,
    SECOND,
    T4_HOST,
    Dataset,
    Key,
    a100,
    begin_of,
)
from tests.integration.dashboards.story import DASHBOARDS, QUERIES, Story, between, panel
from tests.support.database import insert, register, value_of
from tests.support.grafana_checks import Result
from tests.support.grafana_dashboards import Use

pytestmark = pytest.mark.timescale

CARD_UID = "gpu-detail"
HOST_UID = "gpu-telemetry"


def of(story: Story, key: Key) -> dict[str, str | None]:
    """Variables that choose a GPU."""
    host = next(row["host"] for row in story.data.rows if row["gpu_id"] == story.data.gpu_ids[key])
    return {"host": host, "gpu": str(story.data.gpu_ids[key])}


def on(data: Dataset, host: str) -> Key:
    number = next(row["gpu_id"] for row in data.rows if row["host"] == host)
    return next(key for key, gpu_id in data.gpu_ids.items() if gpu_id == number)


def instance(data: Dataset) -> Key:
    return next(key for key in data.gpu_ids if key[1] is not None)


def card(story: Story, title: str, key: Key, length: dt.timedelta = 6 * HOUR) -> Result:
    return between(story, panel(CARD_UID, title), story.data.end - length, story.data.end, of(story, key))


def state(story: Story, key: Key) -> dict[str, Any]:
    """The one row of the head, without what is nothing."""
    result = card(story, "State", key)
    (row,) = result.rows
    return {name: value for (name, _), value in zip(result.columns, row, strict=True) if value is not None}


def write(story: Story, key: Key | None, kind: str, time: dt.datetime, **more: Any) -> None:
    """An event, as the sink writes it."""
    host = more.get("hostname")
    story.connection.execute(
        "INSERT INTO gpu_events (time, kind, gpu_id, gpu_uuid, instance_id, hostname, source, code, detail) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s::jsonb)",
        (
            time, kind, key and story.data.gpu_ids[key], *(key or (None, None)), host, more.get("source"),
            more.get("code", 0), json.dumps(more.get("detail")),
        ),
    )  # fmt: skip


NOW = dt.timedelta()
"""Before now. Ten seconds before it, on a quick machine, is before the data set ends."""


def sample(story: Story, key: Key, before: dt.timedelta, **values: Any) -> dt.datetime:
    """A newest sample, so long ago: the data set gets older while the tests run."""
    time: dt.datetime = story.connection.execute("SELECT now() - %s::interval", (before,)).fetchone()[0]  # type: ignore[index]  # one row
    insert(story.connection, [{"time": time, "gpu_id": story.data.gpu_ids[key], **values}])
    story.connection.execute("SELECT refresh_gpu_latest()")
    return time


# --- what it is, and whether it reports ------------------------------------------------------------------------------


def test_a_gpu_that_reports(story: Story) -> None:
    values = {"pod": "p", "namespace": "n", "clocks_event_reasons": 0x25, "status_tag": "bench", "status_memo": "m"}
    with story.connection.transaction(force_rollback=True):
        sample(story, a100(1), NOW, **values)
        told = state(story, a100(1))
    assert told["state"] == "reports"
    assert (told["tenant"], told["status"]) == ("n/p", "BENCH: m")
    assert style.throttle_states()[told["throttled"]] == ("heat + power", style.RED)
    assert (told["host"], told["GPU"], told["model"]) == (A100_HOST, "GPU 1", "NVIDIA A100-SXM4-80GB")
    assert not {"since", "why", "MIG", "relative"} & told.keys()


def test_a_gpu_that_nobody_holds_or_said_anything_of(story: Story) -> None:
    with story.connection.transaction(force_rollback=True):
        sample(story, a100(1), NOW)
        told = state(story, a100(1))
    assert (told["tenant"], told["status"]) == ("none", "none")
    assert "throttled" not in told, "unknown is not: not throttled"


def test_a_lost_gpu_says_since_when_and_why(story: Story) -> None:
    events = [e for e in story.data.events if e["key"] == a100(2) and e["kind"] == "gpu_lost"]
    told = state(story, a100(2))
    assert (told["state"], told["since"], told["why"]) == ("lost", events[-1]["time"], "gone")
    assert not {"tenant", "status", "throttled"} & told.keys(), "what was an age ago is not now"


def test_a_sample_or_its_return_ends_that_it_is_lost(story: Story) -> None:
    with story.connection.transaction(force_rollback=True):
        write(story, a100(2), "gpu_returned", story.data.end)
        assert state(story, a100(2))["state"] != "lost"
    with story.connection.transaction(force_rollback=True):
        sample(story, a100(2), NOW)
        assert state(story, a100(2))["state"] == "reports"


def test_a_gpu_whose_exporter_is_down_says_so(story: Story) -> None:
    told = state(story, on(story.data, T4_HOST))
    assert (told["state"], told["since"]) == ("exporter down", story.data.end - GONE)
    assert told["why"] == "connection refused (mock)"


def test_an_exporter_is_found_by_its_address(story: Story) -> None:
    """The collector may know no more of one that does not answer. Another of the host is up."""
    key = on(story.data, T4_HOST)
    for source in (f"{T4_HOST}:9400", f"https://{T4_HOST}:9400/x?a=b", f"http://{T4_HOST}/metrics"):
        with story.connection.transaction(force_rollback=True):
            story.connection.execute("DELETE FROM gpu_events WHERE kind LIKE 'target%'")
            write(story, None, "target_down", story.data.end, source=source, detail={"reason": "refused"})
            write(story, None, "target_down", story.data.end, source="elsewhere:9400", detail={"reason": "no"})
            write(story, None, "target_down", story.data.end - SECOND, source=f"{T4_HOST}:1", detail={"reason": "no"})
            write(story, None, "target_up", story.data.end, source=f"{T4_HOST}:1")
            told = state(story, key)
        assert (told["state"], told["why"]) == ("exporter down", f"refused ({source})")


def test_an_exporter_it_is_not_read_from_may_be_down(story: Story) -> None:
    with story.connection.transaction(force_rollback=True):
        sample(story, on(story.data, T4_HOST), NOW)
        assert state(story, on(story.data, T4_HOST))["state"] == "reports"
    with story.connection.transaction(force_rollback=True):
        last = sample(story, on(story.data, T4_HOST), 5 * MINUTE + SECOND)
        told = state(story, on(story.data, T4_HOST))
        assert (told["state"], told["since"]) == ("silent", last)


def test_a_gpu_that_never_had_a_sample(story: Story) -> None:
    with story.connection.transaction(force_rollback=True):
        number = register(story.connection, story.data.end, uuid="GPU-new", hostname="new")
        choice = {"host": "new", "gpu": str(number)}
        result = between(story, panel(CARD_UID, "State"), story.data.end - HOUR, story.data.end, choice)
    assert result.column("state") == ["never sampled"]


def test_mig(story: Story) -> None:
    """From an instance to its board and back; an instance is lost with its board."""
    key = instance(story.data)
    board = (key[0], None)
    with story.connection.transaction(force_rollback=True):
        sample(story, key, NOW)
        told = state(story, key)
        assert told["MIG"] in ("3g.40gb of GPU 3", "2g.20gb of GPU 3")
        assert told["relative"] == story.data.gpu_ids[board]
        sample(story, board, NOW)
        assert state(story, board)["relative"] == story.data.gpu_ids[key]
        assert state(story, board)["MIG"] in ("1 of 2 report", "2 of 2 report")  # the other's sample gets older
    with story.connection.transaction(force_rollback=True):
        lost = story.data.end + SECOND
        write(story, board, "gpu_lost", lost, detail={"reason": "fell off"})
        told = state(story, key)
        assert (told["state"], told["since"], told["why"]) == ("lost", lost, "fell off")


def tiles(story: Story, key: Key) -> dict[str, float | None]:
    result = card(story, "Now", key)
    return dict(zip(result.column("metric"), result.column("value"), strict=True))


def test_the_newest_sample_in_tiles(story: Story) -> None:
    with story.connection.transaction(force_rollback=True):
        sample(story, a100(1), NOW, gpu_temp=66, power_usage=300.0, gr_engine_active=0.25)
        sample(story, instance(story.data), NOW, gr_engine_active=0.5, gpu_temp=None)
        sample(story, on(story.data, P40_HOST), NOW, gpu_temp=50)
        board, of_instance = tiles(story, a100(1)), tiles(story, instance(story.data))
        plain, silent = tiles(story, on(story.data, P40_HOST)), tiles(story, a100(2))
    assert {"GPU temperature": 66.0, "Power": 300.0, "Graphics engine active": 25.0}.items() <= board.items()
    assert board["SM clock"] is None, "it has one, and no value of it now"
    assert of_instance == {"Graphics engine active": 50.0}
    assert plain["GPU temperature"] == 50.0
    assert not {"Memory temperature", "Graphics engine active"} & plain.keys(), "a P40 has neither"
    assert set(silent.values()) == {None}


def test_the_inventory_is_in_a_sensible_order(story: Story) -> None:
    names = card(story, "Inventory", a100(1)).column("property")
    shown = [n for n in names if n in ("model", "hostname", "rack", "driver_version", "gpu_uuid", "gpu_id")]
    assert shown == ["model", "hostname", "rack", "driver_version", "gpu_uuid", "gpu_id"]
    assert names[0] == "model"


# --- what happened ---------------------------------------------------------------------------------------------------


def listed(story: Story, key: Key, length: dt.timedelta = 6 * HOUR) -> list[tuple[Any, ...]]:
    result = card(story, "Events", key, length)
    return [tuple(row[:3]) for row in result.rows]


def test_events_of_the_gpu_in_words(story: Story) -> None:
    words = {"gpu_lost": ("GPU lost", "gone"), "gpu_returned": ("GPU returned", None)}
    expected = [(e["time"], *words[e["kind"]]) for e in story.data.events if e["key"] == a100(2) and e["kind"] in words]
    found = listed(story, a100(2))
    assert [row for row in found if row[1].startswith("GPU")] == expected[::-1]
    assert (("Counters restarted", "power_violation, total_energy_consumption")) in [row[1:] for row in found]
    xids = [(e["time"], f"XID {e['code']}") for e in story.data.events if e["key"] == a100(0) and e["kind"] == "xid"]
    assert xids
    assert [row[:2] for row in listed(story, a100(0)) if "XID" in row[1]] == xids[::-1]


def test_only_an_xid_has_a_severity_and_no_cell_is_a_word_for_nothing(story: Story) -> None:
    for key in (a100(0), a100(2), on(story.data, P40_HOST), on(story.data, T4_HOST)):
        result = card(story, "Events", key, 2 * DAY)
        for event, severity, todo in zip(*map(result.column, ("event", "severity", "do now")), strict=True):
            assert severity == ("critical" if "XID" in event else None)
            assert todo == {"XID": "reset", "GPU lost": LOST_ACTION}.get("XID" if "XID" in event else event)
    (events,) = [p for p in DASHBOARDS[CARD_UID].panels() if p["title"] == "Events"]
    (blank,) = [
        o for o in events["fieldConfig"]["overrides"] if {"id": "noValue", "value": ""} in o["properties"]
    ]  # fmt: skip
    assert all(name in blank["matcher"]["options"] for name in ("what", "severity", "do now", "process", "memo"))


def test_events_of_the_host_that_concern_no_gpu(story: Story) -> None:
    downs = [e for e in story.data.events if e["kind"].startswith("target")]
    words = {"target_down": ("Exporter down", "connection refused (mock)"),
             "target_up": ("Exporter up", "it answers again (mock)")}  # fmt: skip
    assert listed(story, on(story.data, T4_HOST)) == [(e["time"], *words[e["kind"]]) for e in downs[::-1]]
    told = [row[1] for row in listed(story, on(story.data, P40_HOST)) if row[1].startswith("Status")]
    assert told[:2] == ["Status IDLE", "Status BENCH"]
    assert not [row for row in listed(story, a100(1), 2 * DAY) if row[1].startswith(("Status", "Exporter"))]


def test_a_host_it_was_in_only_while_it_was(story: Story) -> None:
    """Of the host it moved to nothing before, of the one it left nothing after."""
    moved, end = story.data.end - HOUR, story.data.end
    with story.connection.transaction(force_rollback=True):
        number = register(story.connection, end - DAY, uuid="GPU-m", hostname=T4_HOST)
        register(story.connection, moved, uuid="GPU-m", hostname=P40_HOST)
        choice = {"host": P40_HOST, "gpu": str(number)}
        found = between(story, panel(CARD_UID, "Events"), end - 6 * HOUR, end, choice).rows
    hosts = {P40_HOST: lambda time: time >= moved, T4_HOST: lambda time: time < moved}
    expected = [
        e["time"] for e in story.data.events
        if e["key"] is None and hosts[e["hostname"]](e["time"]) and e["time"] >= end - 6 * HOUR
    ]  # fmt: skip
    assert [row[0] for row in found] == sorted(expected, reverse=True)
    assert {row[1].split()[0] for row in found} == {"Status", "Exporter"}


def test_an_instance_has_the_events_of_its_board(story: Story) -> None:
    key = instance(story.data)
    with story.connection.transaction(force_rollback=True):
        write(story, (key[0], None), "xid", story.data.end, code=79, detail={"meaning": "fell off the bus"})
        write(story, key, "xid", story.data.end - SECOND, code=13, detail={"meaning": "its own"})
        assert [row[1:] for row in listed(story, key)] == [("XID 79", "fell off the bus"), ("XID 13", "its own")]
        assert [row[1] for row in listed(story, (key[0], None))] == ["XID 79"]


def test_marks_of_exporters_on_both_dashboards(story: Story) -> None:
    marks = {q.dashboard: q for q in QUERIES if q.use is Use.ANNOTATION and q.title == "Exporters"}
    start, end = story.data.end - 6 * HOUR, story.data.end
    times = [e["time"] for e in story.data.events if e["kind"].startswith("target")]
    for uid in (CARD_UID, HOST_UID):
        found = between(story, marks[uid], start, end, of(story, on(story.data, T4_HOST)))
        assert found.column("time") == times
        assert found.column("text")[0] == "Exporter down: connection refused (mock)"
        elsewhere = between(story, marks[uid], start, end, of(story, on(story.data, P40_HOST)))
        assert elsewhere.rows == []


# --- throttling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "width"), [(6 * HOUR, None), (DAY, MINUTE), (10 * DAY, HOUR)])
@pytest.mark.parametrize("uid", [CARD_UID, HOST_UID])
def test_an_hour_with_a_bit_in_it_is_no_hour_held_back(
    story: Story, uid: str, length: dt.timedelta, width: dt.timedelta | None
) -> None:
    """Rows and minutes have the bits; of hours it is said that they were set at times."""
    key, end = a100(1), story.data.end
    found = between(story, panel(uid, "Throttling"), end - length, end, of(story, key))
    bits: dict[dt.datetime, int] = {}
    for row in story.data.rows:
        if row["gpu_id"] == story.data.gpu_ids[key] and row["time"] >= begin_of(end - length, width or SECOND):
            time = begin_of(row["time"], width) if width else row["time"]
            bits[time] = bits.get(time, 0) | row["clocks_event_reasons"] & THROTTLING
    at_times = style.AT_TIMES if width == HOUR else 0
    expected = {state | at_times if state else 0 for state in bits.values()}
    values = [value for value in found.column("throttling" if uid == CARD_UID else "value") if value is not None]
    assert set(values) == expected
    assert expected - {0}
    assert set(values) <= set(style.throttle_states())


# --- extremes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "width"), [(6 * HOUR, None), (DAY, MINUTE), (10 * DAY, HOUR)])
def test_extremes_are_of_samples_not_of_buckets(story: Story, length: dt.timedelta, width: dt.timedelta | None) -> None:
    key, end = a100(1), story.data.end
    since = begin_of(end - length, width) if width else end - length
    mine = [r for r in story.data.between(since, end) if r["gpu_id"] == story.data.gpu_ids[key]]
    found = {row[0]: row[1:] for row in card(story, "Extremes", key, length).rows}
    for column, divisor, unit in (
        ("gpu_temp", 1, "C"), ("power_usage", 1, "W"), ("gr_engine_active", 0.01, "%"),
        ("nvlink_tx_bytes", 1e6, "MB/s"), ("nvlink_bandwidth_total", 1, "count"),
    ):  # fmt: skip
        values = [r[column] / divisor for r in mine if r.get(column) is not None]
        assert found[column][:3] == pytest.approx((min(values), mean(values), max(values)), rel=1e-6), column
        assert found[column][3] == unit
    assert not {"fan_speed", "pstate", "row_remap_pending", "xid_errors"} & found.keys(), "none, or no measure"


# --- who used it -----------------------------------------------------------------------------------------------------


def test_a_pod_that_came_back_is_a_stay_again(story: Story) -> None:
    gpu = story.data.gpu_ids[a100(3)]
    end = story.data.end + 3 * MINUTE
    with story.connection.transaction(force_rollback=True):
        pods = ("a", "a", "b", None, "a")
        times = [story.data.end + MINUTE + number * 10 * SECOND for number in range(len(pods))]
        insert(
            story.connection,
            [
                {"time": time, "gpu_id": gpu, "pod": pod, "namespace": "n"}
                for time, pod in zip(times, pods, strict=True)
            ],
        )
        choice = {"host": A100_HOST, "gpu": str(gpu)}
        stays = between(story, panel(CARD_UID, "Tenants within the time range"), times[0], end, choice)
        bands = between(story, panel(CARD_UID, "Tenants"), times[0], end, choice)
    assert stays.rows == [
        ("n", "a", None, times[4], times[4], 1),
        ("n", "b", None, times[2], times[2], 1),
        ("n", "a", None, times[0], times[1], 2),
    ]
    assert bands.rows == [(times[0], "a"), (times[2], "b"), (times[3], None), (times[4], "a")]


@pytest.mark.parametrize("title", ["Tenants", "Throttling"])
def test_a_band_ends_with_the_last_sample_before_a_silence(story: Story, title: str) -> None:
    """Not five minutes later: a GPU that was lost would be "not throttled", and its pod be there."""
    gpu = story.data.gpu_ids[a100(3)]
    last, back = story.data.end + MINUTE, story.data.end + 9 * MINUTE
    rows = [{"time": t, "gpu_id": gpu, "pod": "a", "clocks_event_reasons": 0} for t in (last, back)]
    with story.connection.transaction(force_rollback=True):
        insert(story.connection, rows)
        result = between(story, panel(CARD_UID, title), last, back, {"host": A100_HOST, "gpu": str(gpu)})
    said = [(row[0], row[1] is None) for row in result.rows]
    assert said == [(last, False), (last + MINUTE, True), (back, False)]


BANDS = ((CARD_UID, "Throttling"), (CARD_UID, "Tenants"), (HOST_UID, "Throttling"), (HOST_UID, "Status Timeline"))
BY_USAGE = ("Tenants", "Status Timeline")
"""Of them hours know the minute in which what they tell ended."""
LEVELS = {"rows": (HOUR, SECOND), "minutes": (DAY, MINUTE), "hours": (10 * DAY, HOUR), "days": (400 * DAY, DAY)}
"""Length of the range, and of what is read then."""
NEXT = {SECOND: MINUTE, MINUTE: 2 * MINUTE, HOUR: 2 * MINUTE, DAY: 2 * MINUTE}
"""How long after the end of what is known the next sample may be there: a scrape a minute, and its way."""


def written(story: Story, samples: dict[dt.datetime, str]) -> dict[str, str | None]:
    """A GPU with nothing but samples of these pods; variables that choose it."""
    gpu = register(story.connection, min(samples), uuid="GPU-band", hostname="bands", index=0)
    values = {"clocks_event_reasons": 0, "gpu_id": gpu}
    insert(story.connection, [{"time": t, "pod": pod, "status_tag": pod, **values} for t, pod in samples.items()])
    story.connection.execute("SELECT refresh_gpu_latest()")
    return {"host": "bands", "gpu": str(gpu)}


def drawn(
    story: Story, where: tuple[str, str], choice: dict[str, str | None], to: tuple[dt.datetime, dt.timedelta]
) -> list[tuple[dt.datetime, Any]]:
    """(time, state) in a range of which end and length are given, changes only; without what is before the range."""
    end, length = to
    rows = [(row[0], row[-1]) for row in between(story, panel(*where), end - length, end, choice).rows]
    return [next(same) for _, same in groupby(rows, key=lambda row: row[1])]


def not_stored(story: Story) -> dt.datetime:
    """Begin of a day of which no aggregate has anything."""
    return begin_of(story.data.end, DAY) + DAY


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("where", BANDS, ids=" ".join)
def test_a_band_ends_at_the_right_edge_as_soon_as_the_next_sample_is_late(
    story: Story, where: tuple[str, str], level: str
) -> None:
    """Not five minutes later, when a minute after the last sample was its end all the time."""
    length, width = LEVELS[level]
    width = MINUTE if level == "hours" and where[1] in BY_USAGE else width
    start = not_stored(story)
    last = start + HOUR - SECOND
    known = begin_of(last, width) + max(width, MINUTE)
    with story.connection.transaction(force_rollback=True):
        choice = written(story, {start + 58 * MINUTE: "a", last: "a"})
        for over, ends in ((dt.timedelta(), []), (SECOND, [known])):
            found = drawn(story, where, choice, (known + NEXT[width] + over, length))
            assert [time for time, state in found if state is None] == ends
            assert found[0][1] is not None


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("where", BANDS, ids=" ".join)
def test_the_band_of_a_gpu_that_reports_once_a_minute_reaches_the_right_edge(
    story: Story, where: tuple[str, str], level: str
) -> None:
    """COLLECTION_INTERVAL=60, five seconds on the way: the oldest newest sample there is, in each second of a minute
    that differs: first and last."""
    for second in (dt.timedelta(), 59 * SECOND):
        start = not_stored(story) + second
        samples = {start + number * MINUTE: "a" for number in range(20)}
        end = max(samples) + MINUTE + 5 * SECOND
        with story.connection.transaction(force_rollback=True):
            found = drawn(story, where, written(story, samples), (end, LEVELS[level][0]))
        assert [state is None for _, state in found] == [False]


@pytest.mark.parametrize("level", ["rows", "minutes"])
@pytest.mark.parametrize("where", BANDS, ids=" ".join)
def test_within_the_range_a_silence_is_one_after_five_minutes(story: Story, where: tuple[str, str], level: str) -> None:
    start = not_stored(story)
    times = [start, start + 4 * MINUTE, start + 10 * MINUTE]
    with story.connection.transaction(force_rollback=True):
        found = drawn(story, where, written(story, dict.fromkeys(times, "a")), (times[-1], LEVELS[level][0]))
    assert [time for time, state in found if state is None] == [times[1] + MINUTE]


@pytest.mark.parametrize("title", ["Throttling", "Tenants"])
def test_a_gap_is_not_in_the_legend_of_states(title: str) -> None:
    """Grafana lists what NULL reads there, in a colour that nothing has."""
    (found,) = [p for p in DASHBOARDS[CARD_UID].panels() if p["title"] == title]
    hidden = {"matcher": {"id": "byRegexp", "options": "/.*/"}, "properties": [{"id": "noValue", "value": None}]}
    assert hidden in found["fieldConfig"]["overrides"]


@pytest.mark.parametrize("before", [10, 100, 130])
@pytest.mark.parametrize("where", BANDS, ids=" ".join)
def test_in_a_range_that_goes_on_what_is_so_now_is_drawn_until_now(
    story: Story, where: tuple[str, str], before: int
) -> None:
    """ "Today", in the morning: not until midnight."""
    with story.connection.transaction(force_rollback=True):
        now = value_of(story.connection, "SELECT now()")
        last = now - before * SECOND
        found = drawn(story, where, written(story, {last: "a"}), (now + 2 * HOUR, 3 * HOUR))
    end = last + MINUTE if before > 120 else max(now, last + MINUTE)
    assert [time for time, state in found if state is None] == [end]


@pytest.mark.parametrize("where", [where for where in BANDS if where[1] in BY_USAGE], ids=" ".join)
def test_what_lies_within_another_row_of_its_hour_does_not_hide_its_end(story: Story, where: tuple[str, str]) -> None:
    """Read from hours: "a" is one row around "b", and ended with the last sample."""
    start = not_stored(story)
    with story.connection.transaction(force_rollback=True):
        choice = written(story, {start + n * MINUTE: "b" if 10 <= n < 15 else "a" for n in range(40)})
        found = drawn(story, where, choice, (start + 3 * HOUR, 10 * DAY))
    minutes = [(0, "a"), (10, "b"), (15, "a"), (40, None)]
    assert found == [(start + n * MINUTE, state) for n, state in minutes]


def test_of_a_band_only_changes_are_sent(story: Story) -> None:
    """Six hours of one pod are thousands of rows, and one state."""
    gpu = story.data.gpu_ids[a100(1)]
    choice = {"host": A100_HOST, "gpu": str(gpu)}
    result = between(story, panel(CARD_UID, "Tenants"), story.data.end - 6 * HOUR, story.data.end, choice)
    pods = result.column("pod")
    assert len(pods) == 1
    assert pods != [None]


def test_a_band_without_any_state_still_has_a_row(story: Story) -> None:
    """An answer without rows is an error to Grafana."""
    gpu = next(row["gpu_id"] for row in story.data.rows if row["host"] == P40_HOST)
    choice = {"host": P40_HOST, "gpu": str(gpu)}
    result = between(story, panel(CARD_UID, "Tenants"), story.data.end - 6 * HOUR, story.data.end, choice)
    assert result.column("pod") == [None]
