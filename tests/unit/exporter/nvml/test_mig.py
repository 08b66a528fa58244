"""MIG instances as readings of their own."""

from __future__ import annotations

import pynvml
import pytest

from services.contract.sentinels import Missing
from services.exporter.reading import Lost
from tests.support.fake_nvml import FakeGpu, FakeInstance, FakeProcess
from tests.unit.exporter.nvml.boxes import FakeClock, hopper, opened

SMALL = {"fb_total": 4864.0, "fb_free": 4861.0, "fb_used": 3.0, "fb_reserved": 0.0}
LARGE = {"fb_total": 19968.0, "fb_free": 10000.0, "fb_used": 9960.0, "fb_reserved": 8.0}


def a100(*instances: FakeInstance) -> FakeGpu:
    gpu = hopper(name="NVIDIA A100-SXM4-40GB", gpm=False, instances=list(instances))
    gpu.errors["nvmlDeviceGetUtilizationRates"] = pynvml.NVML_ERROR_NOT_SUPPORTED
    return gpu


def test_instances_follow_their_gpu_by_id() -> None:
    gpu = a100(FakeInstance(13, "1g.5gb", SMALL), FakeInstance(2, "3g.20gb", LARGE))
    with opened(gpu, hopper(1)) as (_, source):
        readings = source.read().readings
    told = [(r.device.index, r.device.instance_id, r.device.instance_profile) for r in readings]
    assert told == [(0, None, None), (0, 2, "3g.20gb"), (0, 13, "1g.5gb"), (1, None, None)]
    assert {reading.device.uuid for reading in readings[:3]} == {"GPU-0"}
    assert readings[1].device.pci_bus_id == "00000000:01:00.0"
    assert readings[0].missing["gpu_util"] is Missing.UNSUPPORTED
    assert readings[1].values == LARGE
    assert readings[2].values == SMALL
    assert readings[2].missing["gpu_util"] is readings[2].missing["sm_active"] is Missing.UNSUPPORTED
    assert "gpu_temp" not in readings[2].missing  # the GPU's, not the instance's


@pytest.mark.parametrize("named", [True, False], ids=["by name", "by attributes"])
@pytest.mark.parametrize(
    ("profile", "total"), [("1g.5gb", 4864), ("2g.10gb", 9856), ("3g.20gb", 19968), ("7g.80gb", 81050)]
)
def test_the_profile(profile: str, total: int, named: bool) -> None:
    with opened(a100(FakeInstance(1, profile, {**SMALL, "fb_total": total}, named=named))) as (_, source):
        assert source.read().readings[1].device.instance_profile == profile


def test_a_profile_with_media_engines_keeps_its_name() -> None:
    with opened(a100(FakeInstance(1, "1g.5gb+me", SMALL))) as (_, source):
        assert source.read().readings[1].device.instance_profile == "1g.5gb+me"


def test_compute_instances_share_a_row() -> None:
    with opened(a100(FakeInstance(2, "3g.20gb", LARGE, compute_instances=2))) as (_, source):
        readings = source.read().readings
    assert [(r.device.instance_id, r.device.instance_profile) for r in readings[1:]] == [(2, "3g.20gb")]
    assert readings[1].values == LARGE


def test_instances_are_made_and_destroyed_while_it_runs() -> None:
    gpu = a100()
    assert gpu.instances is not None
    with opened(gpu) as (_, source):
        assert len(source.read().readings) == 1
        gpu.instances.append(FakeInstance(13, "1g.5gb", SMALL))
        assert len(source.read().readings) == 2
        gpu.instances[0] = FakeInstance(13, "2g.10gb", LARGE)  # same id, other profile
        assert source.read().readings[1].device.instance_profile == "2g.10gb"
        gpu.instances.clear()
        assert len(source.read().readings) == 1


def test_an_old_library_has_no_reserved_memory() -> None:
    with opened(a100(FakeInstance(1, "1g.5gb", SMALL))) as (fake, source):
        fake.absent.add("nvmlDeviceGetMemoryInfo_v2")
        reading = source.read().readings[1]
    assert reading.values == {"fb_total": 4864, "fb_free": 4861, "fb_used": 3}
    assert reading.missing["fb_reserved"] is Missing.UNSUPPORTED


def test_a_lost_gpu_takes_its_instances_along() -> None:
    gpu = a100(FakeInstance(1, "1g.5gb", SMALL))
    with opened(gpu, hopper(1)) as (_, source):
        source.read()
        gpu.lost = True
        sweep = source.read()
    assert [reading.device.index for reading in sweep.readings] == [1]
    assert sweep.lost == (Lost("GPU is lost", "GPU-0", 0, "00000000:01:00.0", "NVIDIA A100-SXM4-40GB"),)


def test_profiling_by_instance() -> None:
    clock = FakeClock()
    gpu = a100(FakeInstance(1, "1g.5gb", {**SMALL, "sm_active": 0.25}), FakeInstance(2, "1g.5gb", dict(SMALL)))
    gpu.gpm = True
    gpu.values["sm_active"] = 0.125
    with opened(gpu, clock=clock) as (fake, source):
        assert "sm_active" not in source.read().readings[1].values
        clock.now += 1
        whole, one, two = source.read().readings
        assert (whole.values["sm_active"], one.values["sm_active"]) == (0.125, 0.25)
        assert two.missing["sm_active"] is Missing.UNSUPPORTED
        assert fake.samples == 3 * 2
        assert gpu.instances is not None
        gpu.instances.clear()
        source.read()
        assert fake.samples == 2


def test_processes_belong_to_their_instance() -> None:
    gpu = a100(FakeInstance(1, "1g.5gb", SMALL), FakeInstance(2, "3g.20gb", LARGE, compute_instances=2))
    gpu.processes = [FakeProcess(10, 100, instance=1), FakeProcess(20, 200, instance=2)]
    with opened(gpu, processes=True) as (_, source):
        whole, one, two = source.read().readings
    assert whole.processes == ()
    assert [process.pid for process in one.processes or ()] == [10]
    assert [(process.pid, process.used_memory) for process in two.processes or ()] == [(20, 200)]
