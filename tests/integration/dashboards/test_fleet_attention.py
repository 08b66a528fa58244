"""Fleet: who needs attention, who is silent and who only gone, and whose counters of errors grew."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from grafana.fleet import MARK_LOST, MARK_SILENT
from grafana.fleet_errors import ERROR_COUNTERS, NAMES
from services.contract.clocks_event import THERMAL
from tests.integration.dashboards.dataset import (
    A100_HOST,
    DAY,
    GONE,
    HOUR,
    MINUTE,
    P40_HOST,
    SECOND,
    T4_HOST,
    a100,
    begin_of,
)
from tests.integration.dashboards.story import Story, between, panel
from tests.integration.dashboards.test_fleet import (
    FLEET_UID,
    asked,
    changed,
    cut,
    newest,
    now,
    recent,
    reporting,
    stored,
)
from tests.support.database import register

pytestmark = pytest.mark.timescale

Listed = dict[tuple[str, str], dict[str, Any]]


def listed(story: Story, title: str = "Need attention") -> Listed:
    """(host, GPU) -> row. Each has one."""
    rows = asked(story, title, story.data.end - HOUR, story.data.end)
    found = {(row["host"], row["GPU"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def silence(story: Story, *gpus: int, minutes: int = 10) -> str:
    ids = ", ".join(map(str, gpus))
    return f"UPDATE gpu_latest SET time = now() - INTERVAL '{minutes} minutes' WHERE gpu_id IN ({ids})"


def p40(story: Story) -> int:
    """GPU 0 of the P40s' host."""
    return next(g for g, row in sorted(reporting(story).items()) if row["host"] == P40_HOST)


# --- need attention --------------------------------------------------------------------------------------------------


def test_what_the_data_set_has_needs_attention(story: Story) -> None:
    found = listed(story)
    lost, down = found[A100_HOST, "GPU 2"], found[T4_HOST, "GPU 0"]
    (told,) = (e for e in story.data.events if e["kind"] == "gpu_lost" and e["time"] > story.data.end - 10 * MINUTE)
    assert (lost["severity"], lost["reason"], lost["since"]) == ("critical", "lost: gone", told["time"])
    assert lost["gpu_id"] == story.data.gpu_ids[a100(2)]
    assert down["reason"] == "exporter down: connection refused (mock)"
    assert (down["severity"], down["since"]) == ("critical", story.data.end - GONE)
    xid = found[P40_HOST, "GPU 1"]
    assert "XID 79: XID 79" in xid["reason"]
    assert "reset" in xid["do now"]


def test_heat_and_uncorrectable_errors_are_those_of_the_newest_samples(story: Story) -> None:
    found = listed(story)
    names: dict[tuple[str, str], list[Any]] = {}
    for gpu, row in reporting(story).items():
        key = next(key for key, number in story.data.gpu_ids.items() if number == gpu)
        index = [k for k in story.data.gpu_ids if k[1] is None and row["host"] == newest_host(story, k)].index(
            (key[0], None)
        )
        names.setdefault((row["host"], f"GPU {index}"), []).append(row)
    for who, rows in names.items():
        reason = found.get(who, {}).get("reason", "")
        assert ("heat" in reason) == any(r.get("clocks_event_reasons", 0) & THERMAL for r in rows), who
        assert ("uncorrectable ECC" in reason) == any(r.get("ecc_dbe_vol_total", 0) for r in rows), who


def newest_host(story: Story, key: tuple[str, int | None]) -> str:
    return str(newest(story)[story.data.gpu_ids[key]]["host"])


FACTS = {
    "row_remap_failure = 1": ("critical", "row remapping failed"),
    "row_remap_pending = 1": ("warning", "row remap pending"),
    "retired_pending = 3": ("warning", "pages pending retirement"),
    "ecc_dbe_vol_total = 7": ("critical", "uncorrectable ECC errors since the last reset: 7"),
    "gpu_temp = 150": ("critical", "150 C, and it slows down at"),
    "clocks_event_reasons = 32": ("warning", "slowed down by heat (sw_thermal)"),
}
CALM = """row_remap_failure = 0, row_remap_pending = 0, retired_pending = 0, ecc_dbe_vol_total = 0, gpu_temp = 40,
    clocks_event_reasons = 0"""


