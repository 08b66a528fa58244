"""What people, other programs and networks do to an exporter: it goes on to answer, and it ends when it is told to."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import psutil
import pytest

from services.ops.admission import MOST
from tests.integration.exporter.process import ExporterProcess
from tests.support.fake_smi import FakeSmi
from tests.support.processes import wait_until

GOOD = "DCGM_FI_DEV_GPU_TEMP, gauge, t\n"


def test_clients_that_never_finish_their_request_keep_nobody_out(tmp_path: Path) -> None:
    with ExporterProcess(tmp_path, "--mock", "P40") as running, ExitStack() as held:
        running.ready()
        address = urlsplit(running.url)
        for _ in range(3 * MOST):
            client = held.enter_context(socket.create_connection((address.hostname, address.port), timeout=10))
            client.sendall(b"GET /metrics HTTP/1.1\r\nX-a: ")
        assert [running.get()[0] for _ in range(10)] == [200] * 10
        assert running.log.count("too many connections") == 1
        assert len(running.log) < 10_000


def test_a_counters_file_that_became_a_fifo_holds_up_nothing(tmp_path: Path) -> None:
    path = tmp_path / "counters.csv"
    path.write_text(GOOD)
    with ExporterProcess(tmp_path, "--mock", "P40", "-f", str(path)) as running:
        running.ready()
        path.unlink()
        os.mkfifo(path)
        running.signal(signal.SIGHUP)
        running.until(lambda: "the old counters file stays in force" in running.log, "a complaint")
        assert "DCGM_FI_DEV_GPU_TEMP{" in running.get()[1]
        path.unlink()
        path.write_text(GOOD + "DCGM_FI_DEV_SM_CLOCK, gauge, c\n")
        running.signal(signal.SIGHUP)
        running.until(lambda: "DCGM_FI_DEV_SM_CLOCK{" in running.get()[1], "the new counters")
        running.signal(signal.SIGTERM)
        assert running.ended() == 0


def test_an_nvidia_smi_that_hangs_does_not_outlive_the_exporter(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path)
    with ExporterProcess(
        tmp_path, "--source", "nvidia-smi", NVIDIA_SMI=smi.program, NVIDIA_SMI_TIMEOUT="60"
    ) as running:
        running.ready()
        smi.hang()
        wait_until(lambda: _of(smi) != [], within=20, what="nvidia-smi")
        running.signal(signal.SIGTERM)
        assert running.ended() == 0
        wait_until(lambda: _of(smi) == [], within=10, what="its end")


def _of(smi: FakeSmi) -> list[int]:
    """Processes of the fake program."""
    return [p.pid for p in psutil.process_iter(["cmdline"]) if any(smi.program in w for w in p.info["cmdline"] or ())]


@pytest.fixture
def mute() -> Iterator[Path]:
    """A socket that takes connections and says nothing. Its path is short: that of a socket has 107 bytes at most."""
    with TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as server:
        path = Path(directory) / "kubelet.sock"
        server.bind(str(path))
        server.listen()
        yield path


@pytest.mark.parametrize("kind", ["mute", "fifo", "file"])
def test_neither_a_kubelet_nor_a_job_directory_that_is_none_holds_up_readings(
    tmp_path: Path, mute: Path, kind: str
) -> None:
    path, jobs = mute if kind == "mute" else tmp_path / kind, tmp_path / "jobs"
    if kind == "fifo":
        os.mkfifo(path)
    if kind == "file":
        path.write_bytes(os.urandom(1000))
    jobs.mkdir()
    os.mkfifo(jobs / "0")
    with (jobs / "1").open("wb") as file:
        file.truncate(10 * 2**30)
    Path(os.fsdecode(os.fsencode(jobs) + b"/\xff")).write_bytes(b"\xff")
    flags = ("--mock", "P40=4", "-k", "--hpc-job-mapping-dir", str(jobs))
    with ExporterProcess(tmp_path, *flags, KUBELET_SOCKET=str(path)) as running:
        running.ready()
        running.until(lambda: _failed(running.get()[1]) == {"hpc", "kubernetes"}, "failures of both")
        (jobs / "2").write_text("4711\n")
        running.until(lambda: 'hpc_job="4711"' in running.get()[1], "the job of a file that is one")
        for number in range(3, 20_000):
            (jobs / str(number)).touch()
        assert running.get("/health") == (200, "OK")
        running.signal(signal.SIGTERM)
        assert running.ended() == 0


def _failed(text: str) -> set[str]:
    """Attributions with failures."""
    lines = [line for line in text.splitlines() if "attribution" in line and not line.startswith("#")]
    return {name for name in ("hpc", "kubernetes") for line in lines if f'"{name}"' in line and line.split()[-1] != "0"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_nvidia_smi_that_hangs_does_not_outlive_once(tmp_path: Path, number: signal.Signals) -> None:
    smi = FakeSmi(tmp_path)
    smi.hang()
    with ExporterProcess(tmp_path, "--source", "nvidia-smi", "--once", NVIDIA_SMI=smi.program) as running:
        wait_until(lambda: _of(smi) != [], within=20, what="nvidia-smi")
        running.signal(number)
        assert running.ended() == 128 + number
        assert "Traceback" not in running.log
        wait_until(lambda: _of(smi) == [], within=10, what="its end")
