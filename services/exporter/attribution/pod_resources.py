"""The kubelet's pod-resources API: which container holds which GPU.

`PodResources(socket).list()` asks once, with a time limit. The messages are described here instead of generated: four
of the API's, with the fields we read; protobuf skips the others, of newer kubelets as well.
Names and numbers from Kubernetes, k8s.io/kubelet/pkg/apis/podresources/v1/api.proto, service v1.PodResourcesLister.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

METHOD: Final = "/v1.PodResourcesLister/List"
TIMEOUT: Final = 2.0
"""Seconds. A healthy kubelet answers in milliseconds; attribution is not worth a longer wait."""
MAX_ANSWER: Final = 16 * 1024 * 1024
"""Bytes; the kubelet's own limit of an answer."""
MAX_HOLDERS: Final = 20_000
"""Devices in containers. A node has 110 pods by default, and of other devices (RDMA, FUSE) each may have many."""
MAX_NAME: Final = 256
"""Characters of each name; Kubernetes allows 253."""

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_ANSWER),
    # A path as :authority is refused by servers in Go.
    ("grpc.default_authority", "localhost"),
    # Channels share connections, and with them the growing pause after a failure: a new channel shall connect at once.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
_FIELDS: Final[dict[str, tuple[tuple[str, int, str | None, bool], ...]]] = {
    "ListPodResourcesRequest": (),
    "ContainerDevices": (("resource_name", 1, None, False), ("device_ids", 2, None, True)),
    "ContainerResources": (("name", 1, None, False), ("devices", 2, "ContainerDevices", True)),
    "PodResources": (
        ("name", 1, None, False),
        ("namespace", 2, None, False),
        ("containers", 3, "ContainerResources", True),
    ),
    "ListPodResourcesResponse": (("pod_resources", 1, "PodResources", True),),
}
"""Message -> fields: name, number, message type (None: string), repeated."""


class PodResourcesError(Exception):
    """The kubelet did not say; the message says why, and what to do where something can be done."""


@dataclass(frozen=True, slots=True)
class Holder:
    """One device in one container."""

    pod: str
    namespace: str
    container: str
    resource: str
    """`nvidia.com/gpu`, `nvidia.com/mig-1g.5gb`, ..."""
    device_id: str
    """As the device plugin names it: `GPU-...`, `MIG-...`, `nvidia0`, with `::0` where GPUs are shared by time."""


def _messages() -> dict[str, Any]:
    """Message classes by name, in a pool of their own: a program that has the real ones is not disturbed."""
    file = descriptor_pb2.FileDescriptorProto(name="podresources.proto", package="v1", syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            added = message.field.add(name=field, number=number)
            added.label = added.LABEL_REPEATED if repeated else added.LABEL_OPTIONAL
            added.type = added.TYPE_STRING if kind is None else added.TYPE_MESSAGE
            if kind is not None:
                added.type_name = f".v1.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"v1.{name}")) for name in _FIELDS}


MESSAGES: Final = _messages()
"""Message classes of the API by name (also for a server in a test)."""


class PodResources:
    """Client of one kubelet. Used from one thread."""

    def __init__(self, socket: Path, timeout: float = TIMEOUT) -> None:
        self._socket = socket
        self._timeout = timeout
        self._channel: grpc.Channel | None = None

    def list(self) -> tuple[Holder, ...]:
        """Every device of every container on this node. Raises PodResourcesError, within the time limit."""
        if not self._socket.exists():
            raise PodResourcesError(
                f"{self._socket}: no such socket; is a kubelet running here, and its directory mounted?"
            )
        try:
            answer = self._call()(MESSAGES["ListPodResourcesRequest"](), timeout=self._timeout)
        except grpc.RpcError as error:
            self.close()  # a restarted kubelet listens on a new socket: connect anew, without gRPC's back-off
            raise PodResourcesError(f"{self._socket}: {_explain(error, self._timeout)}") from None
        holders = tuple(islice(_holders(answer), MAX_HOLDERS + 1))
        if len(holders) > MAX_HOLDERS:
            raise PodResourcesError(f"{self._socket}: more than {MAX_HOLDERS} devices: no kubelet has them")
        if any(map(_too_long, holders)):
            raise PodResourcesError(f"{self._socket}: a name of more than {MAX_NAME} characters: no kubelet has one")
        return holders

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _call(self) -> Any:
        if self._channel is None:
            self._channel = grpc.insecure_channel(f"unix:{self._socket.absolute()}", options=_OPTIONS)
        return self._channel.unary_unary(
            METHOD,
            request_serializer=MESSAGES["ListPodResourcesRequest"].SerializeToString,
            response_deserializer=MESSAGES["ListPodResourcesResponse"].FromString,
        )


def _holders(answer: Any) -> Iterator[Holder]:
    for pod in answer.pod_resources:
        for container in pod.containers:
            for devices in container.devices:
                yield from _of(pod, container, devices.resource_name, devices.device_ids)


def _too_long(holder: Holder) -> bool:
    names = (holder.pod, holder.namespace, holder.container, holder.resource, holder.device_id)
    return max(map(len, names)) > MAX_NAME


def _of(pod: Any, container: Any, resource: str, ids: Iterable[str]) -> Iterator[Holder]:
    for device_id in ids:
        yield Holder(pod.name, pod.namespace, container.name, resource, device_id)


def _explain(error: grpc.RpcError, timeout: float) -> str:
    code, details = error.code(), error.details()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"the kubelet did not answer within {timeout:g} s"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return "the kubelet has no pod-resources API v1 (it came with Kubernetes 1.20)"
    return f"{code.name.lower()}: {details}"