@pytest.mark.parametrize("fact", FACTS)
def test_what_the_newest_sample_says_is_listed_with_what_to_do(story: Story, fact: str) -> None:
    """Also of a GPU in MIG instances, each of which repeats it: once."""
    severity, reason = FACTS[fact]
    board, instances = cut(story)
    gpus = (p40(story), board, *instances)
    ids = ", ".join(map(str, gpus))
    limits = "UPDATE gpus SET properties = coalesce(properties, '{}') || '{\"slowdown_temp\": 93}'"
    calm, set_fact = (
        f"UPDATE gpu_metrics SET {values} WHERE gpu_id IN ({ids}) AND {recent(story)}" for values in (CALM, fact)
    )
    with changed(story, "DELETE FROM gpu_events WHERE kind = 'xid'", limits, calm):
        before = listed(story)
    with changed(story, "DELETE FROM gpu_events WHERE kind = 'xid'", limits, calm, set_fact):
        after = listed(story)
    new = {(P40_HOST, "GPU 0"), (A100_HOST, "GPU 3")}
    assert after.keys() - before.keys() == new
    for who in new:
        assert after[who]["severity"] == severity
        assert after[who]["reason"].startswith(reason)
        assert after[who]["do now"]
    order = [row["severity"] for row in asked(story, "Need attention", story.data.end - HOUR, story.data.end)]
    assert order == sorted(order)


def of_p40(story: Story, values: str, *told: str) -> dict[str, Any]:
    """The row of GPU 0 of the P40s, calm but for `values` of its newest sample and what was `told` of it."""
    sets = (f"UPDATE gpu_metrics SET {x} WHERE gpu_id = {p40(story)} AND {recent(story)}" for x in (CALM, values))
    with changed(story, "DELETE FROM gpu_events WHERE kind = 'xid'", *sets, *told):
        return listed(story)[P40_HOST, "GPU 0"]


def test_several_reasons_of_a_gpu_are_one_row_the_worst_first(story: Story) -> None:
    row = of_p40(story, "row_remap_pending = 1, row_remap_failure = 1")
    assert (row["severity"], row["reason"]) == ("critical", "row remapping failed; row remap pending")
    assert row["do now"] == "drain, and replace the GPU (RMA)"


def test_what_to_do_is_said_in_the_order_of_the_reasons(story: Story) -> None:
    row = of_p40(story, "row_remap_failure = 1, ecc_dbe_vol_total = 2")
    assert row["reason"] == "row remapping failed; uncorrectable ECC errors since the last reset: 2"
    replace, reset = "drain, and replace the GPU (RMA)", "drain and reset the GPU; if it comes again, replace it"
    assert row["do now"] == f"{replace}; {reset}"


def test_an_action_that_several_reasons_ask_for_is_said_once(story: Story) -> None:
    xids = f"""INSERT INTO gpu_events (time, kind, gpu_id, gpu_uuid, hostname, source, code, detail)
        SELECT now() - INTERVAL '1 minute', 'xid', gpu_id, gpu_uuid, hostname, 'test', code,
            '{{"severity": "critical", "immediate_action": "reset it"}}' FROM gpus, (VALUES (48), (95)) x (code)
        WHERE gpu_id = {p40(story)}"""
    row = of_p40(story, CALM, xids)
    assert sorted(row["reason"].split("; ")) == ["XID 48", "XID 95"]
    assert row["do now"] == "reset it"


def test_xids_that_are_old_or_not_critical_are_no_reason(story: Story) -> None:
    calm = f"UPDATE gpu_metrics SET {CALM} WHERE {recent(story)}"
    before = "UPDATE gpu_events SET time = time - INTERVAL '2 days' WHERE kind = 'xid'"
    mild = "UPDATE gpu_events SET detail = detail || '{\"severity\": \"warning\"}' WHERE kind = 'xid'"
    for change in (before, mild):
        with changed(story, calm, change):
            assert set(listed(story)) == {(A100_HOST, "GPU 2"), (T4_HOST, "GPU 0")}


