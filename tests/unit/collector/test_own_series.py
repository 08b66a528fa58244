"""The series of our own exporter: inventory, reasons, lost GPUs, counted XIDs; and that the rest costs nothing."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import pytest

from services.collector.own import MOST
from services.collector.past import REMEMBERED
from services.collector.reader import ScrapeRefused, TargetReader
from services.contract.event import GpuEvent, Status, encode
from tests.unit.collector.test_reader import NOW, Target

PCI = "00000000:{:02X}:00.0"
BEFORE = NOW - dt.timedelta(minutes=5)
"""A time before the first scrape."""


def labels(gpu: int = 0, more: str = "") -> str:
    bus = PCI.format(gpu)
    return f'gpu="{gpu}",UUID="GPU-{gpu}",pci_bus_id="{bus}",device="nvidia{gpu}",modelName="P40",Hostname="n1"{more}'


def state(reads: int = 100, up: int = 1, snapshot: float | None = None) -> str:
    text = f"gpumon_exporter_up {up}\ngpumon_exporter_reads_total {reads}\ngpumon_exporter_gpus 1\n"
    return text + ("" if snapshot is None else f"gpumon_snapshot_timestamp_seconds {snapshot}\n")


def temp(gpu: int = 0, value: object = 50) -> str:
    return f"DCGM_FI_DEV_GPU_TEMP{{{labels(gpu)}}} {value}\n"


def info(gpu: int = 0, more: str = ',driver_version="550.1",serial="42",brand="Tesla",colour="green"') -> str:
    return f"gpumon_gpu_info{{{labels(gpu, more)}}} 1\n"


def missing(field: str, reason: str, gpu: int = 0) -> str:
    return f'gpumon_field_missing{{{labels(gpu)},field="{field}",reason="{reason}"}} 1\n'


def lost(gpu: int = 1, uuid: bool = True, reason: str = "GPU is lost") -> str:
    known = f'UUID="GPU-{gpu}",' if uuid else ""
    return f'gpumon_gpu_lost{{gpu="{gpu}",{known}pci_bus_id="{PCI.format(gpu)}",Hostname="n1",reason="{reason}"}} 1\n'


def xid(code: int, count: int, last: dt.datetime | None, gpu: int = 0, uuid: bool = True) -> str:
    whose = labels(gpu) if uuid else f'pci_bus_id="{PCI.format(gpu)}",Hostname="n1"'
    text = f'gpumon_xid_errors_total{{{whose},xid="{code}"}} {count}\n'
    if last is not None:
        told = f'xid="{code}",pid="1234",process="python3",origin="nvml"'
        text += f"gpumon_xid_last_timestamp_seconds{{{whose},{told}}} {last.timestamp():.3f}\n"
    return text


def body(*parts: str, reads: int = 100, up: int = 1) -> bytes:
    return "".join([*parts, state(reads, up)]).encode()


class OwnTarget(Target):
    """A reader of our exporter, whose readings go on by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 100

    def told(self, *parts: str, status: Status | None = None) -> list[GpuEvent]:
        self.reads += 10
        return self.happenings(body(*parts, reads=self.reads), status)


@pytest.fixture
def target() -> OwnTarget:
    return OwnTarget()


@pytest.mark.parametrize("up", ["0", "NaN", "-1", "+Inf", "2"])
def test_readings_that_the_exporter_calls_stale_are_not_taken(target: OwnTarget, up: str) -> None:
    target.told(temp())
    text = f"{temp()}gpumon_exporter_up {up}\ngpumon_exporter_reads_total 300\n{xid(79, 1, None)}"
    with pytest.raises(ScrapeRefused) as refused:
        target.read(text.encode())
    assert refused.value.reason == "stale"
    assert [event.code for event in refused.value.happenings] == [79]


# Bounds --------------------------------------------------------------------------------------------------------------


def test_what_an_exporter_makes_happen_in_one_scrape_is_bounded(target: OwnTarget) -> None:
    target.told(temp())
    count = MOST + 500
    reading = target.read(body(temp(), *(xid(code, 1, None) for code in range(1, count + 1)), reads=200))
    assert (len(reading.happenings), reading.cut) == (MOST, 500)
    reading = target.read(body(temp(), *(lost(gpu) for gpu in range(1, count + 1)), reads=201))
    assert (len(reading.happenings), reading.cut) == (MOST, 500)
    assert target.read(body(temp(), reads=202)).cut == 0


