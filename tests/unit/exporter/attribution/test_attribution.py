"""Labels of whoever holds a GPU: device ids of all kinds, shared GPUs, MIG, jobs, and lookups that fail."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytest

from services.exporter.attribution.attributor import KEEP, MOST, UNKNOWN, Attributor, open_attributor
from services.exporter.attribution.hpc_jobs import Jobs
from services.exporter.attribution.mig_owner import Owner
from services.exporter.reading import Device
from services.settings import load
from tests.unit.exporter.xid.clocks import HandClock

UUID = "GPU-509665ad-b600-ac93-3616-d754b23d636d"
GPU = Device(uuid=UUID, index=4, pci_bus_id="00000000:9B:00.0", model="NVIDIA H100")
MIG = Device(UUID, 4, "00000000:9B:00.0", "NVIDIA H100", instance_id=3, instance_profile="1g.10gb")
OTHER = Device("GPU-other", 0, "00000000:1B:00.0", "NVIDIA H100")


@dataclass
class Held:
    """As the kubelet tells it."""

    device_id: str
    pod: str = "train-0"
    namespace: str = "ml"
    container: str = "main"
    resource: str = "nvidia.com/gpu"


def labels(pod: str = "train-0") -> dict[str, str]:
    return {"pod": pod, "namespace": "ml", "container": "main"}


def mig_of(uuid: str) -> Owner | None:
    return (UUID, 3) if uuid == "MIG-5c89852c-d268-c3f3-1b07-005d5ae1dc3f" else None


def attributor(*held: Held, jobs: Callable[[], Jobs] | None = None) -> Attributor:
    made = Attributor(pods=lambda: held, jobs=jobs, owner_of_mig=mig_of, clock=HandClock())
    made.poll()
    return made


def test_nothing_is_known_before_the_first_poll() -> None:
    assert Attributor(pods=lambda: [Held(UUID)]).labels(GPU) == []


@pytest.mark.parametrize("device_id", [UUID, f"{UUID}::0", "nvidia4", "nvidia4/vgpu1"])
@pytest.mark.parametrize("resource", ["nvidia.com/gpu", "nvidia.com/gpu.shared"])
def test_a_whole_gpu_by_all_its_names(device_id: str, resource: str) -> None:
    made = attributor(Held(device_id, resource=resource))
    assert made.labels(GPU) == [labels()]
    assert made.labels(OTHER) == []
    assert made.labels(MIG) == []


@pytest.mark.parametrize(
    "device_id",
    ["MIG-5c89852c-d268-c3f3-1b07-005d5ae1dc3f", "MIG-5c89852c-d268-c3f3-1b07-005d5ae1dc3f::2", "nvidia4/gi3"],
)
def test_a_mig_device_belongs_to_its_instance_and_not_to_the_gpu(device_id: str) -> None:
    made = attributor(Held(device_id, resource="nvidia.com/mig-1g.10gb"))
    assert made.labels(MIG) == [labels()]
    assert made.labels(GPU) == []


def test_a_mig_device_nobody_knows_is_left_out() -> None:
    assert attributor(Held("MIG-00000000-0000-0000-0000-000000000000")).labels(MIG) == []


def test_a_mig_uuid_is_looked_up_once() -> None:
    asked = []

    def owner(uuid: str) -> Owner | None:
        asked.append(uuid)
        return mig_of(uuid)

    held = Held("MIG-5c89852c-d268-c3f3-1b07-005d5ae1dc3f")
    made = Attributor(pods=lambda: [held], owner_of_mig=owner)
    made.poll()
    made.poll()
    assert len(asked) == 1
    assert made.labels(MIG) == [labels()]


def test_a_shared_gpu_has_all_its_pods_each_once() -> None:
    made = attributor(Held(f"{UUID}::0"), Held(f"{UUID}::1"), Held(f"{UUID}::2", pod="train-1"))
    assert made.labels(GPU) == [labels(), labels("train-1")]


def test_devices_of_others_are_not_ours() -> None:
    assert (
        attributor(Held(UUID, resource="amd.com/gpu"), Held("0000:9b:00.0", resource="nvidia.com/GA102")).labels(GPU)
        == []
    )


def test_jobs_by_gpu_and_by_instance() -> None:
    made = attributor(jobs=lambda: Jobs({(4, None): ("17", "18"), (4, 3): ("19",)}, ()))
    assert made.labels(GPU) == [{"hpc_job": "17"}, {"hpc_job": "18"}]
    assert made.labels(MIG) == [{"hpc_job": "19"}]
    assert made.labels(OTHER) == []


def test_pods_and_jobs_together() -> None:
    made = attributor(Held(UUID), Held(UUID, pod="train-1"), jobs=lambda: Jobs({(4, None): ("17",)}, ()))
    assert made.labels(GPU) == [labels() | {"hpc_job": "17"}, labels("train-1") | {"hpc_job": "17"}]


class Kubelet:
    """Answers, or fails, as the test says."""

    def __init__(self) -> None:
        self.problem: Exception | None = None

    def __call__(self) -> Iterable[Held]:
        if self.problem is not None:
            raise self.problem
        return [Held(UUID)]


def test_a_failure_is_counted_logged_once_and_outlived_for_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    kubelet, clock = Kubelet(), HandClock()
    made = Attributor(pods=kubelet, clock=clock)
    made.poll()
    kubelet.problem = OSError("the kubelet did not answer")
    clock.advance(KEEP)
    made.poll()
    made.poll()
    assert made.labels(GPU) == [labels()]
    assert made.failures == {"kubernetes": 2}
    assert [r.getMessage() for r in caplog.records] == ["kubernetes labels are missing: the kubelet did not answer"]
    clock.advance(0.1)
    assert made.labels(GPU) == []  # the pod may long be gone
    kubelet.problem = None
    made.poll()
    assert made.labels(GPU) == [labels()]
    assert caplog.records[-1].getMessage() == "kubernetes labels are back"


def test_an_unreadable_job_file_costs_its_own_labels_only(caplog: pytest.LogCaptureFixture) -> None:
    made = attributor(jobs=lambda: Jobs({(4, None): ("17",)}, ("/jobs/0: Permission denied",)))
    assert made.labels(GPU) == [{"hpc_job": "17"}]
    assert made.failures == {"kubernetes": 0, "hpc": 1}
    assert "/jobs/0: Permission denied" in caplog.text


def test_a_failing_kubelet_does_not_cost_the_jobs() -> None:
    def failing() -> Iterable[Held]:
        raise RuntimeError("anything")

    made = Attributor(pods=failing, jobs=lambda: Jobs({(4, None): ("17",)}, ()))
    made.poll()
    assert made.labels(GPU) == [{"hpc_job": "17"}]
    assert made.failures == {"kubernetes": 1, "hpc": 0}


def test_start_waits_for_the_first_answer() -> None:
    made = Attributor(pods=lambda: [Held(UUID)])
    made.start()
    assert made.labels(GPU) == [labels()]
    made.stop()


def test_opened_as_the_settings_say(tmp_path: object) -> None:
    assert open_attributor(load(), 1.0) is None
    both = open_attributor(load(exporter_kubernetes=True, hpc_job_mapping_dir=tmp_path), 1.0)
    assert both is not None
    assert both.failures == {"kubernetes": 0, "hpc": 0}
    jobs = open_attributor(load(hpc_job_mapping_dir=tmp_path), 1.0)
    assert jobs is not None
    assert jobs.failures == {"hpc": 0}


def test_a_gpu_with_more_holders_than_can_be_is_told_with_none(caplog: pytest.LogCaptureFixture) -> None:
    crowd = [Held(UUID, pod=f"pod-{number}") for number in range(MOST + 1)]
    made = attributor(*crowd, Held("GPU-other"))
    assert made.labels(GPU) == []
    assert made.labels(OTHER) == [labels()]
    assert made.failures == {"kubernetes": 1}
    assert f"more than {MOST} containers on one GPU: {UUID}" in caplog.text
    assert len(attributor(*crowd[:MOST]).labels(GPU)) == MOST


def test_unknown_mig_devices_are_asked_for_up_to_a_number() -> None:
    asked: list[str] = []

    def unknown(uuid: str) -> Owner | None:
        asked.append(uuid)
        return None

    held = [Held(f"MIG-{number % 1000}") for number in range(3000)]
    made = Attributor(pods=lambda: held, owner_of_mig=unknown, clock=HandClock())
    made.poll()
    assert len(asked) == UNKNOWN
    made.poll()
    assert len(asked) == 2 * UNKNOWN
