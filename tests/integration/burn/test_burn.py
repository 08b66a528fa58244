"""`gpumon burn` as a process of its own, with a program in gpu_burn's place and simulated GPUs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.contract.event import Status
from services.host import status
from tests.integration.burn.fake_gpu_burn import CRASH_STATUS, program
from tests.support.fake_smi import FakeSmi
from tests.support.processes import free_port, wait_until

BEFORE = Status(tag="prod", memo="inference")
QUICK = ("--pre-idle-sec", "0", "--cooldown-sec", "0")


class Box:
    """A directory with a status, a gpu_burn, and what runs in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process: subprocess.Popen[str] | None = None
        status.write(self.status_file, BEFORE)

    @property
    def status_file(self) -> Path:
        return self.directory / "status.json"

    def environment(self, **more: str) -> dict[str, str]:
        own = {
            "GPU_BURN": str(self.directory / "gpu_burn"),
            "EXPORTER_SOURCE": "mock",
            "NODE_NAME": "box",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(free_port()),  # nobody there
            "COLLECTION_INTERVAL": "1",
            "EXPORTER_PORT": str(free_port()),  # nor there
        }
        return {**os.environ, **own, **more}  # noqa: TID251 - a process under test gets the tests' own

    def start(self, *arguments: str, mode: str = "ok", **environment: str) -> subprocess.Popen[str]:
        program(self.directory, mode)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services", "burn", *arguments],
            cwd=self.directory,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.process

    def run(self, *arguments: str, mode: str = "ok", **environment: str) -> tuple[int, str, str]:
        process = self.start(*arguments, mode=mode, **environment)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def finish(self) -> tuple[int, str, str]:
        assert self.process is not None
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err

    @property
    def pids(self) -> list[int]:
        """Of gpu_burn and its child."""
        return [int(word) for word in (self.directory / "pids").read_text().split()]

    def burning(self) -> bool:
        return (self.directory / "pids").exists() and len(self.pids) == 2

    def tag(self) -> Status | None:
        return status.read(self.status_file)

    def log(self) -> str:
        [path] = (self.directory / "logs").glob("burn-*.log")
        return path.read_text()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path)
    yield box
    if box.process is not None and box.process.poll() is None:
        box.process.kill()
        box.process.communicate()
    for pid in box.pids if box.burning() else ():  # of a test that failed: nothing may be left behind
        with contextlib.suppress(ProcessLookupError):
            if "gpu_burn" in " ".join(_command_line(pid)):
                os.kill(pid, signal.SIGKILL)


def _command_line(pid: int) -> list[str]:
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []


def gone(pids: list[int]) -> Callable[[], bool]:
    """Zombies count as gone: whoever adopted them has not reaped them yet."""

    def look() -> bool:
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                    return False
        return True

    return look


def test_the_whole_run(box: Box) -> None:
    process = box.start(
        "--pre-idle-sec", "1", "--pre-idle-memo", "pre", "--sec", "3", "--pre-tag", "bench", "--pre-memo", "burn memo",
        "--post-tag", "idle", "--post-memo", "post", "--post-sec", "1", "--cooldown-sec", "1",
        "--cooldown-memo", "cool", "--final-tag", "prod", "--final-memo", "prod (normal usage)", "--json",
    )  # fmt: skip
    seen: list[Status] = []
    while process.poll() is None:
        now = box.tag()
        if now is not None and (not seen or seen[-1] != now):
            seen.append(now)
        time.sleep(0.02)
    code, out, err = box.finish()
    assert code == 0, err
    expected = [("prod", "inference"), ("idle", "pre"), ("bench", "burn memo"), ("idle", "post"), ("idle", "cool"),
                ("prod", "prod (normal usage)")]  # fmt: skip
    assert [(s.tag, s.memo) for s in seen] == expected
    document = json.loads(out)
    assert [phase["name"] for phase in document["phases"]] == ["pre-idle", "burn", "post", "cool-down"]
    assert document["result"] == "completed"
    assert document["gpu_burn"]["verdicts"] == {"0": "OK"}
    assert document["samples_from"] == "live readings"
    assert document["notes"][0].startswith("cannot connect to the database")
    check_summary(document)
    assert json.loads(next((box.directory / "logs").glob("burn-*.json")).read_text()) == document
    log = box.log()
    assert "| GPU 0: Tesla P40" in log
    assert "phase cool-down: 1 s, idle (cool)" in log
    assert "result: completed" in log
    assert log.count("proc'd:") <= 2  # not one of ten a second
    assert gone(box.pids)()


