"""The exporter: rendering a sweep, answering a scrape, and what the process costs with eight GPUs read every second."""

from __future__ import annotations

import http.client
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from services.exporter import self_metrics
from services.exporter.counters_file import everything
from services.exporter.mock_source import MockSource, fleet
from services.exporter.page import Page
from services.exporter.reading import Sweep
from services.exporter.render import Renderer
from services.exporter.sampler import Sampler
from services.settings import child_environment
from tests.bench.report import Figure, Options
from tests.support.processes import free_port, wait_until

GPUS = 8
ROUNDS = 200
SCRAPES = 500
SCRAPE_GOAL_MS = 2.0
"""A scrape of eight GPUs answers within a millisecond or two."""
SETTLE_SECONDS = 5.0
"""After the start: imports and the first readings are not what the process costs."""
PROCESSES = {
    "mock": ["-m", "services", "exporter", "--mock", f"H100={GPUS}"],
    "NVML, fake library": ["-m", "tests.bench.exporter_on_fake_nvml", str(GPUS)],
}


def run(options: Options) -> list[Figure]:
    figures = _inside()
    for name, command in PROCESSES.items():
        figures += _process(name, command, seconds=6.0 if options.quick else 30.0)
    return figures


def _inside() -> list[Figure]:
    """Processor time of each step, without HTTP."""
    sweeps: list[Sweep] = []
    source = MockSource(fleet("dock", (("H100", GPUS),)))
    sampler = Sampler(lambda: source, sweeps.append)
    sampler.step()
    renderer, sweep = Renderer(everything(), "dock"), sweeps[0]
    text = renderer.render(sweep)
    page, status = Page(text), sampler.status()
    tail = self_metrics.render(status, "dock").encode()
    page.gzip(tail)
    packed = len(page.gzip(tail))
    return [
        _figure("render a sweep", _median_ms(lambda: renderer.render(sweep)), f"{len(text) / 1000:.0f} kB"),
        _figure("tail of a scrape", _median_ms(lambda: self_metrics.render(status, "dock")), f"{len(tail)} bytes"),
        _figure("first gzip of a sweep", _median_ms(lambda: Page(text).gzip(tail)), f"{packed / 1000:.1f} kB"),
        _figure("further gzip of a sweep", _median_ms(lambda: page.gzip(tail))),
    ]


def _figure(name: str, milliseconds: float, note: str = "") -> Figure:
    return Figure("exporter", f"{name}, {GPUS} GPUs", milliseconds, "ms", note=note)


def _median_ms(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        work()
        seconds.append(time.process_time() - begin)
    return statistics.median(seconds) * 1000


def _process(name: str, command: list[str], seconds: float) -> list[Figure]:
    with _exporter(command) as url:
        time.sleep(SETTLE_SECONDS)
        begin, before = time.monotonic(), _read(url, "process_cpu_seconds_total")
        time.sleep(seconds)
        used = _read(url, "process_cpu_seconds_total") - before
        share = 100 * used / (time.monotonic() - begin)
        memory = _read(url, "process_resident_memory_bytes") / 2**20
        plain, packed = _scrapes(url, "identity"), _scrapes(url, "gzip")
        reading = _read(url, "gpumon_exporter_read_duration_seconds") * 1000
    return [
        Figure("exporter", f"{name}: CPU of a core, {GPUS} GPUs every second", share, "%"),
        Figure("exporter", f"{name}: resident memory", memory, "MiB"),
        Figure("exporter", f"{name}: reading {GPUS} GPUs", reading, "ms", note="the last one"),
        *_latency(f"{name}: scrape", plain),
        *_latency(f"{name}: scrape, gzip", packed),
    ]


def _latency(name: str, milliseconds: list[float]) -> Iterator[Figure]:
    middle, high = statistics.median(milliseconds), statistics.quantiles(milliseconds, n=100)[98]
    goal = f"<= {SCRAPE_GOAL_MS:g} ms"
    yield Figure("exporter", f"{name}, median", middle, "ms", goal, middle <= SCRAPE_GOAL_MS, "HTTP, kept connection")
    yield Figure("exporter", f"{name}, 99th percentile", high, "ms")


@contextmanager
def _exporter(command: list[str]) -> Iterator[str]:
    port = free_port()
    environment = child_environment(EXPORTER_PORT=str(port), EXPORTER_INTERVAL="1", KERNEL_LOG="off")
    with subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: _is_up(url), within=60, what="the exporter")
            yield url
        finally:
            process.terminate()


def _is_up(url: str) -> bool:
    try:
        return _read(url, "gpumon_exporter_up") == 1.0
    except OSError:
        return False


def _read(url: str, name: str) -> float:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return float(next(line.split(" ")[1] for line in text.splitlines() if line.startswith(f"{name} ")))


def _scrapes(url: str, encoding: str) -> list[float]:
    """Milliseconds from request to the last byte, one scrape after the other."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    found = []
    for _ in range(SCRAPES):
        begin = time.perf_counter()
        connection.request("GET", "/metrics", headers={"Accept-Encoding": encoding})
        connection.getresponse().read()
        found.append((time.perf_counter() - begin) * 1000)
    connection.close()
    return found
