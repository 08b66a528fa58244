"""The source on a real process: a fake nvidia-smi that answers, fails, hangs and loses GPUs as the driver's does."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from services.contract.sentinels import Missing
from services.exporter.reading import SourceError, Sweep, Trouble
from services.exporter.smi import program as smi_program
from services.exporter.smi.source import SmiSource
from tests.support.fake_smi import FakeSmi, GpuState, MigState, fixture
from tests.support.processes import wait_until

LIMIT = 20.0
"""Seconds; far more than the fake needs on a loaded machine."""
FIRST, SECOND, THIRD = "00000000:06:00.0", "00000000:07:00.0", "00000000:08:00.0"


@pytest.fixture(autouse=True)
def _no_process_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smi_program, "_STUCK", {})


def three(directory: Path) -> FakeSmi:
    gpus = [GpuState(f"GPU-{n}", pci, values={"gpu_temp": 40 + n}) for n, pci in enumerate((FIRST, SECOND, THIRD))]
    return FakeSmi(directory, gpus=gpus)


def source(smi: FakeSmi, timeout: float = LIMIT, proc: Path | None = None, processes: bool = False) -> SmiSource:
    return SmiSource(smi.program, timeout, processes, proc=proc or smi.directory / "no-proc")


def temperatures(sweep: Sweep) -> dict[int, int | float]:
    return {reading.device.index: reading.values["gpu_temp"] for reading in sweep.readings}


def trouble(of: SmiSource) -> tuple[Trouble, str]:
    with pytest.raises(SourceError) as error:
        of.read()
    return error.value.trouble, str(error.value)


def test_a_reading(tmp_path: Path) -> None:
    begun = time.time()
    sweep = source(FakeSmi(tmp_path)).read()
    assert sweep.source == "nvidia-smi"
    assert begun <= sweep.time <= time.time()
    (gpu,) = sweep.readings
    assert gpu.values["gpu_temp"] == 31
    assert gpu.missing["fan_speed"] is Missing.UNSUPPORTED
    assert sweep.lost == ()


def test_each_reading_is_a_new_one(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path)
    smi.vary("temperature/gpu_temp", ["40 C", "41 C", "N/A"])
    gpu = source(smi)
    found = [gpu.read().readings[0] for _ in range(3)]
    assert [reading.values.get("gpu_temp") for reading in found] == [40, 41, None]
    assert smi.calls() == [["-q", "-x"]] * 3


def test_a_warning_around_the_document_and_an_exit_code_do_not_hide_it(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path)
    smi.fail(14, fixture("tesla-p40").decode() + "WARNING: infoROM is corrupted at gpu 0000:06:00.0\n")
    assert source(smi).read().readings[0].values["gpu_temp"] == 31


def test_no_program(tmp_path: Path) -> None:
    kind, message = trouble(SmiSource(str(tmp_path / "nvidia-smi")))
    assert kind is Trouble.NO_DRIVER
    assert "install" in message


def test_a_program_that_may_not_be_run(tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    kind, message = trouble(SmiSource(str(tmp_path / "nvidia-smi")))
    assert kind is Trouble.PERMISSION
    assert str(tmp_path) in message


def test_a_program_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_bytes(b"\x7fELF nothing")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert trouble(SmiSource(str(tmp_path / "nvidia-smi")))[0] is Trouble.FAILED


def test_no_driver(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path)
    smi.no_driver()
    kind, message = trouble(source(smi))
    assert kind is Trouble.NO_DRIVER
    assert "modprobe nvidia" in message


def test_mismatch(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path)
    smi.mismatch()
    kind, message = trouble(source(smi))
    assert kind is Trouble.MISMATCH
    assert "reboot" in message


def test_no_permission(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path)
    smi.no_permission()
    kind, message = trouble(source(smi))
    assert kind is Trouble.PERMISSION
    assert "/dev/nvidia" in message


def test_devices_taken_from_a_container(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path)
    smi.fail(255, "Failed to initialize NVML: Unknown Error\n")
    kind, message = trouble(source(smi))
    assert kind is Trouble.FAILED
    assert "container" in message


def test_a_code_without_text(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path)
    smi.fail(9, "")
    assert trouble(source(smi))[0] is Trouble.NO_DRIVER
    smi.fail(77, "")
    assert trouble(source(smi))[0] is Trouble.FAILED


@pytest.mark.parametrize("part", [0.02, 0.5, 0.97])
def test_a_truncated_answer_is_garbage(tmp_path: Path, part: float) -> None:
    smi = FakeSmi(tmp_path)
    smi.truncate(part)
    kind, message = trouble(source(smi))
    assert kind is Trouble.GARBAGE
    assert "run it by hand" in message


def test_garbage(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path)
    smi.garbage()
    assert trouble(source(smi))[0] is Trouble.GARBAGE
    smi.garbage(b"<?xml version='1.0'?><nvidia_smi_log><gpu></nvidia_smi_log>")
    assert trouble(source(smi))[0] is Trouble.GARBAGE


def test_endless_garbage_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smi_program, "MAX_BYTES", 200_000)
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexec yes\n")
    program.chmod(0o755)
    kind, message = trouble(SmiSource(str(program), LIMIT))
    assert kind is Trouble.GARBAGE
    assert "printed more than" in message
    assert not _running(str(tmp_path))


def test_a_hung_program_is_killed_with_its_children(tmp_path: Path) -> None:
    """It ignores SIGTERM and has a child that holds the pipes."""
    smi = FakeSmi(tmp_path)
    smi.hang()
    begun = time.monotonic()
    kind, message = trouble(source(smi, timeout=1.0))
    assert kind is Trouble.HUNG
    assert "no answer within 1 s" in message
    assert time.monotonic() - begun < 10
    assert not _running(str(tmp_path))
    smi.heal()
    assert source(smi).read().readings


def test_a_slow_program_is_waited_for(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path)
    smi.hang(seconds=0.3)
    assert source(smi).read().readings


def test_no_second_one_beside_one_that_cannot_be_killed(tmp_path: Path) -> None:
    """SIGKILL does not end a process that waits in the kernel; here: one that another is started for in its place."""
    smi = FakeSmi(tmp_path)
    held = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL)
    try:
        smi_program._STUCK[smi.program] = held
        kind, message = trouble(source(smi))
        assert kind is Trouble.HUNG
        assert str(held.pid) in message
        assert smi.calls() == []
    finally:
        held.kill()
        held.wait()
    assert source(smi).read().readings


def _running(text: str) -> list[int]:
    """Processes whose command line has `text`, after those that were killed had a moment to go."""
    deadline = time.monotonic() + 5
    found = [0]
    while found and time.monotonic() < deadline:
        found = _with(text)
    return found


def _with(text: str) -> list[int]:
    found = [p.pid for p in psutil.process_iter(["cmdline", "status"]) if text in " ".join(p.info["cmdline"] or ())]
    return [pid for pid in found if pid != os.getpid()]


def test_a_lost_gpu_in_the_document(tmp_path: Path) -> None:
    smi = three(tmp_path)
    gpu = source(smi)
    gpu.read()
    smi.lose(1)
    sweep = gpu.read()
    assert temperatures(sweep) == {0: 40, 2: 42}
    (lost,) = sweep.lost
    assert (lost.reason, lost.index, lost.pci_bus_id) == ("GPU is lost", 1, SECOND)
    assert (lost.uuid, lost.model) == ("GPU-1", "Tesla P40")  # known from the reading before
    smi.heal()
    assert temperatures(gpu.read()) == {0: 40, 1: 41, 2: 42}


def test_a_lost_gpu_that_is_all_nvidia_smi_talks_of(tmp_path: Path) -> None:
    """The others are asked one by one, and keep their index."""
    smi = three(tmp_path)
    gpu = source(smi)
    gpu.read()
    smi.lose(1, how="text")
    sweep = gpu.read()
    assert temperatures(sweep) == {0: 40, 2: 42}
    (lost,) = sweep.lost
    assert (lost.reason, lost.index, lost.uuid) == ("GPU is lost", 1, "GPU-1")
    assert smi.calls()[-2:] == [["-q", "-x", "-i", FIRST], ["-q", "-x", "-i", THIRD]]


def test_the_same_at_the_first_reading_with_the_kernel_modules_list(tmp_path: Path) -> None:
    smi = three(tmp_path)
    smi.lose(0, how="text")
    for pci in (FIRST, SECOND, THIRD):
        (tmp_path / "proc/driver/nvidia/gpus" / pci.replace("00000000", "0000")).mkdir(parents=True)
    sweep = source(smi, proc=tmp_path / "proc").read()
    assert temperatures(sweep) == {1: 41, 2: 42}
    (lost,) = sweep.lost
    assert (lost.index, lost.pci_bus_id, lost.uuid) == (0, FIRST, None)


def test_the_same_with_nothing_but_the_listing(tmp_path: Path) -> None:
    smi = three(tmp_path)
    smi.lose(2, how="text")
    sweep = source(smi).read()
    assert temperatures(sweep) == {0: 40, 1: 41}
    assert [lost.pci_bus_id for lost in sweep.lost] == [THIRD]
    assert ["-L"] in smi.calls()


def test_two_lost_of_three(tmp_path: Path) -> None:
    smi = three(tmp_path)
    gpu = source(smi)
    gpu.read()
    smi.lose(0, how="text")
    smi.lose(2)
    sweep = gpu.read()
    assert temperatures(sweep) == {1: 41}
    assert sorted((lost.index, lost.uuid) for lost in sweep.lost) == [(0, "GPU-0"), (2, "GPU-2")]


def test_the_only_gpu_is_lost(tmp_path: Path) -> None:
    """No reading is left, and that is told of the GPU and not of the source."""
    smi = FakeSmi(tmp_path, gpus=[GpuState("GPU-0", FIRST)])
    gpu = source(smi)
    gpu.read()
    smi.lose(0, how="text")
    sweep = gpu.read()
    assert sweep.readings == ()
    assert [(lost.uuid, lost.reason) for lost in sweep.lost] == [("GPU-0", "GPU is lost")]


@pytest.mark.parametrize(
    ("text", "index", "pci", "why"),
    [
        ("GPU 0000:07:00.0: GPU is lost.  Reboot the system to recover this GPU", 1, SECOND, "GPU is lost"),
        ("GPU0000:07:00.0: Unknown Error", 1, SECOND, "Unknown Error"),
        ("GPU1: 0000:07:00.0: Unknown Error", 1, SECOND, "Unknown Error"),
        ("GPU1: Unknown Error", 1, SECOND, "Unknown Error"),
        ("gpu 0000:07:00.0: Not Found", 1, SECOND, "Not Found"),
    ],
)
def test_the_message_of_every_version(tmp_path: Path, text: str, index: int, pci: str, why: str) -> None:
    smi = three(tmp_path)
    gpu = source(smi)
    gpu.read()
    smi.fail(15, f"Unable to determine the device handle for {text}\n")
    sweep = gpu.read()
    lost = next(item for item in sweep.lost if item.pci_bus_id == pci)
    assert (lost.index, lost.reason, lost.uuid) == (index, why, "GPU-1")


def test_a_gpu_that_may_not_be_opened_is_not_lost(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path)
    smi.fail(4, "Unable to determine the device handle for GPU 0000:06:00.0: Insufficient Permissions\n")
    assert trouble(source(smi))[0] is Trouble.PERMISSION


def test_a_gpu_that_is_counted_and_not_shown(tmp_path: Path) -> None:
    smi = three(tmp_path)
    gpu = source(smi)
    gpu.read()
    smi.lose(0, how="omitted")
    sweep = gpu.read()
    assert temperatures(sweep) == {1: 41, 2: 42}  # not moved up
    assert [(lost.index, lost.uuid, lost.pci_bus_id) for lost in sweep.lost] == [(0, "GPU-0", FIRST)]


def test_an_empty_dock(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path)
    smi.no_devices()
    assert source(smi).read().readings == ()


def test_hot_plug(tmp_path: Path) -> None:
    smi = three(tmp_path)
    gpu = source(smi)
    gpu.read()
    smi.remove(0)
    assert {row.device.uuid: row.device.index for row in gpu.read().readings} == {"GPU-1": 0, "GPU-2": 1}
    smi.add(GpuState("GPU-9", "00000000:09:00.0"))
    assert [row.device.uuid for row in gpu.read().readings] == ["GPU-1", "GPU-2", "GPU-9"]
    assert gpu.read().lost == ()


def test_mig_profiles_come_from_the_listing_once(tmp_path: Path) -> None:
    mig = [MigState(3, "2g.20gb", {"fb_used": 12}), MigState(9, "1g.10gb", {"fb_used": 7})]
    smi = FakeSmi(tmp_path, gpus=[GpuState(model="NVIDIA A100", mig=mig)])
    gpu = source(smi)
    for _ in range(2):
        whole, *instances = gpu.read().readings
        assert whole.device.instance_id is None
        found = [(row.device.instance_id, row.device.instance_profile, row.values["fb_used"]) for row in instances]
        assert found == [(3, "2g.20gb", 12), (9, "1g.10gb", 7)]
    assert smi.calls().count(["-L"]) == 1


def test_processes_have_their_user_and_command(tmp_path: Path) -> None:
    """Ours for the one that runs; what nvidia-smi says of one that is gone."""
    own = os.getpid()
    smi = FakeSmi(tmp_path, gpus=[GpuState(processes=[(own, "C", "[Not Found]", 512), (4_999_999, "C", "train", 1)])])
    processes = source(smi, proc=Path("/proc"), processes=True).read().readings[0].processes
    assert processes is not None
    assert [(p.pid, p.used_memory, p.kind) for p in processes] == [(own, 512, "C"), (4_999_999, 1, "C")]
    assert processes[0].user == psutil.Process().username()
    assert processes[0].command
    assert "py" in processes[0].command
    assert (processes[1].user, processes[1].command) == (None, "train")


def test_the_document_is_offered(tmp_path: Path) -> None:
    offered: list[bytes] = []
    smi = FakeSmi(tmp_path)
    SmiSource(smi.program, LIMIT, on_document=offered.append).read()
    assert offered == [fixture("tesla-p40").strip()]


def test_an_index_stays_where_nvidia_smi_does_not_list_by_address(tmp_path: Path) -> None:
    gpus = [GpuState(f"GPU-{n}", pci, values={"gpu_temp": 40 + n}) for n, pci in enumerate((THIRD, FIRST, SECOND))]
    smi = FakeSmi(tmp_path, gpus=gpus)
    gpu = source(smi)
    gpu.read()
    smi.lose(1, how="text")
    sweep = gpu.read()
    assert temperatures(sweep) == {0: 40, 2: 42}
    assert [(lost.index, lost.uuid) for lost in sweep.lost] == [(1, "GPU-1")]


def test_a_gpu_that_says_something_else_when_asked_alone_is_lost_too(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        f'case "$*" in "-q -x -i {SECOND}") echo "Something else"; exit 255;; esac\n'
        'echo "Unable to determine the device handle for GPU0000:06:00.0: GPU is lost."; exit 15\n'
    )
    program.chmod(0o755)
    for pci in (FIRST, SECOND):
        (tmp_path / "proc/driver/nvidia/gpus" / pci).mkdir(parents=True)
    sweep = SmiSource(str(program), LIMIT, proc=tmp_path / "proc").read()
    assert [(lost.index, lost.reason) for lost in sweep.lost] == [(1, "Something else"), (0, "GPU is lost")]


@pytest.mark.timeout(60)
def test_a_reading_under_way_ends_when_the_source_is_closed(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path)
    smi.hang()
    hung = source(smi, timeout=50.0)
    ended: list[object] = []
    reading = threading.Thread(target=lambda: ended.append(trouble(hung)))
    reading.start()
    wait_until(lambda: _with(str(tmp_path)) != [], within=20, what="nvidia-smi")
    hung.close()
    reading.join(20)
    assert ended
    assert not _running(str(tmp_path))


@pytest.mark.timeout(60)
def test_a_program_that_ends_leaves_no_nvidia_smi_behind(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path)
    smi.hang()
    code = (
        "import sys, threading; from services.exporter.smi.source import SmiSource; "
        "threading.Thread(target=SmiSource(sys.stdin.readline().strip(), 50.0).read, daemon=True).start(); "
        "sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, text=True) as program:
        assert program.stdin is not None
        print(smi.program, file=program.stdin, flush=True)
        wait_until(lambda: _with(str(tmp_path)) != [], within=20, what="nvidia-smi")
    assert not _running(str(tmp_path))
