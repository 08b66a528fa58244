"""What happens between scrapes: refusals, resets, XIDs, lost and returned GPUs, status, restarts."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from services.collector.reader import Reading, ScrapeRefused, TargetReader
from services.contract.event import Extra, GpuEvent, Properties, Status

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
STEP = dt.timedelta(seconds=10)
DEV = "DCGM_FI_DEV_"


def line(name: str, value: object, gpu: int = 0, more: str = "") -> str:
    return f'{DEV}{name}{{gpu="{gpu}",UUID="GPU-{gpu}",Hostname="n1"{more}}} {value}\n'


def scrape(*series: tuple[Any, ...]) -> bytes:
    return "".join(line(*one) for one in series).encode()


class Target:
    """A reader with a clock that steps."""

    def __init__(self) -> None:
        self.reader = TargetReader("n1:9400", {})
        self.now = NOW

    def read(self, body: bytes, status: Status | None = None) -> Reading:
        self.now += STEP
        return self.reader.read(body, self.now, status)

    def happenings(self, body: bytes, status: Status | None = None) -> list[GpuEvent]:
        return self.read(body, status).happenings

    def restart(self) -> None:
        state = json.loads(json.dumps(self.reader.checkpoint()))
        self.reader = TargetReader("n1:9400", {})
        self.reader.restore(state)


@pytest.fixture
def target() -> Target:
    return Target()


TEMP = line("GPU_TEMP", 61)
HTML = b"<!DOCTYPE html>\n<html><body>502 Bad Gateway</body></html>\n"


@pytest.mark.parametrize(
    ("body", "reason", "told"),
    [
        (TEMP.encode()[:-1], "truncated", "line 1"),
        ((TEMP + TEMP[:40]).encode(), "truncated", "line 2"),
        (TEMP.encode() + b"# HELP DCGM_FI_D", "truncated", "line 2"),
        (HTML, "not_exposition", "line 1"),
        (HTML[:-1], "not_exposition", "line 1"),
        (b"\x1f\x8b\x08\x00\x00garbage", "not_exposition", "line 1"),
        (b"{}\n", "not_exposition", "line 1"),
        ((TEMP + "\n# ok\nDCGM-exporter 61\n").encode(), "not_exposition", "line 4"),
        ((TEMP + line("GPU_UTIL", "sixty")).encode(), "not_exposition", "line 2"),
        ((TEMP + TEMP.replace("61", "62")).encode(), "duplicate_series", "line 2"),
        ((TEMP + line("GPU_UTIL", 1) + TEMP).encode(), "duplicate_series", "GPU-0"),
        ((TEMP + line("X", 1) + line("GPU_UTIL", 1) + line("X", 1)).encode(), "duplicate_series", "GPU-0"),
        (TEMP.replace("n1", "n\xe9").encode("latin-1"), "not_utf8", "line 1"),
        (TEMP.encode() + b"# HELP \xff\n", "not_utf8", "line 2"),
        (b"", "no_gpu_metrics", "empty"),
        (b"# nothing yet\n", "no_gpu_metrics", "0 samples"),
        (b"go_goroutines 42\nprocess_cpu_seconds_total 12.5\n", "no_gpu_metrics", "2 samples"),
        ((TEMP + "# EOF\n" + line("GPU_UTIL", 1)).encode(), "not_exposition", "line 3"),
    ],
)
@pytest.mark.parametrize("warm", [False, True])
def test_refused_whole(target: Target, body: bytes, reason: str, told: str, *, warm: bool) -> None:
    if warm:
        target.read((TEMP + line("GPU_UTIL", 1)).encode())
    before = target.reader.checkpoint()
    with pytest.raises(ScrapeRefused, match=told) as refused:
        target.read(body)
    assert refused.value.reason == reason
    assert target.reader.checkpoint() == before


def test_a_refused_scrape_leaves_no_trace(target: Target) -> None:
    good = scrape(("PCIE_REPLAY_COUNTER", 5), ("GPU_TEMP", 60))
    target.read(good)
    with pytest.raises(ScrapeRefused):
        target.read(scrape(("PCIE_REPLAY_COUNTER", 1)) + b"oops\n")
    reading = target.read(good)
    assert reading.happenings == []
    assert reading.events[0].resets is None


def test_lost_end_of_openmetrics_is_noticed_once(target: Target) -> None:
    """A body cut between two lines; an exporter that changed its format is taken from the second scrape on."""
    target.read(TEMP.encode() + b"# EOF\n")
    with pytest.raises(ScrapeRefused, match="EOF"):
        target.read(TEMP.encode())
    assert len(target.read(TEMP.encode()).events) == 1


def test_counter_reset(target: Target) -> None:
    target.read(scrape(("TOTAL_ENERGY_CONSUMPTION", 2**53 - 1), ("PCIE_REPLAY_COUNTER", 7), ("GPU_TEMP", 70)))
    body = scrape(("TOTAL_ENERGY_CONSUMPTION", 1000), ("PCIE_REPLAY_COUNTER", 6), ("GPU_TEMP", 20))
    reading = target.read(body)
    assert reading.events[0].resets == {"total_energy_consumption": 2**53 - 1, "pcie_replay_counter": 7}
    (event,) = reading.happenings
    assert (event.kind, event.gpu_uuid, event.hostname) == ("counter_reset", "GPU-0", "n1")
    assert event.detail == {
        "total_energy_consumption": {"from": 2**53 - 1, "to": 1000},
        "pcie_replay_counter": {"from": 7, "to": 6},
    }
    assert target.read(body).events[0].resets is None


def test_increase_over_resets(target: Target) -> None:
    """last - first + sum(resets) is what the counter really counted."""
    values = [100, 250, 30, 40, 0, 5]
    events = [target.read(scrape(("PCIE_REPLAY_COUNTER", value))).events[0] for value in values]
    resets = sum((event.resets or {}).get("pcie_replay_counter", 0) for event in events)
    assert values[-1] - values[0] + resets == 150 + 30 + 10 + 0 + 5


def test_reset_while_the_series_was_absent(target: Target) -> None:
    target.read(scrape(("GPU_TEMP", 1), ("PCIE_REPLAY_COUNTER", 9)))
    assert target.happenings(scrape(("GPU_TEMP", 1))) == []
    reading = target.read(scrape(("GPU_TEMP", 1), ("PCIE_REPLAY_COUNTER", 2)))
    assert reading.events[0].resets == {"pcie_replay_counter": 9}


def test_reset_of_one_gpu_among_others_and_of_an_instance(target: Target) -> None:
    mig = ',GPU_I_ID="3",GPU_I_PROFILE="1g.5gb"'
    target.read(scrape(*(("PCIE_REPLAY_COUNTER", 5, gpu) for gpu in range(4)), ("PCIE_REPLAY_COUNTER", 5, 1, mig)))
    body = scrape(
        *(("PCIE_REPLAY_COUNTER", 5 - (gpu == 2), gpu) for gpu in range(4)), ("PCIE_REPLAY_COUNTER", 4, 1, mig)
    )
    reading = target.read(body)
    assert [e.resets for e in reading.events] == [
        None,
        None,
        {"pcie_replay_counter": 5},
        None,
        {"pcie_replay_counter": 5},
    ]
    assert [(e.gpu_uuid, e.instance_id) for e in reading.happenings] == [("GPU-2", None), ("GPU-1", 3)]


def test_xid(target: Target) -> None:
    """The gauge holds the last XID for good: an event is a change to another one."""
    told = ',err_code="79",err_msg="GPU has fallen off the bus"'
    assert target.happenings(scrape(("XID_ERRORS", 43))) == []  # nobody knows when it happened
    assert target.happenings(scrape(("XID_ERRORS", 43))) == []
    (event,) = target.happenings(scrape(("XID_ERRORS", 79, 0, told)))
    assert (event.kind, event.code, event.gpu_uuid) == ("xid", 79, "GPU-0")
    told_by_the_exporter = {"previous": 43, "err_code": "79", "err_msg": "GPU has fallen off the bus"}
    assert event.detail is not None
    assert event.detail.items() >= told_by_the_exporter.items()
    assert (event.detail["severity"], event.detail["immediate"]) == ("critical", "RESTART_BM")
    assert event.detail.keys() - told_by_the_exporter.keys() == {
        "meaning", "severity", "immediate", "immediate_action", "investigatory", "investigatory_action",
    }  # fmt: skip
    assert target.happenings(scrape(("XID_ERRORS", 0))) == []
    assert [e.code for e in target.happenings(scrape(("XID_ERRORS", 79)))] == [79]


def test_first_xid_of_a_gpu_whose_series_appears_with_it(target: Target) -> None:
    target.read(scrape(("GPU_TEMP", 1)))
    assert [e.code for e in target.happenings(scrape(("GPU_TEMP", 1), ("XID_ERRORS", 48)))] == [48]
    target.read(scrape(("GPU_TEMP", 1)))
    assert target.happenings(scrape(("GPU_TEMP", 1), ("XID_ERRORS", 48))) == []


def test_lost_and_returned(target: Target) -> None:
    both = scrape(("GPU_TEMP", 1, 0), ("GPU_TEMP", 1, 1), ("PCIE_REPLAY_COUNTER", 8, 1))
    one = scrape(("GPU_TEMP", 1, 0))
    target.read(both)
    last_seen = target.now
    (lost,) = target.happenings(one)
    assert (lost.kind, lost.gpu_uuid, lost.hostname) == ("gpu_lost", "GPU-1", "n1")
    assert lost.detail == {"last_seen": last_seen.isoformat()}
    lost_at = target.now
    assert target.happenings(one) == []
    assert len(target.read(one).events) == 1
    reading = target.read(both.replace(b" 8\n", b" 3\n"))
    assert [e.kind for e in reading.happenings] == ["gpu_returned", "counter_reset"]
    assert reading.happenings[0].detail == {"lost_at": lost_at.isoformat()}
    assert reading.events[1].resets == {"pcie_replay_counter": 8}


def test_a_gpu_in_other_order_is_not_lost(target: Target) -> None:
    target.read(scrape(("PCIE_REPLAY_COUNTER", 1, 0), ("PCIE_REPLAY_COUNTER", 9, 1)))
    reading = target.read(scrape(("PCIE_REPLAY_COUNTER", 9, 1), ("PCIE_REPLAY_COUNTER", 1, 0)))
    assert reading.happenings == []


def test_mig_reconfiguration_loses_no_gpu(target: Target) -> None:
    target.read(scrape(("GPU_TEMP", 1), ("XID_ERRORS", 0, 0, ',GPU_I_ID="3"')))
    assert target.happenings(scrape(("GPU_TEMP", 1), ("XID_ERRORS", 31, 0, ',GPU_I_ID="4"'))) == []


def test_forgotten_after_a_day(target: Target) -> None:
    both, one = scrape(("GPU_TEMP", 1, 0), ("PCIE_REPLAY_COUNTER", 8, 1)), scrape(("GPU_TEMP", 1, 0))
    target.read(both)
    target.read(one)
    target.now += dt.timedelta(hours=24)
    target.read(one)
    reading = target.read(both.replace(b" 8\n", b" 3\n"))
    assert reading.happenings == []
    assert reading.events[1].resets is None


def test_status_change_is_one_event_a_host(target: Target) -> None:
    body = scrape(("GPU_TEMP", 1, 0), ("GPU_TEMP", 1, 1)) + TEMP.replace("n1", "n2").replace("GPU-0", "GPU-9").encode()
    bench = Status(tag="bench", memo="run 4")
    assert target.happenings(body, Status(tag="idle")) == []
    assert target.read(body, Status(tag="idle")).events[0].status == Status(tag="idle")
    events = target.happenings(body, bench)
    assert [(e.kind, e.hostname, e.gpu_uuid) for e in events] == [("status", "n1", None), ("status", "n2", None)]
    assert events[0].detail == {"tag": "bench", "memo": "run 4"}
    assert events[0].status == bench
    assert target.happenings(body, bench) == []
    assert [e.detail for e in target.happenings(body)][:1] == [{"tag": None, "memo": None}]


def test_restart_loses_nothing_and_repeats_nothing(target: Target) -> None:
    mig = ',GPU_I_ID="3"'
    first = (("PCIE_REPLAY_COUNTER", 9, 0), ("PCIE_REPLAY_COUNTER", 9, 0, mig), ("XID_ERRORS", 43, 0))
    target.read(scrape(*first, ("PCIE_REPLAY_COUNTER", 9, 1), ("GPU_TEMP", 1, 2)), Status(tag="idle"))
    target.read(scrape(*first, ("PCIE_REPLAY_COUNTER", 9, 1)), Status(tag="idle"))  # GPU 2 is lost, and said so
    target.restart()
    target.restart()
    second = (("PCIE_REPLAY_COUNTER", 4, 0), ("PCIE_REPLAY_COUNTER", 5, 0, mig), ("XID_ERRORS", 79, 0))
    reading = target.read(scrape(*second, ("GPU_TEMP", 1, 2)), Status(tag="prod"))
    kinds = [(e.kind, e.gpu_uuid, e.instance_id) for e in reading.happenings]
    assert kinds == [
        ("gpu_lost", "GPU-1", None),
        ("gpu_returned", "GPU-2", None),
        ("status", None, None),
        ("counter_reset", "GPU-0", None),
        ("counter_reset", "GPU-0", 3),
        ("xid", "GPU-0", None),
    ]
    assert [event.resets for event in reading.events] == [{"pcie_replay_counter": 9}] * 2 + [None]
    target.restart()
    assert target.happenings(scrape(*second, ("GPU_TEMP", 1, 2)), Status(tag="prod")) == []
    target.restart()
    body = scrape(*second, ("GPU_TEMP", 1, 2), ("PCIE_REPLAY_COUNTER", 3, 1))
    (back,) = (e for e in target.read(body, Status(tag="prod")).events if e.gpu.uuid == "GPU-1")
    assert back.resets == {"pcie_replay_counter": 9}


@pytest.mark.parametrize("state", [{}, {"version": 2}, {"version": 1, "hosts": 3}, {"version": "1"}])
def test_foreign_checkpoint(target: Target, state: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="checkpoint"):
        target.reader.restore(state)


def test_one_of_several_series_without_a_value(target: Target) -> None:
    """The GPU has a value, so nothing is missing."""
    shared = scrape(("GPU_TEMP", "NaN", 0, ',pod="a"'), ("GPU_TEMP", 50, 0, ',pod="b"'))
    event = target.read(shared).events[0]
    assert (event.metrics.gpu_temp, event.gpu.missing) == (50, None)
    assert event.extra == Extra(labels={"tenants": "/a/, /b/"})
    event = target.read(shared.replace(b" 50\n", b" NaN\n")).events[0]
    assert (event.metrics.gpu_temp, event.gpu.missing) == (None, {"gpu_temp": "failed"})


def test_identity_objects_are_reused(target: Target) -> None:
    body = scrape(("GPU_TEMP", 1, 0, ',pod="a"'), ("SLOWDOWN_TEMP", 90, 0, ',pod="a"'))
    first, second = target.read(body).events[0], target.read(body.replace(b" 1\n", b" 2\n")).events[0]
    assert second.gpu is first.gpu
    assert second.tenant is first.tenant


def test_changed_property_and_reason_change_the_identity(target: Target) -> None:
    first = target.read(scrape(("SLOWDOWN_TEMP", 90), ("GPU_TEMP", 1))).events[0]
    second = target.read(scrape(("SLOWDOWN_TEMP", 88), ("GPU_TEMP", "NaN"))).events[0]
    third = target.read(scrape(("SLOWDOWN_TEMP", 88), ("GPU_TEMP", 5))).events[0]
    assert (first.gpu.properties, first.gpu.missing) == (Properties(slowdown_temp=90), None)
    assert (second.gpu.properties, second.gpu.missing) == (Properties(slowdown_temp=88), {"gpu_temp": "failed"})
    assert (third.gpu.missing, third.metrics.gpu_temp) == (None, 5)


def test_target_labels_place_the_gpu() -> None:
    labels = {"cluster": "c", "datacenter": "d", "rack": "r", "team": "t", "__address__": "x"}
    gpu = TargetReader("n1:9400", labels).read(TEMP.encode(), NOW).events[0].gpu
    assert (gpu.cluster, gpu.datacenter, gpu.rack, gpu.labels) == ("c", "d", "r", {"team": "t"})


def test_the_host_of_a_target_is_that_of_its_gpus() -> None:
    """By which a dashboard finds that an exporter is down: its address may be an IP address or `localhost`."""
    reader = TargetReader("10.0.0.7:9400", {})
    assert reader.hostname == "10.0.0.7"
    assert TargetReader("localhost:9400", {"hostname": "attic"}).hostname == "attic"
    reader.read(scrape(("GPU_TEMP", 61)), NOW)
    assert reader.hostname == "n1"
    nothing_left = b'gpumon_exporter_up{Hostname="n1"} 1\n'
    assert [h.kind for h in reader.read(nothing_left, NOW + STEP).happenings] == ["gpu_lost"]
    assert reader.hostname == "n1", "its only GPU fell off the bus, and then the host goes"
    restarted = TargetReader("10.0.0.7:9400", {})
    restarted.restore(json.loads(json.dumps(reader.checkpoint())))
    assert restarted.hostname == "n1"
    two = scrape(("GPU_TEMP", 61)) + line("GPU_TEMP", 62, 1).replace('"n1"', '"n2"').encode()
    reader.read(two, NOW + 2 * STEP)
    assert reader.hostname is None