def test_what_is_remembered_is_bounded_and_the_newest_stays(target: OwnTarget) -> None:
    target.told(temp())
    for first in (0, 2 * MOST // 3, 4 * MOST // 3):
        target.told(temp(), *(xid(first + code, 1, None) for code in range(2 * MOST // 3)))
        target.told(temp(), *(lost(first + gpu) for gpu in range(1, 2 * MOST // 3)))
    known = target.reader.checkpoint()
    assert (len(known["xids"]), len(known["lost"])) == (REMEMBERED, REMEMBERED)
    newest = [xid(4 * MOST // 3 + code, 1, None) for code in range(2 * MOST // 3)]
    assert target.told(temp(), *newest) == []


def test_many_without_uuid_take_time_that_grows_with_their_number(target: OwnTarget) -> None:
    """Each is looked for among what is known: 10,000 times 10,000 would be minutes."""
    target.told(*(temp(gpu) for gpu in range(3)))
    pci = "0000{:04X}:00:00.0"
    whose = [f'pci_bus_id="{pci.format(i)}",Hostname="n1"' for i in range(MOST)]
    started = time.perf_counter()
    target.told(temp(), *(f'gpumon_gpu_lost{{{who},reason="r"}} 1\n' for who in whose))
    target.told(temp(), *(f'gpumon_xid_errors_total{{{who},xid="79"}} 1\n' for who in whose))
    assert time.perf_counter() - started < 10


# Inventory and reasons -----------------------------------------------------------------------------------------------


def test_info_goes_to_the_inventory_and_nowhere_else(target: OwnTarget) -> None:
    event = target.read(body(temp(), info())).events[0]
    gpu = event.gpu
    assert (gpu.driver_version, gpu.serial, gpu.brand, gpu.vbios_version) == ("550.1", "42", "Tesla", None)
    assert event.extra is None


def test_info_of_the_gpu_holds_for_its_instances(target: OwnTarget) -> None:
    instance = labels(0, ',GPU_I_PROFILE="1g.5gb",GPU_I_ID="3"')
    events = target.read(body(f"DCGM_FI_DEV_FB_USED{{{instance}}} 5\n", info())).events
    assert [(e.gpu.instance_id, e.gpu.driver_version) for e in events] == [(3, "550.1")]


def test_only_the_info_series_speaks_for_the_inventory(target: OwnTarget) -> None:
    """Elsewhere `serial` may be the serial of anything."""
    event = target.read(
        f"DCGM_FI_DEV_GPU_TEMP{{{labels(0, ',serial=' + chr(34) + '7' + chr(34))}}} 5\n".encode()
    ).events[0]
    assert event.gpu.serial is None
    assert event.extra is not None
    assert event.extra.labels == {"serial": "7"}


def test_reasons(target: OwnTarget) -> None:
    text = [
        temp(0), temp(1),
        missing("DCGM_FI_DEV_MEMORY_TEMP", "unsupported"), missing("DCGM_FI_DEV_FAN_SPEED", "permission", 1),
        missing("DCGM_FI_DEV_SLOWDOWN_TEMP", "failed", 1), missing("DCGM_FI_DEV_NOBODY_KNOWS", "failed"),
        missing("DCGM_FI_DEV_POWER_USAGE", "asleep"), missing("DCGM_FI_DEV_GPU_TEMP", "failed"),
    ]  # fmt: skip
    first, second = target.read(body(*text)).events
    assert first.gpu.missing == {"memory_temp": "unsupported"}, "what has a value is not missing"
    assert second.gpu.missing == {"fan_speed": "permission", "slowdown_temp": "failed"}
    assert first.extra is None


def test_identity_objects_stay_while_reasons_do(target: OwnTarget) -> None:
    text = body(temp(), info(), missing("DCGM_FI_DEV_MEMORY_TEMP", "unsupported"))
    first = target.read(text).events[0]
    assert target.read(text.replace(b" 50\n", b" 51\n")).events[0].gpu is first.gpu
    third = target.read(text.replace(b"unsupported", b"failed")).events[0]
    assert third.gpu.missing == {"memory_temp": "failed"}
    assert target.read(body(temp(), info())).events[0].gpu.missing is None


def test_an_unreadable_value_beside_reasons(target: OwnTarget) -> None:
    event = target.read(body(temp(value="NaN"), missing("DCGM_FI_DEV_MEMORY_TEMP", "unsupported"))).events[0]
    assert event.gpu.missing == {"memory_temp": "unsupported", "gpu_temp": "failed"}


def test_processes_state_and_second_name_space_leave_no_trace(target: OwnTarget) -> None:
    plain = target.read(body(temp()))
    noise = "".join(
        f'gpumon_process_used_memory_bytes{{{labels()},pid="{pid}",user="u",command="c",type="C"}} 1024\n'
        for pid in range(50)
    )
    noise += 'entrenar_gpu_temperature_celsius{device="0"} 50\nentrenar_gpu_power_watts{device="0"} 44.5\n'
    noise += 'gpumon_exporter_read_failures_total{trouble="hung"} 3\ngpumon_exporter_reading_age_seconds 0.5\n'
    reading = target.read(body(temp(), noise))
    assert [encode(e.metrics) for e in reading.events] == [encode(e.metrics) for e in plain.events]
    assert (reading.events[0].extra, reading.events[0].gpu, reading.happenings) == (None, plain.events[0].gpu, [])
    assert (reading.samples, reading.non_gpu) == (plain.samples + 54, plain.non_gpu + 54)


def test_the_snapshot_gauge_is_handed_on(target: OwnTarget) -> None:
    assert target.read((temp() + state(snapshot=1763790000.5)).encode()).snapshot == 1763790000.5
    assert target.read(temp().encode()).snapshot is None


# Lost GPUs -----------------------------------------------------------------------------------------------------------


def test_lost_with_the_drivers_reason(target: OwnTarget) -> None:
    target.told(temp(0), temp(1))
    (event,) = target.told(temp(0), lost(1))
    assert (event.kind, event.gpu_uuid, event.hostname) == ("gpu_lost", "GPU-1", "n1")
    assert event.detail == {"last_seen": (target.now - dt.timedelta(seconds=10)).isoformat(), "reason": "GPU is lost"}
    assert target.told(temp(0), lost(1)) == []
    (event,) = target.told(temp(0), temp(1))
    assert (event.kind, event.gpu_uuid) == ("gpu_returned", "GPU-1")


def test_lost_before_the_first_scrape_is_told_once(target: OwnTarget) -> None:
    (event,) = target.told(temp(0), lost(1))
    assert (event.kind, event.gpu_uuid) == ("gpu_lost", "GPU-1")
    assert event.detail == {"reason": "GPU is lost", "pci_bus_id": PCI.format(1), "index": 1}
    assert target.told(temp(0), lost(1)) == []
    target.restart()
    assert target.told(temp(0), lost(1)) == []
    target.now += dt.timedelta(hours=30)
    assert target.told(temp(0), lost(1)) == [], "as long as it is said, it is not forgotten"
    assert [e.kind for e in target.told(temp(0), temp(1))] == ["gpu_returned"]


def test_lost_without_uuid_is_known_by_its_address(target: OwnTarget) -> None:
    first, second = target.told(temp(0), lost(1, uuid=False), lost(2, uuid=False))
    assert (first.gpu_uuid, second.gpu_uuid) == (None, None)
    assert first.time != second.time, "the time is part of an event's identity"
    target.restart()
    assert target.told(temp(0), lost(1, uuid=False), lost(2)) == [], "the UUID became known: the same GPU"
    returned = target.told(temp(0), temp(1), lost(2))
    assert [(e.kind, e.gpu_uuid) for e in returned] == [("gpu_returned", "GPU-1")]


def test_a_lost_gpu_whose_uuid_a_restarted_exporter_does_not_know(target: OwnTarget) -> None:
    target.told(temp(0), temp(1))
    (event,) = target.told(temp(0), lost(1, uuid=False))
    assert (event.gpu_uuid, event.detail and event.detail["reason"]) == ("GPU-1", "GPU is lost")
    assert target.told(temp(0), lost(1, uuid=False)) == []


def test_the_only_gpu_is_lost(target: OwnTarget) -> None:
    """The exporter answers well: its target is up, and no GPU is in it."""
    target.told(temp(1))
    reading = target.read(body(lost(1)))
    assert ([e.kind for e in reading.happenings], reading.events) == (["gpu_lost"], [])
    assert target.told() == [], "up, and no GPU"
    assert [e.kind for e in target.told(temp(1))] == ["gpu_returned"]


def test_a_gpu_that_has_series_is_not_lost(target: OwnTarget) -> None:
    assert target.told(temp(1), lost(1), lost(1, uuid=False)) == []


def test_a_stale_reading_is_refused_and_loses_no_gpu(target: OwnTarget) -> None:
    target.told(temp(1))
    with pytest.raises(ScrapeRefused) as refused:
        target.read(body(lost(2), up=0))
    assert (refused.value.reason, refused.value.happenings) == ("stale", ())
    assert [e.kind for e in target.told(temp(1))] == []


# XIDs ----------------------------------------------------------------------------------------------------------------


def test_each_increase_is_an_event_at_its_own_time(target: OwnTarget) -> None:
    bench = Status(tag="bench")
    assert target.told(temp(), status=bench) == []
    when = target.now + dt.timedelta(seconds=4, milliseconds=123)
    (event,) = target.told(temp(), xid(79, 1, when), status=bench)
    assert (event.kind, event.code, event.gpu_uuid, event.hostname, event.time) == ("xid", 79, "GPU-0", "n1", when)
    assert event.status == bench
    assert event.detail is not None
    told = {"count": 1, "pid": 1234, "process": "python3", "origin": "nvml", "severity": "critical"}
    assert event.detail.items() >= told.items()
    assert {"meaning", "immediate", "investigatory"} <= event.detail.keys()
    assert target.told(temp(), xid(79, 1, when), status=bench) == []


def test_a_repeat_of_the_same_xid_is_seen(target: OwnTarget) -> None:
    target.told(temp(), xid(31, 1, BEFORE))
    when = target.now + dt.timedelta(seconds=8)
    (event,) = target.told(temp(), xid(31, 4, when))
    assert (event.time, event.detail and event.detail["count"]) == (when, 3)


def test_the_gauge_of_a_counted_xid_says_nothing_new(target: OwnTarget) -> None:
    def gauge(code: int) -> str:
        return f"DCGM_FI_DEV_XID_ERRORS{{{labels()}}} {code}\n"

    target.told(temp(), gauge(0))
    when = target.now + dt.timedelta(seconds=1)
    assert [e.code for e in target.told(temp(), gauge(79), xid(79, 1, when))] == [79]
    assert target.told(temp(), gauge(79), xid(79, 1, when)) == []
    assert [e.code for e in target.told(temp(), gauge(43), xid(79, 1, when))] == [43], "one that is not counted"


def test_at_first_sight_only_what_has_a_time_is_told(target: OwnTarget) -> None:
    """Its time is the event's identity: after a crash, the repeat is recognised."""
    old = NOW - dt.timedelta(days=20)
    ahead = NOW + dt.timedelta(hours=1)
    events = target.told(temp(), xid(31, 2, BEFORE), xid(43, 1, old), xid(48, 1, ahead), xid(63, 1, None))
    assert [(e.code, e.time) for e in events] == [(31, BEFORE)]


def test_an_implausible_time_does_not_lose_the_event(target: OwnTarget) -> None:
    target.told(temp())
    ahead = NOW + dt.timedelta(hours=1)
    events = target.told(temp(), xid(48, 1, ahead), xid(63, 1, None))
    assert [(e.code, e.time) for e in events] == [(48, target.now), (63, target.now)]
    assert events[0].detail is not None
    assert events[0].detail["told_time"] == ahead.isoformat()


def test_the_kernel_log_may_move_the_time_a_little(target: OwnTarget) -> None:
    target.told(temp(), xid(31, 1, BEFORE))
    assert target.told(temp(), xid(31, 1, BEFORE + dt.timedelta(seconds=2))) == []


def test_a_restart_of_the_exporter_loses_and_doubles_nothing(target: OwnTarget) -> None:
    target.told(temp(), xid(31, 5, BEFORE))
    target.reads = 0
    assert target.told(temp()) == [], "none since its start"
    when = target.now + dt.timedelta(seconds=9)
    (event,) = target.told(temp(), xid(31, 5, when))
    assert (event.time, event.detail and event.detail["count"]) == (when, 5), "as many as before, and all of them new"
    target.reads = 0
    later = target.now + dt.timedelta(seconds=9)
    (event,) = target.told(temp(), xid(31, 7, later))
    assert event.detail is not None
    assert event.detail["count"] == 7, "more than before, and all of them new"


def test_a_restarted_exporter_reads_the_kernel_log_again(target: OwnTarget) -> None:
    target.told(temp(), xid(31, 2, BEFORE))
    target.reads = 0
    assert target.told(temp(), xid(31, 1, BEFORE)) == []


def test_a_restart_that_nobody_saw(target: OwnTarget) -> None:
    """The collector was away for longer than the exporter's new run is old."""
    target.told(temp(), xid(31, 1, BEFORE))
    when = target.now + dt.timedelta(seconds=9)
    (event,) = target.told(temp(), xid(31, 1, when))
    assert event.time == when


def test_a_restart_of_the_collector_repeats_nothing_and_misses_nothing(target: OwnTarget) -> None:
    target.told(temp(), xid(31, 2, BEFORE))
    target.restart()
    assert target.told(temp(), xid(31, 2, BEFORE)) == []
    target.restart()
    when = target.now + dt.timedelta(seconds=3)
    events = target.told(temp(), xid(31, 3, when), xid(45, 1, None))
    assert [(e.code, e.detail and e.detail["count"]) for e in events] == [(31, 1), (45, 1)]


def test_xids_while_the_driver_hangs(target: OwnTarget) -> None:
    """GPU series are withdrawn then; why it hangs is told at once."""
    target.told(temp())
    when = target.now + dt.timedelta(seconds=2)
    with pytest.raises(ScrapeRefused) as refused:
        target.read(body(xid(119, 1, when), up=0, reads=111))
    assert [(e.code, e.gpu_uuid, e.time) for e in refused.value.happenings] == [(119, "GPU-0", when)]
    assert target.told(temp(), xid(119, 1, when)) == []


def test_an_xid_of_a_gpu_known_by_its_address_only(target: OwnTarget) -> None:
    target.told(temp(0))
    when = target.now + dt.timedelta(seconds=2)
    known, unknown = target.told(temp(0), xid(79, 1, when, uuid=False), xid(79, 1, when, gpu=7, uuid=False))
    assert (known.gpu_uuid, unknown.gpu_uuid) == ("GPU-0", None)
    assert unknown.detail is not None
    assert (unknown.hostname, unknown.detail["pci_bus_id"]) == ("n1", PCI.format(7))
    assert target.told(temp(0), temp(7), xid(79, 1, when), xid(79, 1, when, gpu=7)) == [], "with the UUID: the same"


HOSTILE = (
    f'gpumon_xid_errors_total{{{labels()},xid="seventy-nine"}} 1\n',
    f'gpumon_xid_errors_total{{{labels()},xid="99999999999999"}} 1\n',
    f"gpumon_xid_errors_total{{{labels()}}} 1\n",
    f'gpumon_xid_errors_total{{{labels()},xid="79"}} NaN\n',
    f'gpumon_xid_errors_total{{{labels()},xid="79"}} -3\n',
    f'gpumon_xid_errors_total{{{labels()},xid="79"}} 1e300\n',
    'gpumon_xid_errors_total{xid="79"} 1\n',
    f'gpumon_xid_last_timestamp_seconds{{{labels()},xid="79"}} 1e18\n',
    f'gpumon_gpu_lost{{{labels(1)},reason="r"}} 0\n',
    f"gpumon_gpu_info{{{labels(0, ',serial=' + chr(34) + 'x' * 2000 + chr(34))}}} 1\n",
    "gpumon_gpu_info 1\ngpumon_field_missing 1\n",
    "gpumon_snapshot_timestamp_seconds +Inf\n",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_odd_series_of_ours_hurt_no_sample(target: OwnTarget, text: str) -> None:
    target.read(body(temp()))
    reading = target.read((temp() + "gpumon_exporter_reads_total 200\n" + text).encode())
    assert (len(reading.events), reading.happenings) == (1, [])
    assert reading.events[0].extra is None


@pytest.mark.parametrize("saved", [{"lost": {"GPU-1": ["n1", "2026-01-01T00:00:00Z"]}}, {"hosts": {"GPU-1": "n1"}}])
def test_a_checkpoint_of_the_release_before(saved: dict[str, Any]) -> None:
    reader = TargetReader("n1:9400", {})
    reader.restore({"version": 1, "time": "2026-01-01T00:00:00Z", **saved})
    kinds = [(e.kind, e.gpu_uuid) for e in reader.read(body(temp(0), temp(1)), NOW).happenings]
    assert kinds == ([("gpu_returned", "GPU-1")] if "lost" in saved else [])
