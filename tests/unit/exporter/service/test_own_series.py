"""Series of the exporter itself, of lost GPUs and of XIDs."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from services.contract.sentinels import Missing
from services.exporter import self_metrics
from services.exporter.counters_file import CLOCK_COUNT, XID_COUNT
from services.exporter.own_series import FAMILIES
from services.exporter.reading import Lost, SourceError, Trouble
from services.exporter.sampler import Sampler
from services.exporter.windows import Windows
from services.exporter.xid.ledger import Origin, Xid, XidLedger
from services.exporter.xid.series import XidSeries
from tests.unit.exporter.service.doubles import START, UUIDS, FakeClock, ScriptedSource, device, reading, sweep

P40 = device()
IDENTITY = (
    'gpu="0",UUID="GPU-00000000-0000-0000-0000-000000000000",pci_bus_id="00000000:03:00.0",device="nvidia0",'
    'modelName="Tesla P40",Hostname="dock"'
)


def samples(text: str) -> dict[str, str]:
    """Series -> value text; also checks that a parser that is not ours takes the text."""
    list(text_string_to_metric_families(text))
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def test_of_a_fresh_reading() -> None:
    clock = FakeClock()
    source = ScriptedSource([sweep(reading(0), lost=(Lost("GPU is lost", UUIDS[1], 1, "00000000:04:00.0"),))])
    sampler = Sampler(lambda: source, lambda _: None, clock=clock)
    sampler.step()
    clock.now = 0.25
    found = samples(self_metrics.render(sampler.status(), "dock"))
    lost = (
        'gpumon_gpu_lost{gpu="1",UUID="GPU-11111111-1111-1111-1111-111111111111",pci_bus_id="00000000:04:00.0",'
        'Hostname="dock",reason="GPU is lost"}'
    )
    assert (
        found.items()
        >= {
            lost: "1",
            "gpumon_exporter_up": "1",
            "gpumon_exporter_reading_age_seconds": "0.250",
            "gpumon_exporter_reading_timestamp_seconds": f"{START:.3f}",
            "gpumon_exporter_read_duration_seconds": "0.000000",
            "gpumon_exporter_reads_total": "1",
            'gpumon_exporter_read_failures_total{trouble="hung"}': "0",
            "gpumon_exporter_gpus": "1",
            "gpumon_exporter_gpus_lost": "1",
        }.items()
    )
    assert int(found["process_resident_memory_bytes"]) > 1_000_000


def test_without_a_reading_nothing_is_claimed() -> None:
    source = ScriptedSource([SourceError(Trouble.PERMISSION, "no access to /dev/nvidiactl")])
    sampler = Sampler(lambda: source, lambda _: None, clock=FakeClock())
    sampler.step()
    found = samples(self_metrics.render(sampler.status(), None))
    assert found["gpumon_exporter_up"] == "0"
    assert found['gpumon_exporter_read_failures_total{trouble="permission"}'] == "1"
    for name in ("reading_age_seconds", "reading_timestamp_seconds", "read_duration_seconds", "gpus"):
        assert f"gpumon_exporter_{name}" not in found


def test_attribution_failures_where_somebody_is_asked() -> None:
    assert self_metrics.attribution({}) == ""
    name = 'gpumon_exporter_attribution_failures_total{source="kubernetes"}'
    assert samples(self_metrics.attribution({"kubernetes": 3})) == {name: "3"}


def xid(code: int, time: float = START, **fields: object) -> Xid:
    return Xid(time, P40.pci_bus_id, code, Origin.KMSG, **fields)  # type: ignore[arg-type]  # fields of a dataclass


def test_xids_are_counted_events_with_their_last_occurrence() -> None:
    ledger = XidLedger(FakeClock())
    for happened in (xid(79), xid(31, START + 9), xid(31, START + 10.5, pid=77, process='py "x"')):
        ledger.record(happened)
    assert samples(XidSeries(ledger).render([P40], "dock")) == {
        f'gpumon_xid_errors_total{{{IDENTITY},xid="31"}}': "2",
        f'gpumon_xid_errors_total{{{IDENTITY},xid="79"}}': "1",
        f'gpumon_xid_last_timestamp_seconds{{{IDENTITY},xid="31",pid="77",process="py \\"x\\"",origin="kmsg"}}': (
            f"{START + 10.5:.3f}"
        ),
        f'gpumon_xid_last_timestamp_seconds{{{IDENTITY},xid="79",origin="kmsg"}}': f"{START:.3f}",
    }


def test_xids_of_a_gpu_that_could_never_be_read() -> None:
    ledger = XidLedger(FakeClock())
    ledger.record(xid(79))
    text = XidSeries(ledger).render([device(1)], "dock")
    assert 'gpumon_xid_errors_total{pci_bus_id="00000000:03:00.0",Hostname="dock",xid="79"} 1\n' in text


def test_last_value_gauge_is_zero_only_where_somebody_listens() -> None:
    ledger = XidLedger(FakeClock())
    read = sweep(reading(missing={"xid_errors": Missing.UNSUPPORTED}))
    deaf, hearing = XidSeries(ledger), XidSeries(ledger, watched=lambda address: address == P40.pci_bus_id)
    assert deaf.completed(read) == read
    done = hearing.completed(read).readings[0]
    assert done.values["xid_errors"] == 0
    assert "xid_errors" not in done.missing
    ledger.record(xid(79))
    ledger.record(xid(31))
    assert hearing.completed(read).readings[0].values["xid_errors"] == 31
    told = sweep(reading(values={"xid_errors": 48}))
    assert hearing.completed(told) == told, "what a source says itself stands"


def test_counts_within_the_window() -> None:
    clock = FakeClock()
    ledger = XidLedger(clock)
    windows = Windows(XidSeries(ledger))
    ledger.record(xid(79))
    for age, bits in ((0, 0x1), (100, 0x20 | 0x4), (299, 0x4)):
        windows.observe(sweep(reading(values={"clocks_event_reasons": bits}), time=START + age))
    window = ("window_size_in_ms", "300000")
    assert windows.samples(XID_COUNT, P40) == [([window, ("xid", "79")], 1)]
    assert windows.samples(CLOCK_COUNT, P40) == [
        ([("clock_event", "gpu_idle"), window], 1),
        ([("clock_event", "power_cap"), window], 2),
        ([("clock_event", "sw_thermal"), window], 1),
    ]
    clock.now = 301.0
    windows.observe(sweep(reading(values={"clocks_event_reasons": 0}), time=START + 301))
    assert windows.samples(XID_COUNT, P40) == []
    assert [labels[0][1] for labels, _ in windows.samples(CLOCK_COUNT, P40)] == ["power_cap", "sw_thermal"]


def test_the_documentation_lists_them_all() -> None:
    text = (Path(__file__).parents[4] / "docs" / "exporter.md").read_text()
    listed = set(re.findall(r"^\| `((?:gpumon|process)_[a-z_]+)", text, re.MULTILINE))
    assert listed == set(FAMILIES)