@pytest.mark.parametrize("kind", ["gpu_returned", "counter_reset"])
def test_an_xid_before_a_reset_is_no_reason_any_more(story: Story, kind: str) -> None:
    """What it asked for has been done; one after it is a reason again."""
    calm = f"UPDATE gpu_metrics SET {CALM} WHERE {recent(story)}"
    done = f"""INSERT INTO gpu_events (time, kind, gpu_id, gpu_uuid, source)
        SELECT time + INTERVAL '{{}} second', '{kind}', gpu_id, gpu_uuid, source FROM gpu_events
        WHERE kind = 'xid' AND code = 79"""
    with changed(story, calm, done.format(1)):
        assert (P40_HOST, "GPU 1") not in listed(story)
    with changed(story, calm, done.format(-1)):
        assert "XID 79" in listed(story)[P40_HOST, "GPU 1"]["reason"]


def test_a_host_whose_exporter_is_down_is_listed_after_a_minute(story: Story) -> None:
    """Not after the five that make its GPUs silent; and not for one target of two that goes while the other is read."""

    def down(before: dt.timedelta, age: int) -> list[str]:
        host = f"SELECT gpu_id FROM gpus WHERE hostname = '{P40_HOST}'"
        return [
            f"UPDATE gpu_metrics SET {CALM} WHERE {recent(story)}",
            "DELETE FROM gpu_events WHERE kind = 'xid'",
            f"UPDATE gpu_latest SET time = now() - INTERVAL '{age} seconds' WHERE gpu_id IN ({host})",
            f"""INSERT INTO gpu_events (time, kind, hostname, source, detail)
            VALUES (now() - INTERVAL '{before}', 'target_down', '{P40_HOST}', 'a:1', '{{"reason": "timeout"}}')""",
        ]

    with changed(story, *down(85 * SECOND, 90)):
        row = listed(story)[P40_HOST, "all 2 GPUs"]
    assert (row["severity"], row["reason"]) == ("critical", "exporter down: timeout (a:1)")
    for still_read in (down(85 * SECOND, 50), down(95 * SECOND, 90)):
        with changed(story, *still_read):
            assert not [who for who in listed(story) if who[0] == P40_HOST]


def test_what_is_told_lost_is_lost_at_once(story: Story) -> None:
    """Its last sample is seconds old: not silent yet, but no GPU that reports."""
    gpu = story.data.gpu_ids[a100(0)]
    told = f"""INSERT INTO gpu_events (time, kind, gpu_id, gpu_uuid, hostname, source)
        SELECT now(), 'gpu_lost', gpu_id, gpu_uuid, hostname, 't' FROM gpus WHERE gpu_id = {gpu}"""
    before = now(story, "GPUs")
    with changed(story, told):
        after, found = now(story, "GPUs"), listed(story, "Lost and silent GPUs")
    assert found[A100_HOST, "GPU 0"]["state"] == "lost"
    assert (after["lost"], after["reporting"]) == (before["lost"] + 1, before["reporting"] - 1)
    assert after["silent"] == before["silent"]
    assert after["GPUs"] == after["reporting"] + after["silent"] + after["lost"]


GONE_QUIET = {
    "told lost": """INSERT INTO gpu_events (time, kind, gpu_id, gpu_uuid, hostname, source)
        SELECT now(), 'gpu_lost', gpu_id, gpu_uuid, hostname, 't' FROM gpus WHERE gpu_id = {gpu}""",
    "its exporter is told down": """INSERT INTO gpu_events (time, kind, hostname, source, detail)
        SELECT now() - INTERVAL '65 seconds', 'target_down', hostname, 't', '{{"reason": "timeout"}}' FROM gpus
        WHERE gpu_id = {gpu}""",
}


