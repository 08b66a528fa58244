"""What Host and GPU detail say is so now: who is there, whether it reports and if not why, and no value that is not."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest

from grafana import style
from grafana.frame import LOST_ACTION
from grafana.presence import DOWN, LOST, presence
from tests.integration.dashboards.dataset import A100_HOST, DAY, HOUR, MINUTE, P40_HOST, SECOND, T4_HOST, Key, a100
from tests.integration.dashboards.story import DASHBOARDS, QUERIES, Story, between, panel
from tests.integration.dashboards.test_fleet import changed, cut
from tests.integration.dashboards.test_gpu import CARD_UID, HOST_UID, state, tiles, write
from tests.support.database import insert, register, value_of
from tests.support.grafana_dashboards import Use

pytestmark = pytest.mark.timescale


def asked(story: Story, title: str, host: str, length: dt.timedelta = HOUR) -> list[dict[str, Any]]:
    """What the panel of Host shows, a dict for each row."""
    result = between(story, panel(HOST_UID, title), story.data.end - length, story.data.end, {"host": host})
    return [dict(zip([name for name, _ in result.columns], row, strict=True)) for row in result.rows]


def temperatures(story: Story, host: str) -> dict[str, float | None]:
    return {row["metric"]: row["value"] for row in asked(story, "Current Temperature", host)}


def listed(story: Story, host: str) -> dict[str, dict[str, Any]]:
    return {row["GPU"]: row for row in asked(story, "GPUs of this host", host)}


def said(story: Story, host: str = P40_HOST) -> str | None:
    (row,) = asked(story, "Current Status", host)
    status: str | None = row["status"]
    return status


def p40s(story: Story) -> list[Key]:
    gpus = {row["gpu_id"] for row in story.data.rows if row["host"] == P40_HOST}
    return [key for key, number in story.data.gpu_ids.items() if number in gpus]


def heard(story: Story, keys: list[Key], before: dt.timedelta, **values: Any) -> dt.datetime:
    """Their newest samples are so old, whatever the data set has. Gives the database's now."""
    moment: dt.datetime = value_of(story.connection, "SELECT now()")
    gpus = [story.data.gpu_ids[key] for key in keys]
    insert(story.connection, [{"time": moment - before, "gpu_id": gpu, **values} for gpu in gpus])
    story.connection.execute(
        "UPDATE gpu_latest SET time = %s WHERE gpu_id = ANY (%s)",  # also where the data set ended later
        (moment - before, gpus),
    )
    return moment


def exporter_down(
    story: Story, time: dt.datetime, source: str = f"{P40_HOST}:9400", host: str | None = P40_HOST
) -> None:
    write(story, None, "target_down", time, source=source, hostname=host, detail={"reason": "refused"})


# --- who is there ----------------------------------------------------------------------------------------------------


def test_a_board_that_was_replaced_is_in_the_hosts_graphs_only(story: Story) -> None:
    """Both are GPU 1 of four. The range has samples of the one that is gone."""
    old, end = story.data.gpu_ids[a100(1)], story.data.end
    before = asked(story, "GPU", A100_HOST)
    with changed(story, f"UPDATE gpu_latest SET time = now() - INTERVAL '1 hour' WHERE gpu_id = {old}"):
        new = register(story.connection, end - 5 * MINUTE, uuid="GPU-new", hostname=A100_HOST, index=1,
                       model="NVIDIA A100-SXM4-80GB")  # fmt: skip
        story.connection.execute("INSERT INTO gpu_latest VALUES (%s, now())", (new,))
        found, tile, after = listed(story, A100_HOST), temperatures(story, A100_HOST), asked(story, "GPU", A100_HOST)
        drawn = {row["metric"] for row in asked(story, "GPU Temperature", A100_HOST, 3 * HOUR)}
        gone = state(story, a100(1))
    assert after == before
    assert found["GPU 1"]["UUID"] == "GPU-new"
    assert old not in {row["gpu_id"] for row in found.values()}
    assert found.keys() == tile.keys() == {"GPU 0", "GPU 1", "GPU 2", "GPU 3", *(f"GPU 3 MIG {n}" for n in mig(story))}
    assert f"GPU 1 ({a100(1)[0][:12]})" in drawn
    assert gone["state"] == "gone"
    assert not {"since", "why", "throttled"} & gone.keys()


