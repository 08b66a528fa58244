"""The exporter as a process: starting, serving, reloading, stopping."""

from __future__ import annotations

import gzip
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.settings import child_environment
from tests.integration.exporter.process import ExporterProcess

PROMPT = 5.0
"""Seconds from a signal to the end, with room for a machine that is busy with other tests."""


def value(text: str, series: str) -> str | None:
    found = [line.rsplit(" ", 1)[1] for line in text.splitlines() if line.rsplit(" ", 1)[0] == series]
    return found[0] if found else None


def test_mock_source_end_to_end(tmp_path: Path) -> None:
    with ExporterProcess(tmp_path, "--mock", "P40", "--mock", "H100=2", "--prefix", "entrenar") as exporter:
        status, text = exporter.ready().get()
        assert status == 200
        families = {family.name: family for family in text_string_to_metric_families(text)}
        assert len(families["DCGM_FI_DEV_GPU_TEMP"].samples) == 3
        assert len(families["entrenar_gpu_temperature_celsius"].samples) == 3
        assert value(text, "gpumon_exporter_up") == "1"
        assert value(text, "gpumon_exporter_gpus") == "3"
        assert exporter.get("/health") == (200, "OK")
        assert exporter.get("/snapshot")[0] == 200
        before = int(value(text, "gpumon_exporter_reads_total") or 0)

        def read_again() -> bool:
            return int(value(exporter.get()[1], "gpumon_exporter_reads_total") or 0) > before + 2

        exporter.until(read_again, "further readings")


def test_prometheus_headers(tmp_path: Path) -> None:
    with ExporterProcess(tmp_path, "--mock", "P40") as exporter:
        request = urllib.request.Request(exporter.ready().url + "/metrics", headers={"Accept-Encoding": "gzip"})
        with urllib.request.urlopen(request) as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert answer.headers["Content-Encoding"] == "gzip"
            assert "gpumon_exporter_up 1\n" in gzip.decompress(answer.read()).decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_promptly_with_0(tmp_path: Path, number: signal.Signals) -> None:
    with ExporterProcess(tmp_path, "--mock", "P40") as exporter:
        exporter.ready()
        asked = time.monotonic()
        exporter.signal(number)
        assert exporter.ended() == 0, exporter.log
        assert time.monotonic() - asked < PROMPT
        assert "Traceback" not in exporter.log


def test_no_gpu_at_all_is_no_crash(tmp_path: Path) -> None:
    """Neither library nor program: it serves its own series, says what is wrong, and stops as always."""
    with ExporterProcess(tmp_path, "--source", "nvidia-smi", NVIDIA_SMI=str(tmp_path / "nothing")) as exporter:

        def failed() -> bool:
            return value(exporter.get()[1], 'gpumon_exporter_read_failures_total{trouble="no_driver"}') != "0"

        exporter.until(failed, "a failure counted")
        status, text = exporter.get()
        assert status == 200
        assert value(text, "gpumon_exporter_up") == "0"
        assert "DCGM_" not in text
        status, reason = exporter.get("/health")
        assert status == 503
        assert str(tmp_path / "nothing") in reason
        assert exporter.get("/livez")[0] == 200
        assert exporter.get("/readyz")[0] == 503
        exporter.signal(signal.SIGTERM)
        assert exporter.ended() == 0, exporter.log


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with ExporterProcess(tmp_path, "--mock", "P40", "--address", f"127.0.0.1:{port}") as exporter:
            assert exporter.ended() == 1
            told = (
                f"gpumon exporter: port {port} on 127.0.0.1 is taken: stop what listens there, or choose another with"
            )
            assert told in exporter.log
            assert "Traceback" not in exporter.log