@pytest.mark.parametrize("told", GONE_QUIET)
def test_what_does_not_report_is_in_no_figure_of_now(story: Story, told: str) -> None:
    """Of a GPU that is the hottest, was last heard long ago, but not five minutes, and is told gone since."""
    gpu = story.data.gpu_ids[a100(0)]
    heard = (
        f"UPDATE gpu_metrics SET gpu_temp = 99, power_usage = 1000 WHERE gpu_id = {gpu} AND {recent(story)}",
        f"""INSERT INTO gpu_metrics SELECT copy.* FROM gpu_latest l JOIN gpu_metrics m USING (gpu_id, time),
            jsonb_populate_record(m, jsonb_build_object('time', now() - INTERVAL '290 seconds')) copy
            WHERE l.gpu_id = {gpu}""",
        f"UPDATE gpu_latest SET time = now() - INTERVAL '290 seconds' WHERE gpu_id = {gpu}",
    )

    def figures() -> dict[str, Any]:
        hosts = asked(story, "Temperature map", story.data.end - HOUR, story.data.end)
        (host,) = (row for row in hosts if row["host"] == A100_HOST)
        models = asked(story, "Clusters and models", story.data.end - HOUR, story.data.end)
        (east,) = (row for row in models if row["cluster"] == "east")
        return {**{f"now {name}": value for name, value in now(story, "Now").items()},
                **{f"freshness {name}": value for name, value in now(story, "Freshness").items()},
                **{f"host {name}": host[name] for name in ("silent", "hottest")},
                **{f"east {name}": east[name] for name in ("silent", "hottest", "power")},
                "reporting": now(story, "GPUs")["reporting"]}  # fmt: skip

    with changed(story, *heard):
        before = figures()
    with changed(story, *heard, GONE_QUIET[told].format(gpu=gpu)):
        after = figures()
        why = listed(story)[A100_HOST, "GPU 0"]["reason"]
    assert before["now hottest"] == before["host hottest"] == before["east hottest"] == 99
    assert max(after["now hottest"], after["host hottest"], after["east hottest"]) < 99
    assert before["freshness oldest"] >= 290 > after["freshness oldest"]
    assert after["now power"] == pytest.approx(before["now power"] - 1000)
    assert after["east power"] == pytest.approx(before["east power"] - 1000)
    assert (after["host silent"], after["east silent"]) == (before["host silent"] + 1, before["east silent"] + 1)
    assert after["reporting"] == before["reporting"] - 1
    assert why.startswith(
        {"told lost": "lost", "its exporter is told down": "silent, while its host reports; an exp"}[told]
    )


def test_a_host_whose_only_gpu_is_lost_is_not_silent_besides(story: Story) -> None:
    lost = GONE_QUIET["told lost"].format(gpu=p40(story))
    with changed(story, f"UPDATE gpus SET hostname = 'alone' WHERE gpu_id = {p40(story)}", lost):
        rows = asked(story, "Need attention", story.data.end - HOUR, story.data.end)
    assert [row["reason"][:4] for row in rows if row["host"] == "alone"] == ["lost"]


def test_where_all_is_well_there_is_nothing(story: Story) -> None:
    calm = f"UPDATE gpu_metrics SET {CALM} WHERE {recent(story)}"
    with changed(story, calm, "DELETE FROM gpu_events WHERE kind = 'xid'"):
        result = between(story, panel(FLEET_UID, "Need attention"), story.data.end - HOUR, story.data.end,
                         {"host": P40_HOST})  # fmt: skip
    assert result.rows == []


@pytest.mark.parametrize("source", ["desk-00:9400", "desk-00.lab.example:9400", "https://desk-00:9400/metrics"])
def test_of_a_target_that_was_never_read_the_address_is_known_only(story: Story, source: str) -> None:
    """By this collector; the GPUs are known from another."""
    plain = f"UPDATE gpu_events SET hostname = NULL, source = '{source}' WHERE kind IN ('target_down', 'target_up')"
    with changed(story, plain):
        assert listed(story)[T4_HOST, "GPU 0"]["reason"] == f"exporter down: connection refused ({source})"
    up = f"""INSERT INTO gpu_events (time, kind, source)
        VALUES (now() - INTERVAL '6 minutes', 'target_up', '{source}')"""
    with changed(story, plain, up):
        assert listed(story)[T4_HOST, "GPU 0"]["reason"].startswith("silent: no GPU of the host")


def test_what_the_inventory_never_had_is_told(story: Story) -> None:
    events = """INSERT INTO gpu_events (time, kind, hostname, source, detail) VALUES
        (now() - INTERVAL '3 hours', 'gpu_lost', 'new-01', 'new-01:9400',
            '{"reason": "unknown error", "pci_bus_id": "0000:3B:00.0"}'),
        (now() - INTERVAL '2 hours', 'target_down', NULL, 'new-02:9400', '{"reason": "refused"}')"""
    back = """INSERT INTO gpu_events (time, kind, gpu_uuid, hostname, source, detail)
        SELECT now(), 'gpu_returned', 'GPU-n', hostname, source, jsonb_build_object('lost_at', time)
        FROM gpu_events WHERE kind = 'gpu_lost' AND hostname = 'new-01'"""
    with changed(story, events):
        found = listed(story)
    assert found["new-01", "-"]["reason"] == "lost before it was ever seen: 0000:3B:00.0: unknown error"
    assert found["new-02", "-"]["reason"] == "exporter down, and never read: refused"
    with changed(story, events, back):
        assert ("new-01", "-") not in listed(story)