def mig(story: Story) -> list[int]:
    return [instance for _, instance in story.data.gpu_ids if instance is not None]


def test_an_instance_that_a_new_partition_took_away_is_not_listed(story: Story) -> None:
    board, instances = cut(story)
    before = asked(story, "GPU", A100_HOST)
    with changed(story, f"UPDATE gpu_latest SET time = now() WHERE gpu_id IN {(board, *instances)}"):
        gone = register(story.connection, story.data.end - DAY, uuid=a100(3)[0], instance_id=99, hostname=A100_HOST,
                        index=3, model="A100")  # fmt: skip
        story.connection.execute("INSERT INTO gpu_latest VALUES (%s, now() - INTERVAL '1 hour')", (gone,))
        assert asked(story, "GPU", A100_HOST) == before
        assert "GPU 3 MIG 99" not in listed(story, A100_HOST).keys() | temperatures(story, A100_HOST).keys()
        told = state(story, a100(3))
        assert (told["MIG"], told["relative"]) == ("2 of 2 report", min(instances))


def test_one_that_never_had_a_sample_is_listed_without_values(story: Story) -> None:
    with story.connection.transaction(force_rollback=True):
        register(story.connection, story.data.end, uuid="GPU-never", hostname="quiet", index=0, model="P40")
        (row,) = listed(story, "quiet").values()
        assert (row["state"], row["temperature"], row["age"]) == ("never sampled", None, None)
        assert temperatures(story, "quiet") == {"GPU 0": None}
        assert said(story, "quiet") is None
        assert asked(story, "GPU", "quiet") == [{"gpu": "P40"}]


# --- whether it reports ----------------------------------------------------------------------------------------------


def test_the_hosts_table_has_the_words_of_gpu_detail(story: Story) -> None:
    assert listed(story, A100_HOST)["GPU 2"]["state"] == state(story, a100(2))["state"] == "lost"
    assert listed(story, T4_HOST)["GPU 0"]["state"] == "exporter down"
    assert said(story, T4_HOST) == "exporter down"
    with story.connection.transaction(force_rollback=True):
        heard(story, p40s(story)[:1], 10 * SECOND, gpu_temp=40)
        heard(story, p40s(story)[1:], 10 * MINUTE, gpu_temp=41, pod="p")
        found = listed(story, P40_HOST)
    assert [(row["state"], row["temperature"]) for row in found.values()] == [("reports", 40), ("silent", None)]
    assert found["GPU 1"]["age"] == 600
    assert found["GPU 1"]["pod"] is None, "who held it ten minutes ago is not who holds it now"


def test_the_status_says_what_is_lost_and_what_is_down(story: Story) -> None:
    first, second = p40s(story)
    with story.connection.transaction(force_rollback=True):
        moment = heard(story, [first, second], 90 * SECOND, status_tag="bench")
        assert said(story) == "BENCH"
        write(story, first, "gpu_lost", moment - 80 * SECOND)
        assert said(story) == "BENCH, lost: 1 of 2"
        exporter_down(story, moment - 70 * SECOND)
        assert said(story) == "lost: 1 of 2, exporter down: 1 of 2"
        write(story, second, "gpu_lost", moment - 60 * SECOND)
        assert said(story) == "lost"
    with story.connection.transaction(force_rollback=True):
        heard(story, [first, second], 10 * MINUTE, status_tag="bench")
        assert said(story) is None, "nobody said why: unknown"