def check_summary(document: dict[str, Any]) -> None:
    gpu = document["gpus"][0]
    assert 10 < gpu["peak"] < 100
    assert gpu["mean_watts"] > 30
    assert gpu["energy"]["joules"] == pytest.approx(gpu["mean_watts"] * (gpu["end"] - gpu["begin"]), rel=0.2)
    assert gpu["steady"] is None
    assert gpu["unknown"]["steady"] == "the load ran for less than 120 s"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_puts_everything_back(box: Box, number: signal.Signals) -> None:
    process = box.start(*QUICK, "--sec", "60")
    wait_until(box.burning, within=20, what="the burn")
    assert box.tag() == Status(tag="bench", memo="gpu-burn (max workload)")
    process.send_signal(number)
    code, out, _ = box.finish()
    assert code == 128 + number
    assert f"interrupted: {number.name} received" in out
    assert box.tag() == BEFORE
    wait_until(gone(box.pids), within=5, what="the end of gpu_burn and its child")


def test_a_signal_in_the_first_phase_starts_no_load(box: Box) -> None:
    process = box.start("--pre-idle-sec", "60", "--sec", "60", "--final-tag", "idle")
    wait_until(lambda: box.tag() == Status(tag="idle", memo="pre gpu-burn idle (baseline)"), within=20, what="a phase")
    process.send_signal(signal.SIGTERM)
    assert box.finish()[0] == 128 + signal.SIGTERM
    assert box.tag() == Status(tag="idle")
    assert not box.burning()


def test_a_load_that_ignores_sigterm_is_killed(box: Box) -> None:
    process = box.start(*QUICK, "--sec", "60", mode="stubborn")
    wait_until(box.burning, within=20, what="the burn")
    process.send_signal(signal.SIGINT)
    assert box.finish()[0] == 128 + signal.SIGINT
    wait_until(gone(box.pids), within=5, what="the end of gpu_burn and its child")
    assert box.tag() == BEFORE


def test_nothing_is_left_when_gpumon_itself_is_killed(box: Box) -> None:
    process = box.start(*QUICK, "--sec", "60")
    wait_until(box.burning, within=20, what="the burn")
    process.kill()
    box.finish()
    wait_until(gone(box.pids), within=10, what="the end of gpu_burn and its child")


def test_a_load_that_fails(box: Box) -> None:
    code, out, _ = box.run(*QUICK, "--sec", "2", mode="crash")
    assert code == 1
    assert f"gpu_burn failed with exit status {CRASH_STATUS}" in out
    assert box.tag() == BEFORE
    assert "No clients are alive!" in box.log()


def test_a_load_that_ends_early_with_success(box: Box) -> None:
    code, out, _ = box.run(*QUICK, "--sec", "20", mode="early")
    assert code == 1
    assert "gpu_burn ended after 0 of 20 s" in out


@pytest.mark.parametrize(("mode", "reason"), [
    ("mute", "no verdict on GPU 0"),
    ("oom", "no verdict on GPU 0; Couldn't init a GPU test: Error in \"alloc\": out of memory"),
])  # fmt: skip
def test_an_exit_status_of_0_without_a_verdict_proves_nothing(box: Box, mode: str, reason: str) -> None:
    code, out, _ = box.run("--pre-idle-sec", "0", "--sec", "1", "--cooldown-sec", "1", "--json", mode=mode)
    document = json.loads(out)
    assert code == 1
    assert document["result"] == "unverified"
    assert document["reason"] == f"gpu_burn ended without an error and with {reason}"
    assert document["phases"][-1]["name"] == "cool-down"


def test_output_without_the_end_of_a_line(box: Box) -> None:
    """Fifty megabytes of it: neither kept, nor read again and again, nor written to the log."""
    begin = time.monotonic()
    code, out, err = box.run(*QUICK, "--sec", "2", "--json", mode="endless")
    assert code == 0, err
    assert json.loads(out)["gpu_burn"]["verdicts"] == {"0": "OK"}
    assert len(box.log()) < 30_000
    assert time.monotonic() - begin < 30


def test_a_gpu_that_tells_no_temperature(box: Box) -> None:
    smi = FakeSmi(box.directory / "smi")
    smi.set("temperature/gpu_temp", "N/A")
    source = {"EXPORTER_SOURCE": "nvidia-smi", "NVIDIA_SMI": str(smi.program)}
    code, _, err = box.run(*QUICK, "--sec", "1", "--max-temp", "80", **source)
    assert code == 2
    assert "--max-temp cannot be kept: GPU 0" in err
    assert "shows no temperature" in err
    code, out, _ = box.run(*QUICK, "--sec", "1", **source)
    assert code == 0
    assert "no live temperature, so no limit is kept: GPU 0" in out
    assert box.tag() == BEFORE


def test_faulty_gpus_do_not_stop_the_cool_down(box: Box) -> None:
    code, out, _ = box.run("--pre-idle-sec", "0", "--sec", "2", "--cooldown-sec", "1", "--json", mode="faulty")
    document = json.loads(out)
    assert code == 1
    assert document["result"] == "faulty"
    assert document["reason"] == "GPU 0: FAULTY, 7 wrong results"
    assert document["gpu_burn"] == {"verdicts": {"0": "FAULTY"}, "errors": {"0": 7}}
    assert document["phases"][-1]["name"] == "cool-down"


