"""The simulator behind the port of a source."""

from __future__ import annotations

import pytest

from mock_dcgm.faults import FaultSpec, Kind
from mock_dcgm.fleet import FleetError, FleetSpec, GpuSpec, HostSpec, build
from services.contract.catalogue import BY_COLUMN, METRICS
from services.contract.sentinels import Missing
from services.exporter.mock_source import MockSource, fleet
from services.exporter.reading import Source
from tests.unit.exporter.service.doubles import FakeClock


def test_it_is_a_source() -> None:
    source: Source = MockSource(fleet("dock", (("A100", 8),)), FakeClock())
    sweep = source.read()
    source.close()
    assert (source.name, sweep.source) == ("mock", "mock")
    assert [r.device.index for r in sweep.readings] == list(range(8))


def test_every_metric_has_a_value_or_a_reason() -> None:
    sweep = MockSource(fleet("dock", (("P40", 1), ("H100", 1))), FakeClock()).read()
    for reading in sweep.readings:
        assert reading.values.keys() | reading.missing.keys() == {m.column for m in METRICS}
        assert not reading.values.keys() & reading.missing.keys()
        assert set(reading.missing.values()) <= {Missing.UNSUPPORTED}
        for column, value in reading.values.items():
            metric = BY_COLUMN[column]
            assert metric.low <= value <= metric.high, column
            assert isinstance(value, int if metric.sql.is_integer else float), column
    p40 = sweep.readings[0]
    assert {"memory_temp", "fan_speed", "sm_active"} <= p40.missing.keys()


def test_the_wall_clock_moves_it_on() -> None:
    clock = FakeClock()
    source = MockSource(fleet("dock", (("H100", 1),)), clock)
    before = source.read().readings[0].values["total_energy_consumption"]
    assert source.read().readings[0].values["total_energy_consumption"] == before, "no time, no energy"
    clock.now = 60.0
    assert source.read().readings[0].values["total_energy_consumption"] > before + 60 * 50_000


def test_instances_lack_utilisation() -> None:
    boards = (GpuSpec("A100", mig=("1g.10gb",)),)
    sweep = MockSource(build(FleetSpec((HostSpec("dock", boards),))), FakeClock()).read()
    whole, instance = sweep.readings
    assert (instance.device.instance_id, instance.device.instance_profile) == (7, "1g.10gb")
    assert whole.device.uuid == instance.device.uuid
    assert whole.missing["gpu_util"] is instance.missing["gpu_util"] is Missing.UNSUPPORTED
    assert "fb_used" in instance.values


def test_a_gpu_off_the_bus_is_lost() -> None:
    clock = FakeClock()
    source = MockSource(fleet("dock", (("H100", 2),)), clock)
    gone = source.read().readings[1].device
    source.simulator.faults.add(FaultSpec(kind=Kind.GPU_LOST, gpu=1), source.simulator.elapsed)
    clock.now = 2.0
    sweep = source.read()
    assert [reading.device.index for reading in sweep.readings] == [0]
    assert [(lost.uuid, lost.reason) for lost in sweep.lost] == [(gone.uuid, "GPU is lost")]


def uuids(host: str, *gpus: tuple[str, int]) -> list[str]:
    return [gpu.uuid for gpu in fleet(host, gpus).gpus]


def test_another_model_in_the_same_place_is_another_gpu() -> None:
    p40, a100 = uuids("dock", ("P40", 2)), uuids("dock", ("A100", 2))
    assert len({*p40, *a100, *uuids("attic", ("P40", 2))}) == 6
    assert uuids("dock", ("P40", 1), ("A100", 1)) == [p40[0], a100[1]], "the same board in the same place stays itself"


def test_unknown_boards_are_refused() -> None:
    with pytest.raises(FleetError, match="unknown model 'X1'"):
        fleet("dock", (("X1", 1),))