def test_what_the_status_says_of_trouble_is_red_and_as_it_is() -> None:
    (tile,) = (p for p in DASHBOARDS[HOST_UID].panels() if p["title"] == "Current Status")
    mappings = tile["fieldConfig"]["defaults"]["mappings"]
    (regex,) = (mapping["options"] for mapping in mappings if mapping["type"] == "regex")
    assert (regex["result"]["text"], regex["result"]["color"]) == ("$1", style.RED)
    for text in ("exporter down", "BENCH, lost: 1 of 2"):
        assert re.sub(regex["pattern"], r"\1", text) == text
        assert re.match(regex["pattern"], text)
    assert not re.match(regex["pattern"], "BENCH, IDLE")


# --- no value that is not of now -------------------------------------------------------------------------------------

VALUES = {"gpu_temp": 61, "power_usage": 150.0, "status_tag": "idle"}


def values(story: Story, key: Key) -> tuple[str, bool]:
    """State of a P40, and whether the tiles of both dashboards have values of it; the same in all."""
    number = story.data.gpu_ids[key]
    (row,) = (row for row in listed(story, P40_HOST).values() if row["gpu_id"] == number)
    told = state(story, key)["state"]
    tile = temperatures(story, P40_HOST)[row["GPU"]]
    shown = {tile, row["temperature"], tiles(story, key)["GPU temperature"]}
    assert row["state"] == told
    assert len(shown) == 1
    return told, shown == {61}


@pytest.mark.parametrize(
    ("silence", "told", "expected"),
    [
        (50 * SECOND, None, ("reports", True)),
        (50 * SECOND, "exporter", ("reports", True)),  # another may read it: a minute is waited
        (70 * SECOND, "exporter", ("exporter down", False)),
        (70 * SECOND, "exporter, before", ("reports", True)),  # of two exporters one is down for good
        (70 * SECOND, None, ("reports", True)),
        (5 * SECOND, "lost", ("lost", False)),
        (70 * SECOND, "lost", ("lost", False)),
        (70 * SECOND, "lost, before", ("reports", True)),
        (301 * SECOND, None, ("silent", False)),
    ],
)
def test_tiles_have_values_of_what_reports_only(
    story: Story, silence: dt.timedelta, told: str | None, expected: tuple[str, bool]
) -> None:
    first, second = p40s(story)
    with story.connection.transaction(force_rollback=True):
        moment = heard(story, [first], silence, **VALUES)
        heard(story, [second], 5 * SECOND, **VALUES)
        after = moment - silence + (-SECOND if told and "before" in told else SECOND)
        if told and "lost" in told:
            write(story, first, "gpu_lost", after, detail={"reason": "fell off"})
        elif told:
            exporter_down(story, after)
        assert values(story, first) == expected
        assert values(story, second) == ("reports", True)
        assert said(story) is not None
        assert "IDLE" in str(said(story))


@pytest.mark.parametrize("source", [f"{P40_HOST}:9400", f"https://{P40_HOST}.lab.example:9400/metrics"])
def test_an_exporter_that_was_never_read_is_found_by_its_address(story: Story, source: str) -> None:
    first, second = p40s(story)
    with story.connection.transaction(force_rollback=True):
        moment = heard(story, [first, second], 2 * MINUTE, **VALUES)
        exporter_down(story, moment - MINUTE, source, host=None)
        assert values(story, first) == values(story, second) == ("exporter down", False)
        assert state(story, first)["why"] == f"refused ({source})"
        assert said(story) == "exporter down"
        write(story, None, "target_up", moment - SECOND, source=source)
        assert values(story, first) == ("reports", True)


def test_a_board_is_lost_with_its_instances_until_one_has_a_sample(story: Story) -> None:
    board, _ = cut(story)
    keys = [key for key in story.data.gpu_ids if key[0] == a100(3)[0]]
    assert story.data.gpu_ids[keys[0]] == board
    with story.connection.transaction(force_rollback=True):
        moment = heard(story, keys, 10 * SECOND, gpu_temp=61)
        write(story, keys[0], "gpu_lost", moment - 5 * SECOND)
        names = ["GPU 3", *(f"GPU 3 MIG {n}" for n in mig(story))]
        found = listed(story, A100_HOST)
        assert {name: found[name]["state"] for name in names} == dict.fromkeys(names, "lost")
        assert said(story, A100_HOST) is not None
        heard(story, keys[1:2], SECOND, gpu_temp=61)
        assert {listed(story, A100_HOST)[name]["state"] for name in names} == {"reports"}


