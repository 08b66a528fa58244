"""Processes on a GPU: from NVML's two lists, named by /proc."""

from __future__ import annotations

from pathlib import Path

import pynvml
import pytest

from services.exporter.proc_info import process_info
from services.exporter.reading import Process
from tests.support.fake_nvml import FakeProcess
from tests.unit.exporter.nvml.boxes import only, opened, p40


def proc_entry(proc: Path, pid: int, command: bytes, uid: int = 0, comm: str = "short") -> None:
    directory = proc / str(pid)
    directory.mkdir(parents=True)
    (directory / "status").write_text(f"Name:\t{comm}\nState:\tR (running)\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
    (directory / "cmdline").write_bytes(command)
    (directory / "comm").write_text(f"{comm}\n")


def test_compute_and_graphics(tmp_path: Path) -> None:
    proc_entry(tmp_path, 10, b"python3\0train.py\0")
    proc_entry(tmp_path, 20, b"/usr/bin/Xorg\0", uid=4_000_000_000)
    gpu = p40(processes=[FakeProcess(20, 5, "G"), FakeProcess(30, None, "C+G"), FakeProcess(10, 512)])
    with opened(gpu, processes=True, proc=tmp_path) as (_, source):
        assert only(source.read()).processes == (
            Process(10, "root", "python3 train.py", 512, "C"),
            Process(20, "4000000000", "/usr/bin/Xorg", 5, "G"),
            Process(30, None, None, None, "C+G"),  # gone since
        )


def test_they_are_not_asked_for_unless_wanted() -> None:
    with opened(p40(processes=[FakeProcess(10)])) as (fake, source):
        assert only(source.read()).processes is None
        assert not any("Processes" in name for name in fake.calls)


def test_none_running() -> None:
    with opened(p40(), processes=True) as (_, source):
        assert only(source.read()).processes == ()


def test_not_told() -> None:
    with opened(p40(processes=None), processes=True) as (_, source):
        assert only(source.read()).processes is None


def test_no_permission_is_not_none_running() -> None:
    gpu = p40(errors={"nvmlDeviceGetComputeRunningProcesses_v3": pynvml.NVML_ERROR_NO_PERMISSION})
    with opened(gpu, processes=True) as (_, source):
        assert only(source.read()).processes is None


def test_a_gpu_without_graphics() -> None:
    code = pynvml.NVML_ERROR_NOT_SUPPORTED
    functions = ("nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v2")
    gpu = p40(processes=[FakeProcess(10)], errors=dict.fromkeys(functions, code))
    with opened(gpu, processes=True) as (_, source):
        assert [process.pid for process in only(source.read()).processes or ()] == [10]


def test_an_old_library() -> None:
    with opened(p40(processes=[FakeProcess(10)]), processes=True) as (fake, source):
        fake.absent.update(f"nvmlDeviceGet{kind}RunningProcesses_v3" for kind in ("Compute", "Graphics"))
        assert [process.pid for process in only(source.read()).processes or ()] == [10]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (b"python3\0-m\0job\0", "python3 -m job"),
        (b"", "short"),
        (b"sh\0-c\0echo a\n  b\0", "sh -c echo a b"),
        (b"\xff\x1b[0m", "??[0m"),
        (b"x" * 1000, "x" * 200),
    ],
)
def test_commands(tmp_path: Path, command: bytes, told: str) -> None:
    proc_entry(tmp_path, 7, command)
    assert process_info(7, tmp_path)[1] == told


def test_a_mangled_status_has_no_user(tmp_path: Path) -> None:
    proc_entry(tmp_path, 7, b"x")
    (tmp_path / "7/status").write_text("Uid:\tnobody\n")
    assert process_info(7, tmp_path) == (None, "x")