# --- silent, and gone ------------------------------------------------------------------------------------------------


def test_a_silent_gpu_whose_host_reports_is_in_every_list(story: Story) -> None:
    gpu = story.data.gpu_ids[a100(1)]
    before = now(story, "GPUs")
    with changed(story, silence(story, gpu)):
        row, silent = listed(story)[A100_HOST, "GPU 1"], listed(story, "Lost and silent GPUs")
        hosts = asked(story, "Temperature map", story.data.end - HOUR, story.data.end)
        after = now(story, "GPUs")
    assert row["severity"] == "critical"
    assert row["reason"].startswith("silent, while its host reports")
    assert {who: r["state"] for who, r in silent.items()} == {
        (A100_HOST, "GPU 1"): "silent",
        (A100_HOST, "GPU 2"): "lost",
    }
    assert silent[A100_HOST, "GPU 1"]["last sample"] == pytest.approx(600, abs=30)
    (host,) = (h for h in hosts if h["host"] == A100_HOST)
    assert (host["1"], host["2"], host["4"], host["silent"]) == (MARK_SILENT, MARK_LOST, None, 2)
    assert after["silent"] == before["silent"] + 1


def test_the_map_begins_with_hosts_where_one_is_silent_then_the_hottest(story: Story) -> None:
    hosts = asked(story, "Temperature map", story.data.end - HOUR, story.data.end)
    troubled = [host["silent"] > 0 for host in hosts]
    assert troubled == sorted(troubled, reverse=True) == [True, True, False]
    temperatures = [r["gpu_temp"] for r in reporting(story).values() if r["host"] == A100_HOST and "gpu_temp" in r]
    (host,) = (h for h in hosts if h["host"] == A100_HOST)
    assert (host["hottest"], host["GPUs"], host["MIG"]) == (max(temperatures), 4, 2)
    (east,) = (r for r in asked(story, "Clusters and models", story.data.end - HOUR, story.data.end)
               if r["cluster"] == "east")  # fmt: skip
    assert (east["GPUs"], east["MIG"], east["silent"]) == (4, 2, 1)


def everywhere(story: Story) -> tuple[dict[str, Any], Listed, Listed, list[Any]]:
    hosts = asked(story, "Temperature map", story.data.end - HOUR, story.data.end)
    shown = [(h["host"], h["GPUs"], h["MIG"], h["silent"], h["3"], h["1"]) for h in hosts]
    return now(story, "GPUs"), listed(story), listed(story, "Lost and silent GPUs"), sorted(shown)


def test_an_instance_that_a_new_partition_took_away_is_not_silent(story: Story) -> None:
    """When its board falls silent, it is not either: it was gone before."""
    board, instances = cut(story)
    before = everywhere(story)
    with story.connection.transaction(force_rollback=True):
        gone = register(story.connection, story.data.end - DAY, uuid=a100(3)[0], instance_id=99, hostname=A100_HOST,
                        index=3, model="A100", cluster="east", datacenter="dc1", rack="r7")  # fmt: skip
        story.connection.execute(f"INSERT INTO gpu_latest VALUES ({gone}, now() - INTERVAL '1 hour')".encode())
        stats, attention, silent, hosts = everywhere(story)
        assert (stats, attention.keys(), silent.keys(), hosts) == (
            before[0],
            before[1].keys(),
            before[2].keys(),
            before[3],
        )
        story.connection.execute(silence(story, board, *instances).encode())
        stats, attention, silent, _ = everywhere(story)
    assert stats["silent"] == before[0]["silent"] + 1
    assert stats["MIG"] == before[0]["MIG"]
    assert silent.keys() - before[2].keys() == {(A100_HOST, "GPU 3")}
    assert silent[A100_HOST, "GPU 3"]["state"] == "silent"