def test_too_hot(box: Box) -> None:
    box.start(*QUICK, "--sec", "60", "--max-temp", "10", "--final-tag", "idle", "--final-memo", "hot")
    code, out, _ = box.finish()
    assert code == 1
    assert "result: too_hot: GPU 0 is at" in out
    assert "above 10 C in 3 readings in a row" in out
    assert box.tag() == Status(tag="idle", memo="hot")
    wait_until(gone(box.pids), within=5, what="the end of gpu_burn and its child")


def test_no_gpu_to_read(box: Box) -> None:
    """The run goes on without a limit; one that was asked for is not promised."""
    source = {"EXPORTER_SOURCE": "nvidia-smi", "NVIDIA_SMI": str(box.directory / "no-nvidia-smi")}
    code, out, _ = box.run(*QUICK, "--sec", "1", **source)
    assert code == 0
    assert "no live temperature, so no limit is kept" in out
    assert "no samples: nothing can be said of temperatures and watts" in out
    code, _, err = box.run(*QUICK, "--sec", "1", "--max-temp", "80", **source)
    assert code == 2
    assert "--max-temp cannot be kept" in err
    assert box.tag() == BEFORE


def test_no_gpu_burn(box: Box) -> None:
    code, _, err = box.run(*QUICK, "--sec", "1", GPU_BURN="~/no/such/gpu_burn")
    assert code == 2
    assert "/no/such/gpu_burn: there is no such program; build it" in err
    assert "COMPUTE=61` for a P40" in err
    assert "~/no" not in err
    assert box.tag() == BEFORE


def test_torch_is_not_there(box: Box) -> None:
    code, _, err = box.run(*QUICK, "--sec", "1", "--load", "torch")
    if code == 0:
        pytest.skip("PyTorch is installed here")
    assert code == 2
    assert "PyTorch is not installed" in err


def test_no_load(box: Box) -> None:
    code, out, _ = box.run(*QUICK, "--sec", "1", "--load", "none", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["end"] - document["begin"] == pytest.approx(1, abs=0.5)
    assert not box.burning()


def test_a_second_run_is_refused(box: Box) -> None:
    box.start(*QUICK, "--sec", "60")
    wait_until(box.burning, within=20, what="the burn")
    second = subprocess.run(
        [sys.executable, "-m", "services", "burn", "--sec", "1", "--load", "none"],
        cwd=box.directory, env=box.environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert second.returncode == 2
    assert "another burn or benchmark (process" in second.stderr
    assert box.process is not None
    box.process.send_signal(signal.SIGINT)
    box.finish()
    assert box.tag() == BEFORE


def test_a_status_that_cannot_be_written(box: Box) -> None:
    code, _, err = box.run(*QUICK, "--sec", "1", STATUS_FILE="/proc/status.json")
    assert code == 2
    assert "STATUS_FILE=/proc/status.json" in err
    assert not box.burning()


def test_logs_that_cannot_be_written(box: Box) -> None:
    code, _, err = box.run(*QUICK, "--sec", "1", LOG_DIR="/proc/logs")
    assert code == 2
    assert "LOG_DIR=/proc/logs" in err


def test_a_status_with_nonsense(box: Box) -> None:
    box.status_file.write_text("{nonsense")
    code, _, _ = box.run(*QUICK, "--sec", "1", "--load", "none")
    assert code == 0
    assert box.tag() is None
    assert "holds no status" in box.log()


def test_dry_run(box: Box) -> None:
    code, out, _ = box.run("--dry-run", "--final-tag", "prod", "--max-temp", "80")
    assert code == 0
    assert "run of 28:00" in out
    assert "  burn          900 s  bench  gpu-burn (max workload)" in out
    assert f"load: {box.directory / 'gpu_burn'} 900" in out
    assert "limit: 80 C" in out
    assert box.tag() == BEFORE
    assert not (box.directory / "logs").exists()


def test_dry_run_of_what_would_fail(box: Box) -> None:
    code, out, _ = box.run("--dry-run", GPU_BURN="/no/such/gpu_burn")
    assert code == 1
    assert out.startswith("WARNING: this run would fail: GPU_BURN=/no/such/gpu_burn")
    code, out, _ = box.run("--dry-run", "--json", GPU_BURN="/no/such/gpu_burn")
    assert code == 1
    assert json.loads(out)["load_problem"].startswith("GPU_BURN=/no/such/gpu_burn: there is no such program")
    assert box.tag() == BEFORE


def test_where_log_and_summary_are_is_told_last(box: Box) -> None:
    code, out, err = box.run(*QUICK, "--sec", "1", "--load", "none")
    assert code == 0, err
    *_, log, summary = out.splitlines()
    assert Path(log.removeprefix("  log: ")).read_text() == box.log()
    assert json.loads(Path(summary.removeprefix("  JSON: ")).read_text())["result"] == "completed"
    assert "phase post" not in out