def test_sighup_reads_the_counters_file_anew(tmp_path: Path) -> None:
    counters = tmp_path / "counters.csv"
    counters.write_text("DCGM_FI_DEV_GPU_TEMP, gauge, Heat.\n")
    with ExporterProcess(tmp_path, "--mock", "P40", "-f", str(counters)) as exporter:
        text = exporter.ready().get()[1]
        assert "# HELP DCGM_FI_DEV_GPU_TEMP Heat.\n" in text
        assert "DCGM_FI_DEV_POWER_USAGE" not in text
        counters.write_text("DCGM_FI_DEV_POWER_USAGE, gauge, Watts.\n")
        exporter.signal(signal.SIGHUP)
        exporter.until(lambda: "POWER_USAGE" in exporter.get()[1], "the new counters")
        assert "GPU_TEMP" not in exporter.get()[1]
        counters.write_text("DCGM_FI_DEV_GPU_TMP, gauge, Oops.\n")
        exporter.signal(signal.SIGHUP)
        exporter.until(lambda: "the old counters file stays in force" in exporter.log, "the complaint")
        assert "POWER_USAGE" in exporter.get()[1]


def test_jobs_of_a_scheduler(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    (jobs / "1").write_text("4711\n")
    with ExporterProcess(tmp_path, "--mock", "T4=2", "--hpc-job-mapping-dir", str(jobs)) as exporter:
        text = exporter.ready().get()[1]
        held = [line for line in text.splitlines() if line.startswith("DCGM_FI_DEV_GPU_TEMP{")]
        assert ["hpc_job" in line for line in held] == [False, True]
        assert ',hpc_job="4711"}' in held[1]
        assert value(text, 'gpumon_exporter_attribution_failures_total{source="hpc"}') == "0"


def test_basic_auth(tmp_path: Path) -> None:
    bcrypt = pytest.importorskip("bcrypt")
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    config = tmp_path / "web.yml"
    config.write_text(f"basic_auth_users:\n  prometheus: {hashed}\n")
    with ExporterProcess(tmp_path, "--mock", "P40", "--web-config-file", str(config)) as exporter:
        assert exporter.get()[0] == 401
        assert exporter.get(Authorization="Basic cHJvbWV0aGV1czpzZWNyZXQ=")[0] == 200


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--source", "mock", "-f", "/nothing.csv"], 2, "counters file /nothing.csv: No such file"),
        (["--source", "mock", "--web-config-file", "/nothing.yml"], 2, "web configuration /nothing.yml: No such file"),
        (["--source", "mock", "-a", "9400"], 2, "--address 9400: expected [HOST]:PORT"),
        (["--mock", "X1"], 2, "unknown model 'X1'"),
        (["--source", "mock", "--prefix", "1x"], 2, "EXPORTER_PREFIX='1x'"),
        (["--source", "nvidia-smi", "--once"], 1, "no-such-nvidia-smi"),
    ],
)
def test_what_cannot_be_is_one_clear_line(flags: list[str], code: int, message: str) -> None:
    done = command(*flags)
    assert done.returncode == code
    told = [line for line in done.stderr.splitlines() if line.startswith("gpumon exporter: ")]
    assert len(told) == 1, done.stderr
    assert message in told[0]
    assert "Traceback" not in done.stderr


def test_once_prints_one_exposition() -> None:
    done = command("--mock", "P40", "--once")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# HELP DCGM_FI_DEV_SM_CLOCK ")
    assert "gpumon_exporter_up 1\n" in done.stdout
    list(text_string_to_metric_families(done.stdout))


def test_once_into_a_closed_pipe() -> None:
    line = f"{sys.executable} -m services exporter --mock P40 --once | head -1"
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("# HELP")
    assert "Traceback" not in done.stderr


def command(*flags: str) -> subprocess.CompletedProcess[str]:
    environment = child_environment(NVIDIA_SMI="/no-such-nvidia-smi", KERNEL_LOG="off", LOG_LEVEL="ERROR")
    arguments = [sys.executable, "-m", "services", "exporter", *flags]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment, timeout=60)