def test_a_board_of_which_only_the_instances_are_told_is_not_silent(story: Story) -> None:
    """dcgm-exporter has no series of a GPU that is cut."""
    board, _ = cut(story)
    before = everywhere(story)
    with changed(story, silence(story, board)):
        stats, attention, silent, hosts = everywhere(story)
    assert (stats, silent.keys()) == (before[0], before[2].keys())
    assert [h[:4] for h in hosts] == [h[:4] for h in before[3]]
    assert attention.keys() <= before[1].keys()


def test_a_board_whose_place_another_has_is_replaced_not_silent(story: Story) -> None:
    before = everywhere(story)
    with story.connection.transaction(force_rollback=True):
        story.connection.execute(silence(story, story.data.gpu_ids[a100(1)], minutes=60).encode())
        new = register(story.connection, story.data.end - 5 * MINUTE, uuid="GPU-new", hostname=A100_HOST, index=1,
                       model="A100", cluster="east", datacenter="dc1", rack="r7")  # fmt: skip
        story.connection.execute(f"INSERT INTO gpu_latest VALUES ({new}, now())".encode())
        stats, _, silent, _ = everywhere(story)
    assert stats == before[0]
    assert silent.keys() == before[2].keys()


# --- errors ----------------------------------------------------------------------------------------------------------


def test_a_board_known_before_that_came_to_its_place_replaces_it(story: Story) -> None:
    """It was seen first, elsewhere or here: its PCI address tells. The driver's index does not: it gives that of a lost
    GPU to the next."""
    board, other = story.data.gpu_ids[a100(0)], story.data.gpu_ids[a100(1)]
    quiet = (
        "DELETE FROM gpu_events WHERE kind IN ('gpu_lost', 'xid')",
        f"UPDATE gpus SET pci_bus_id = '00000000:0' || gpu_id || ':00.0' WHERE hostname = '{A100_HOST}'",
        silence(story, board),
    )
    at = "UPDATE gpus SET {column} = (SELECT {column} FROM gpus WHERE gpu_id = " + f"{board}) WHERE gpu_id = {other}"
    with changed(story, *quiet):
        assert (A100_HOST, "GPU 0") in listed(story)
    with changed(story, *quiet, at.format(column="pci_bus_id")):
        assert (A100_HOST, "GPU 0") not in listed(story)
    with changed(story, *quiet, at.format(column="gpu_index")):
        assert (A100_HOST, "GPU 0") in listed(story)


def test_the_table_of_errors_adds_up_to_the_bars(story: Story) -> None:
    """Six GPUs are all in it. The bars are in hours, over which the table adds up."""
    start, end = story.data.end - 20 * HOUR, story.data.end
    rows = asked(story, "GPUs with most errors", start, end)
    bars: dict[str, float] = {}
    for title in ("Uncorrected memory errors", "Corrected memory errors", "Link errors"):
        for bar in asked(story, title, start, end):
            name = "NVLink" if bar["metric"].startswith("NVLink") else bar["metric"]
            bars[name] = bars.get(name, 0) + (bar["value"] or 0)
    named = [name for name in rows[0] if name in (*NAMES.values(), "NVLink")]
    table = {name: sum(row[name] or 0 for row in rows) for name in named}
    assert {name: value for name, value in table.items() if value} == {n: v for n, v in bars.items() if v}
    assert {"ECC uncorrected", "ECC corrected", "NVLink"} <= {n for n, v in bars.items() if v}


def test_a_gpu_with_an_uncorrected_error_comes_before_thousands_that_were_corrected(story: Story) -> None:
    rows = asked(story, "GPUs with most errors", story.data.end - 20 * HOUR, story.data.end)
    assert (rows[0]["host"], rows[0]["gpu_id"]) == (A100_HOST, story.data.gpu_ids[a100(0)])
    assert rows[0]["ECC uncorrected"] >= 1
    stormy = next(row for row in rows if row["gpu_id"] == story.data.gpu_ids[a100(1)])
    assert stormy["ECC corrected"] > 100 * (rows[0]["ECC corrected"] or 0)


PAST = (20 * HOUR, 8 * HOUR)
"""How long before the end a range begins and ends that is read from stored hours only."""


