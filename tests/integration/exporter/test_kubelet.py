"""Pods of a real gRPC server on a Unix socket: one that answers, hangs, restarts, is absent, is too old."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from services.exporter.attribution.attributor import Attributor, open_attributor
from services.exporter.attribution.pod_resources import MESSAGES, Holder, PodResources, PodResourcesError
from services.exporter.reading import Device
from services.settings import load
from tests.support.kubelet import Kubelet

UUID = "GPU-509665ad-b600-ac93-3616-d754b23d636d"
GPU = Device(uuid=UUID, index=0, pci_bus_id="00000000:9B:00.0", model="NVIDIA H100")
TRAIN = Holder("train-0", "ml", "main", "nvidia.com/gpu", UUID)
LABELS = {"pod": "train-0", "namespace": "ml", "container": "main"}
LIMIT = 15.0
"""Seconds until a test gives up waiting."""


@pytest.fixture
def socket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("k") / "kubelet.sock"  # short: a socket's path has at most 107 bytes


@pytest.fixture
def kubelet(socket: Path) -> Iterator[Kubelet]:
    with Kubelet(socket, [TRAIN]) as server:
        yield server


def client(kubelet: Kubelet, timeout: float = 5.0) -> PodResources:
    return PodResources(kubelet.socket, timeout)


def test_lists_every_device_of_every_container(kubelet: Kubelet) -> None:
    kubelet.holders += [
        Holder("share-0", "ml", "a", "nvidia.com/gpu", f"{UUID}::0"),
        Holder("mig-0", "ml", "b", "nvidia.com/mig-1g.10gb", "MIG-5c89852c-d268-c3f3-1b07-005d5ae1dc3f"),
    ]
    pods = client(kubelet)
    assert pods.list() == tuple(kubelet.holders)
    pods.close()


def test_a_node_without_gpu_pods_is_an_empty_answer(kubelet: Kubelet) -> None:
    kubelet.holders.clear()
    pods = client(kubelet)
    assert pods.list() == ()
    pods.close()


def test_thousands_of_pods_are_more_than_grpcs_default_limit(kubelet: Kubelet) -> None:
    kubelet.holders = [Holder("p" * 250, "n" * 60, f"c{i}", "nvidia.com/gpu", UUID) for i in range(15_000)]
    pods = client(kubelet, timeout=60)
    assert len(pods.list()) == 15_000
    pods.close()


def test_fields_of_newer_kubelets_are_skipped() -> None:
    container = MESSAGES["ContainerResources"](name="main")
    container.devices.add(resource_name="nvidia.com/gpu", device_ids=[UUID])
    raw = container.SerializeToString() + bytes([0x1A, 0x02, 0x01, 0x02])  # field 3, cpu_ids: packed 1 and 2
    raw += bytes([0x2A, 0x02, 0x0A, 0x00])  # field 5, dynamic_resources
    assert MESSAGES["ContainerResources"].FromString(raw).devices[0].device_ids == [UUID]


def test_no_socket_is_said(socket: Path) -> None:
    with pytest.raises(
        PodResourcesError, match=r"no such socket; is a kubelet running here, and its directory mounted"
    ):
        PodResources(socket).list()


def test_a_socket_nobody_listens_on_is_said(kubelet: Kubelet) -> None:
    kubelet.stop()
    kubelet.socket.touch()
    with pytest.raises(PodResourcesError, match="unavailable"):
        client(kubelet).list()


def test_a_kubelet_that_hangs_costs_no_more_than_the_limit(kubelet: Kubelet) -> None:
    kubelet.hang()
    before = time.monotonic()
    pods = client(kubelet, timeout=0.3)
    with pytest.raises(PodResourcesError, match=r"the kubelet did not answer within 0.3 s"):
        pods.list()
    assert time.monotonic() - before < 3
    kubelet.wake()
    pods.close()


def test_a_kubelet_without_the_api_is_said(kubelet: Kubelet) -> None:
    kubelet.refuses = grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(PodResourcesError, match=r"no pod-resources API v1"):
        client(kubelet).list()


def test_a_kubelet_that_restarts_is_asked_at_once(kubelet: Kubelet) -> None:
    pods = client(kubelet)
    assert pods.list() == (TRAIN,)
    kubelet.stop()
    kubelet.socket.touch()  # one that was killed leaves its socket behind
    for _ in range(5):  # gRPC would wait longer after each
        with pytest.raises(PodResourcesError):
            pods.list()
    kubelet.start()
    assert pods.list() == (TRAIN,)
    pods.close()


def until(attributor: Attributor, expected: list[dict[str, str]]) -> None:
    end = time.monotonic() + LIMIT
    while attributor.labels(GPU) != expected:
        assert time.monotonic() < end, attributor.labels(GPU)
        time.sleep(0.01)


def test_labels_follow_the_pods(kubelet: Kubelet) -> None:
    attributor = open_attributor(load(exporter_kubernetes=True, kubelet_socket=kubelet.socket), 0.05)
    assert attributor is not None
    attributor.start()
    assert attributor.labels(GPU) == [LABELS]
    kubelet.holders = [Holder("share-0", "ml", "a", "nvidia.com/gpu", f"{UUID}::{i}") for i in range(2)]
    kubelet.holders.append(Holder("share-1", "ml", "a", "nvidia.com/gpu", f"{UUID}::2"))
    shared = [{"pod": f"share-{i}", "namespace": "ml", "container": "a"} for i in range(2)]
    until(attributor, shared)
    kubelet.holders.clear()
    until(attributor, [])
    attributor.stop()


def test_a_kubelet_that_hangs_holds_up_nobody(kubelet: Kubelet) -> None:
    kubelet.hang()
    attributor = open_attributor(load(exporter_kubernetes=True, kubelet_socket=kubelet.socket), 0.05)
    assert attributor is not None
    attributor.start()  # gives up waiting for the first answer
    before = time.monotonic()
    assert attributor.labels(GPU) == []
    assert time.monotonic() - before < 0.1
    kubelet.wake()
    until(attributor, [LABELS])
    assert attributor.failures["kubernetes"] >= 1
    attributor.stop()
