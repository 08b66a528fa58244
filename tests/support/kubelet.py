"""A kubelet's pod-resources socket: a real gRPC server. It can hang, refuse, stop and come back."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc

from services.exporter.attribution.pod_resources import MESSAGES, METHOD, Holder

_SERVICE, _, _RPC = METHOD.strip("/").partition("/")


class Kubelet:
    """`with Kubelet(socket, holders):`"""

    def __init__(self, socket: Path, holders: Sequence[Holder] = ()) -> None:
        self.socket = socket
        self.holders = list(holders)
        self.refuses: grpc.StatusCode | None = None
        self.calls = 0
        self._answers = threading.Event()
        self._answers.set()
        self._server: grpc.Server | None = None

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        handler = grpc.unary_unary_rpc_method_handler(
            self._list,
            request_deserializer=MESSAGES["ListPodResourcesRequest"].FromString,
            response_serializer=MESSAGES["ListPodResourcesResponse"].SerializeToString,
        )
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {_RPC: handler}),))
        self._server.add_insecure_port(f"unix:{self.socket}")
        self._server.start()

    def stop(self) -> None:
        self.wake()
        if self._server is not None:
            self._server.stop(grace=None).wait()
            self._server = None

    def hang(self) -> None:
        """Calls are taken, and not answered until `wake`."""
        self._answers.clear()

    def wake(self) -> None:
        self._answers.set()

    def __enter__(self) -> Kubelet:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _list(self, _request: Any, context: grpc.ServicerContext) -> Any:
        self.calls += 1
        self._answers.wait()
        if self.refuses is not None:
            context.abort(self.refuses, "said the test")
        answer = MESSAGES["ListPodResourcesResponse"]()
        for holder in self.holders:
            pod = answer.pod_resources.add(name=holder.pod, namespace=holder.namespace)
            container = pod.containers.add(name=holder.container)
            container.devices.add(resource_name=holder.resource, device_ids=[holder.device_id])
        return answer