def of_the_past(story: Story, title: str, change: str) -> list[dict[str, Any]]:
    start, end = (begin_of(story.data.end - before, HOUR) for before in PAST)
    with changed(story, f"UPDATE {stored(story, '1hour')} SET {change}"):
        return asked(story, title, start, end)


def test_known_zeros_are_said_and_what_is_unknown_is_not(story: Story) -> None:
    zero = ", ".join(f"first_{x} = first_{x} - first_{x}, last_{x} = last_{x} - last_{x}" for x in ERROR_COUNTERS)
    unknown = ", ".join(f"first_{x} = NULL, last_{x} = NULL" for x in ERROR_COUNTERS)
    bars = of_the_past(story, "Uncorrected memory errors", zero)
    assert {row["metric"] for row in bars} == {
        "none of: ECC uncorrected; remapped rows, uncorrected; retired pages, double bit"
    }
    assert {row["value"] for row in bars} == {0.0, None}
    (row,) = of_the_past(story, "GPUs with most errors", zero)
    assert (row["host"], {value for name, value in row.items() if name != "host"}) == ("None", {None})
    assert of_the_past(story, "Uncorrected memory errors", unknown) == []
    assert of_the_past(story, "GPUs with most errors", unknown) == []


def test_series_that_never_grew_are_left_out(story: Story) -> None:
    """Of the counters one grows by one an hour, of one GPU."""
    zero = ", ".join(f"first_{x} = first_{x} - first_{x}, last_{x} = last_{x} - last_{x}" for x in ERROR_COUNTERS)
    gpu = story.data.gpu_ids[a100(1)]
    start, end = (begin_of(story.data.end - before, HOUR) for before in PAST)
    grow = f"""UPDATE {stored(story, "1hour")} SET first_pcie_replay_counter = n, last_pcie_replay_counter = n
        FROM generate_series(0, 40) n
        WHERE gpu_id = {gpu} AND bucket = '{start - 12 * HOUR}'::timestamptz + n * INTERVAL '1 hour'"""
    with changed(story, f"UPDATE {stored(story, '1hour')} SET {zero}", grow):
        bars = asked(story, "Link errors", start, end)
        (row,) = asked(story, "GPUs with most errors", start, end)
    assert {row["metric"] for row in bars} == {"PCIe replays"}
    assert (row["gpu_id"], row["PCIe replays"], row["ECC corrected"]) == (gpu, (end - start) / HOUR + 1, 0)


# --- held back -------------------------------------------------------------------------------------------------------


def test_ten_minutes_of_heat_come_before_hours_of_power_cap(story: Story) -> None:
    first, second = (story.data.gpu_ids[a100(index)] for index in (0, 1))
    start = begin_of(story.data.end - 20 * HOUR, HOUR)

    def spent(gpu: int, heat: dt.timedelta, power: dt.timedelta) -> str:
        """Within each of three hours a third of it."""
        h, p = (int(x.total_seconds() * 1e9) // 3 for x in (heat, power))
        return f"""UPDATE {stored(story, "1hour")} SET first_thermal_violation = {h} * n, last_thermal_violation =
            {h} * (n + 1), first_power_violation = {p} * n, last_power_violation = {p} * (n + 1),
            resets_thermal_violation = NULL, resets_power_violation = NULL FROM generate_series(0, 2) n
            WHERE gpu_id = {gpu} AND bucket = '{start}'::timestamptz + n * INTERVAL '1 hour'"""

    with changed(story, spent(first, 10 * MINUTE, 0 * MINUTE), spent(second, 0 * MINUTE, 150 * MINUTE)):
        rows = asked(story, "Most throttled GPUs", start + MINUTE, start + 3 * HOUR - MINUTE)
    of = {row["gpu_id"]: row for row in rows}
    assert [row["gpu_id"] for row in rows].index(first) < [row["gpu_id"] for row in rows].index(second)
    assert (of[first]["by heat"], of[first]["by power"], of[first]["of"]) == (600, 0, 3 * 3600)
    assert of[first]["share"] == pytest.approx(100 / 18)
    assert (of[second]["by heat"], of[second]["by power"]) == (0, 150 * 60)
    assert of[second]["share"] == pytest.approx(100 * 150 / 180)
