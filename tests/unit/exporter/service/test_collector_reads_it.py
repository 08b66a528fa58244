"""This project's collector takes what this project's exporter serves, whole."""

from __future__ import annotations

import datetime as dt

import pytest

from mock_dcgm.fleet import FleetSpec, GpuSpec, HostSpec, build
from services.collector.reader import TargetReader
from services.collector.values import Sort, topic
from services.contract.catalogue import SAMPLED
from services.exporter import self_metrics
from services.exporter.counters_file import everything
from services.exporter.mock_source import MockSource
from services.exporter.reading import Sweep
from services.exporter.render import Renderer
from services.exporter.sampler import Sampler
from services.exporter.xid.ledger import Origin, Xid, XidLedger
from services.exporter.xid.series import XidSeries
from tests.unit.exporter.service.doubles import FakeClock

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
BOARDS = (GpuSpec("A100", mig=("3g.40gb", "1g.10gb")), GpuSpec("H100"), GpuSpec("P40"))
FLEET = build(FleetSpec((HostSpec("dock", BOARDS),)))


@pytest.fixture(scope="module")
def body() -> tuple[str, Sweep]:
    """A whole answer, XIDs and the second name space included, and the sweep it says."""
    clock = FakeClock()
    clock.now = 100.0
    sweeps: list[Sweep] = []
    renderer = Renderer(everything(), "dock", attributes=lambda _: [{"pod": "p", "namespace": "n"}], prefix="entrenar")
    source = MockSource(FLEET, clock)
    sampler = Sampler(lambda: source, sweeps.append, clock=clock)
    sampler.step()
    ledger = XidLedger(clock)
    ledger.record(Xid(clock.time(), FLEET.gpus[0].pci_bus_id, 31, Origin.NVML, process="python3", pid=7))
    status = sampler.status()
    tail = XidSeries(ledger).render(status.devices, "dock") + self_metrics.render(status, "dock")
    return renderer.render(sweeps[0]) + tail, sweeps[0]


def test_every_value_arrives(body: tuple[str, Sweep]) -> None:
    text, sweep = body
    reading = TargetReader("dock:9400", {}).read(text.encode(), NOW)
    assert len(reading.events) == len(sweep.readings) == 5
    sampled = {metric.column for metric in SAMPLED}
    events = {(event.gpu.uuid, event.gpu.instance_id): event for event in reading.events}
    for said in sweep.readings:
        device = said.device
        event = events[device.uuid, device.instance_id]
        assert (event.gpu.index, event.gpu.model, event.gpu.hostname) == (device.index, device.model, "dock")
        assert event.gpu.pci_bus_id == device.pci_bus_id
        assert event.gpu.driver_version == device.labels["DCGM_FI_DRIVER_VERSION"]
        assert event.tenant is not None
        assert event.tenant.pod == "p"
        for column in sampled:
            assert getattr(event.metrics, column) == said.values.get(column), column


def test_nothing_in_it_is_unknown(body: tuple[str, Sweep]) -> None:
    text, _ = body
    names = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    assert not [name for name in names if topic(name).sort is Sort.UNKNOWN]
    reading = TargetReader("dock:9400", {}).read(text.encode(), NOW)
    assert [event.extra for event in reading.events] == [None] * 5
