"""An exporter whose every answer is known: answer n says `total_energy_consumption n` for each of its GPUs.

(GPU, n) identifies a sample from here to the table, whatever time the collector gave it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

NAMESPACE = "GPU-00000000-0000-4000-8000"


def gpu_uuid(number: int) -> str:
    return f"{NAMESPACE}-{number:012d}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A collector that was killed, or had no more time, is no error of the exporter."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # as the base class was called


class CountingExporter:
    """`with CountingExporter(gpus=50) as exporter: exporter.target`. Every answer is whole, or there is none (503)."""

    def __init__(self, gpus: int, hosts: int = 1, first_gpu: int = 0, more: MoreLines | None = None) -> None:
        """`more(self, n)`: further lines of answer n."""
        self._gpus = range(first_gpu, first_gpu + gpus)
        self._hosts = hosts
        self._more = more
        self._lock = threading.Lock()
        self._answering = True
        self._answers = 0
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, name="exporter", daemon=True)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def first_gpu(self) -> int:
        return self._gpus[0]

    @property
    def gpus(self) -> int:
        return len(self._gpus)

    @property
    def answers(self) -> int:
        """Whole answers begun so far: 1, 2, ..., answers."""
        with self._lock:
            return self._answers

    def pause(self) -> None:
        """No more samples: 503 from now on."""
        with self._lock:
            self._answering = False

    def resume(self) -> None:
        with self._lock:
            self._answering = True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering and give the port back; may be called again."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def _answer(self) -> bytes | None:
        with self._lock:
            if not self._answering:
                return None
            self._answers += 1
            number = self._answers
        return self.page(number).encode()

    def page(self, number: int) -> str:
        """Answer `number` as text."""
        lines = []
        for column, value in (
            ("DCGM_FI_DEV_GPU_TEMP", 40 + number % 40),
            ("DCGM_FI_DEV_POWER_USAGE", "100.5"),
            ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", number),
        ):
            lines += [f"{column}{{{self.labels(gpu)}}} {value}\n" for gpu in self._gpus]
        return "".join(lines) + (self._more(self, number) if self._more else "")

    def labels(self, gpu: int) -> str:
        """Of every series of a GPU."""
        host = gpu % self._hosts
        return (
            f'gpu="{gpu}",UUID="{gpu_uuid(gpu)}",pci_bus_id="00000000:{gpu % 256:02X}:00.0",device="nvidia{gpu}",'
            f'modelName="NVIDIA H100 80GB HBM3",Hostname="host-{host}"'
        )

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # connections are kept, as dcgm-exporter keeps them

            def do_GET(self) -> None:
                body = exporter._answer()
                self.send_response(200 if body is not None else 503)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it
                """Thousands of scrapes are not worth a line."""

        return Handler


MoreLines = Callable[[CountingExporter, int], str]