# --- what to do ------------------------------------------------------------------------------------------------------


def test_a_lost_gpu_has_the_action_of_the_fleet_beside_it_and_in_the_marks(story: Story) -> None:
    key, end = a100(2), story.data.end
    choice = {"host": A100_HOST, "gpu": str(story.data.gpu_ids[key])}
    events = between(story, panel(CARD_UID, "Events"), end - HOUR, end, choice)
    told = dict(zip(events.column("event"), events.column("do now"), strict=True))
    assert (told["GPU lost"], told["GPU returned"]) == (LOST_ACTION, None)
    marks = [q for q in QUERIES if q.use is Use.ANNOTATION and q.title == "GPUs lost"]
    texts = [(q.dashboard, set(between(story, q, end - HOUR, end, choice).column("text"))) for q in marks]
    text = {f"GPU lost: gone: {LOST_ACTION}"}
    assert sorted(texts) == [(CARD_UID, text), (HOST_UID, text)]


def test_a_board_of_which_an_instance_reports_is_not_down(story: Story) -> None:
    """Each instance may be read by another exporter."""
    board, instances = cut(story)
    with story.connection.transaction(force_rollback=True):
        for gpu in (board, *instances):
            story.connection.execute(
                "UPDATE gpu_latest SET time = now() - INTERVAL '90 seconds' WHERE gpu_id = %s", (gpu,)
            )
        exporter_down(story, value_of(story.connection, "SELECT now()") - 80 * SECOND, host=A100_HOST, source="one")
        before = said(story, A100_HOST)
        story.connection.execute("UPDATE gpu_latest SET time = now() WHERE gpu_id = %s", (instances[0],))
        after = said(story, A100_HOST)
    assert before is not None
    assert "exporter down: 1 of 4" in before
    assert after is not None
    assert "exporter down" not in after


@pytest.mark.parametrize("source", [f"{P40_HOST}:9400", f"https://{P40_HOST}.lab.example:9400/metrics"])
def test_an_exporter_that_was_never_read_is_among_the_events_of_its_host(story: Story, source: str) -> None:
    """As State says of it that it is down."""
    with story.connection.transaction(force_rollback=True):
        exporter_down(story, story.data.end - 2 * MINUTE, source=source, host=None)
        card = {"host": P40_HOST, "gpu": str(story.data.gpu_ids[p40s(story)[0]])}
        marks = [
            between(story, use, story.data.end - HOUR, story.data.end, card).rows
            for use in QUERIES
            if use.dashboard in (HOST_UID, CARD_UID) and use.title == "Exporters"
        ]
        events = between(story, panel(CARD_UID, "Events"), story.data.end - HOUR, story.data.end, card).rows
    assert len(marks) == 2
    assert all(any(source in str(row) for row in rows) for rows in marks)
    assert any(source in str(row) for row in events)


def test_what_was_told_last_is_found_by_its_index(story: Story) -> None:
    """Events are kept for good. Rows are few here, so that the server would read them all: that is forbidden."""
    for ctes, relation, index in (
        (LOST, "lost", "gpu_events_lost"),
        (DOWN, "down", "gpu_events_target"),
        (presence("g.gpu_id = 1"), "presence", "gpu_events_lost"),
        (presence("g.gpu_id = 1"), "presence", "gpu_events_target"),
    ):
        with story.connection.transaction(force_rollback=True):
            story.connection.execute("SET LOCAL enable_seqscan = off")
            story.connection.execute("SET LOCAL enable_bitmapscan = off")
            plan = story.connection.execute(f"EXPLAIN WITH {ctes} SELECT * FROM {relation}".encode()).fetchall()
        assert index in str(plan)
