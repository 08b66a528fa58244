"""The mock: processor time to simulate and render, and a scrape of the whole fleet over HTTP."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

from mock_dcgm.exposition import Exposition
from mock_dcgm.fleet import build, spread
from mock_dcgm.simulator import Simulator
from services.demo.process import free_port
from tests.bench.report import Figure, Options

ROUNDS = 5
READY_WITHIN_SECONDS = 60.0


def run(options: Options) -> list[Figure]:
    sizes = (100, 1000) if options.quick else (100, 1000, 10_000)
    return [figure for gpus in sizes for figure in (*_inside(gpus), _over_http(gpus))]


def _inside(gpus: int) -> list[Figure]:
    fleet = build(spread(gpus=gpus, hosts=max(1, gpus // 8), models=[("H100", 1)], profile="training", seed=1))
    simulator = Simulator(fleet)
    exposition = Exposition(simulator.layout, simulator.present)
    steps, renders, size = [], [], 0
    for _ in range(ROUNDS):
        begin = time.process_time()
        snapshot = simulator.step(10.0)
        middle = time.process_time()
        exposition.update(snapshot)
        size = sum(len(block) for block in exposition.fleet())
        steps.append(middle - begin)
        renders.append(time.process_time() - middle)
    return [
        Figure("mock", f"simulate 10 s, {gpus:,} GPUs", statistics.median(steps) * 1000, "ms"),
        Figure("mock", f"render, {gpus:,} GPUs", statistics.median(renders) * 1000, "ms", note=f"{size / 1e6:.1f} MB"),
    ]


def _over_http(gpus: int) -> Figure:
    port = free_port()
    command = [sys.executable, "-m", "services", "mock", "--gpus", str(gpus), "--hosts", str(max(1, gpus // 8))]
    with subprocess.Popen([*command, "--port", str(port), "--interval", "1"], stderr=subprocess.DEVNULL) as mock:
        try:
            _wait(f"http://127.0.0.1:{port}/health")
            seconds = []
            for _ in range(ROUNDS):
                begin = time.perf_counter()
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                    while answer.read(1 << 20):
                        pass
                seconds.append(time.perf_counter() - begin)
        finally:
            mock.terminate()
    return Figure("mock", f"scrape of the fleet, {gpus:,} GPUs", statistics.median(seconds) * 1000, "ms", note="HTTP")


def _wait(url: str) -> None:
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while True:
        try:
            urllib.request.urlopen(url).close()
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
