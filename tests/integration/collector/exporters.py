"""An HTTP server that behaves as badly as its paths say, and a Kafka (librdkafka's mock) that can be switched off."""

from __future__ import annotations

import asyncio
import ctypes
import gzip
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import confluent_kafka

LABELS = (
    'gpu="{i}",UUID="GPU-{i}",pci_bus_id="00000000:0{i}:00.0",device="nvidia{i}",'
    'modelName="NVIDIA H100",Hostname="node-1"'
)


def exposition(scrape: int, gpus: int = 4) -> bytes:
    """A dcgm-exporter's answer; the energy counter is the number of the scrape, so that samples can be told apart."""
    lines = ["# HELP DCGM_FI_DEV_GPU_TEMP GPU temperature (in C).", "# TYPE DCGM_FI_DEV_GPU_TEMP gauge"]
    lines += [f"DCGM_FI_DEV_GPU_TEMP{{{LABELS.format(i=i)}}} 4{i}" for i in range(gpus)]
    lines += ["# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter"]
    lines += [f"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{{LABELS.format(i=i)}}} {scrape}" for i in range(gpus)]
    return ("\n".join(lines) + "\n").encode()


def _answer(body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = ["HTTP/1.1 200 OK", "Content-Type: text/plain; version=0.0.4", *headers]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Exporters:
    """`with Exporters() as e: e.target("/slow")`; a thread of its own. Paths: see `_serve`."""

    def __init__(self) -> None:
        self.scrapes: Counter[str] = Counter()
        self.requests: list[bytes] = []
        self.gpus = 4
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> asyncio.Server:
        return await asyncio.start_server(self._connection, "127.0.0.1", 0)

    async def _end(self) -> None:
        assert self._server is not None
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def address(self) -> str:
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def target(self, path: str = "/metrics") -> str:
        return f"http://{self.address}{path}"

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                self.requests.append(request)
                path = request.split()[1].decode()
                self.scrapes[path] += 1
                if not await self._serve(path, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _serve(self, path: str, writer: asyncio.StreamWriter) -> bool:  # noqa: PLR0912  # a list of vices
        """Answer; True keeps the connection."""
        body = exposition(self.scrapes[path], self.gpus)
        match path:
            case "/hang":
                await asyncio.sleep(3600)
            case "/drip":  # never silent for long, never complete
                writer.write(_answer(b"", length=10**6))
                while True:
                    writer.write(b"# more\n")
                    await writer.drain()
                    await asyncio.sleep(0.05)
            case "/slow":
                await asyncio.sleep(0.4)
                writer.write(_answer(body))
                return True
            case "/cut":
                writer.write(_answer(body[:100], length=len(body)))
            case "/cut-unnoticed":  # ends in mid-line, and the length says so
                writer.write(_answer(body[:-9]))
            case "/chunks-cut":
                writer.write(
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n" + body[:64] + b"\r\n40\r\nxx"
                )
            case "/gzip":
                writer.write(_answer(gzip.compress(body), "Content-Encoding: gzip"))
                return True
            case "/gzip-bad":
                writer.write(_answer(b"not gzip at all", "Content-Encoding: gzip"))
            case "/bomb":
                writer.write(_answer(gzip.compress(b"# x\n" * 5_000_000), "Content-Encoding: gzip"))
            case "/endless":
                writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
                while True:
                    writer.write(b"# x\n" * 50_000)
                    await writer.drain()
            case "/html":
                writer.write(_answer(b"<html><body>It works!</body></html>\n"))
            case "/binary":
                writer.write(_answer(bytes(range(256)) * 20))
            case "/empty":
                writer.write(_answer(b""))
            case "/404":
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            case "/500":
                writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
            case "/not-http":
                writer.write(b"SSH-2.0-OpenSSH_9.9\r\n")
            case "/goodbye":
                pass
            case _:
                writer.write(_answer(body))
                return True
        await writer.drain()
        return False


class MockKafka:
    """librdkafka's mock cluster through its C interface, in this process; `down` keeps address and data."""

    def __init__(self) -> None:
        folder = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
        self._lib = ctypes.CDLL(str(next(folder.glob("librdkafka*"))))
        pointer = ctypes.c_void_p
        for name in ("new", "mock_cluster_new"):
            getattr(self._lib, f"rd_kafka_{name}").restype = pointer
        self._lib.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        self._handle = pointer(self.call("new", 0, None, None, ctypes.c_size_t(0)))
        self._cluster = pointer(self.call("mock_cluster_new", self._handle, 1))

    def call(self, name: str, *arguments: Any) -> Any:
        function: Callable[..., Any] = getattr(self._lib, f"rd_kafka_{name}")
        return function(*arguments)

    @property
    def bootstrap(self) -> str:
        bootstraps: bytes = self.call("mock_cluster_bootstraps", self._cluster)
        return bootstraps.decode()

    def down(self) -> None:
        self.call("mock_broker_set_down", self._cluster, 1)

    def up(self) -> None:
        self.call("mock_broker_set_up", self._cluster, 1)

    def close(self) -> None:
        self.call("mock_cluster_destroy", self._cluster)
        self.call("destroy", self._handle)
