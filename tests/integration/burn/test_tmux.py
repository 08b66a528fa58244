"""`gpumon burn --tmux` with the real tmux."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.contract.event import Status
from tests.integration.burn.test_burn import BEFORE, QUICK, Box, gone
from tests.support.processes import wait_until


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a tmux server of the test's own, started before with another environment."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    directory = tmp_path / "tmux"
    directory.mkdir()
    environment = {"TMUX_TMPDIR": str(directory), "TMUX": ""}
    box = Box(tmp_path)
    for arguments in (["new-session", "-d", "-s", "other", "sleep 600"], ["set-option", "-g", "exit-empty", "off"]):
        subprocess.run(["tmux", *arguments], env={**box.environment(), **environment, "GPU_BURN": "/other"}, check=True)
    yield environment
    subprocess.run(["tmux", "kill-server"], env={**box.environment(), **environment}, check=False)


def sessions(box: Box, tmux: dict[str, str]) -> list[str]:
    listed = subprocess.run(
        ["tmux", "list-sessions", "-F", "#S"],
        env=box.environment(**tmux),
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listed.stdout.split() if name != "other"]


def ended(box: Box, tmux: dict[str, str], session: str) -> bool:
    """The session is there, and what ran in it is not."""
    listed = subprocess.run(
        ["tmux", "list-panes", "-t", session, "-F", "#{pane_dead}"],
        env=box.environment(**tmux),
        capture_output=True,
        text=True,
        check=True,
    )
    return listed.stdout.strip() == "1"


def printed(box: Box, tmux: dict[str, str], session: str) -> str:
    capture = ["tmux", "capture-pane", "-p", "-S", "-", "-t", session]
    return subprocess.run(capture, env=box.environment(**tmux), capture_output=True, text=True, check=True).stdout


def test_runs_in_a_session_of_its_own(tmp_path: Path, tmux: dict[str, str]) -> None:
    """The environment is that of the caller, not that of whoever started the server; memos keep their quotes."""
    box = Box(tmp_path)
    memo = 'it\'s "hot" $HOME; `date`'
    code, out, err = box.run(*QUICK, "--sec", "3", "--pre-memo", memo, "--final-tag", "idle", "--tmux", **tmux)
    assert code == 0, err
    session = re.findall(r"tmux attach -t (gpumon-burn-\d{8}-\d{6})", out)[0]
    assert sessions(box, tmux) == [session]
    wait_until(box.burning, within=30, what="the burn")
    assert box.tag() == Status(tag="bench", memo=memo)
    wait_until(lambda: ended(box, tmux, session), within=30, what="the end of the run")
    assert box.tag() == Status(tag="idle")
    assert "result: completed" in box.log()
    log, summary = re.findall(r"(?:log|JSON) (/\S+)", out)
    assert Path(log).read_text() == box.log()
    assert '"completed"' in Path(summary).read_text()


def test_the_summary_stays_until_the_session_is_closed(tmp_path: Path, tmux: dict[str, str]) -> None:
    box = Box(tmp_path)
    code, out, err = box.run(*QUICK, "--sec", "1", "--tmux", **tmux)
    assert code == 0, err
    [session] = sessions(box, tmux)
    wait_until(lambda: ended(box, tmux, session), within=30, what="the end of the run")
    seen = printed(box, tmux, session)
    assert "result: completed" in seen
    assert re.search(r"^    start \d+ C, peak \d+ C", seen, re.MULTILINE)  # 80 columns: no table
    assert re.search(r"^  log: /", seen, re.MULTILINE)
    close = re.findall(r"tmux (kill-session -t \S+)", out)[0]
    subprocess.run(["tmux", *close.split()], env=box.environment(**tmux), check=True)
    assert sessions(box, tmux) == []


NO_GPU = {"EXPORTER_SOURCE": "nvidia-smi", "NVIDIA_SMI": "/no/such/nvidia-smi"}


@pytest.mark.parametrize(("arguments", "environment", "reason"), [
    ((), {"GPU_BURN": "/no/such/gpu_burn"}, "GPU_BURN=/no/such/gpu_burn: there is no such program"),
    (("--final-memo", "x"), {}, "--final-memo needs --final-tag"),
    (("--max-temp", "80"), NO_GPU, "gpumon burn: --max-temp cannot be kept"),
    ((), {"STATUS_FILE": "/proc/status.json"}, "STATUS_FILE=/proc/status.json"),
])  # fmt: skip
def test_what_refuses_a_run_refuses_it_here_too(
    tmp_path: Path, tmux: dict[str, str], arguments: tuple[str, ...], environment: dict[str, str], reason: str
) -> None:
    box = Box(tmp_path)
    code, out, err = box.run(*QUICK, "--sec", "1", *arguments, "--tmux", **tmux, **environment)
    assert (code, out) == (2, ""), err
    assert reason in err
    assert "Pane is dead" not in err
    assert sessions(box, tmux) == []
    assert box.tag() == BEFORE


def test_a_second_run_is_refused_here_too(tmp_path: Path, tmux: dict[str, str]) -> None:
    box = Box(tmp_path)
    assert box.run(*QUICK, "--sec", "60", "--tmux", **tmux)[0] == 0
    [session] = sessions(box, tmux)
    code, out, err = box.run("--sec", "1", "--load", "none", "--tmux", **tmux)
    assert (code, out) == (2, ""), err
    assert "another burn or benchmark (process" in err
    assert sessions(box, tmux) == [session]
    subprocess.run(["tmux", "kill-session", "-t", session], env=box.environment(**tmux), check=True)
    wait_until(lambda: box.tag() == BEFORE, within=20, what="the tag from before")


def test_a_session_that_is_killed_puts_everything_back(tmp_path: Path, tmux: dict[str, str]) -> None:
    box = Box(tmp_path)
    assert box.run(*QUICK, "--sec", "60", "--final-tag", "prod", "--tmux", **tmux)[0] == 0
    wait_until(box.burning, within=30, what="the burn")
    subprocess.run(["tmux", "kill-session", "-t", sessions(box, tmux)[0]], env=box.environment(**tmux), check=True)
    wait_until(lambda: box.tag() == Status(tag="prod"), within=20, what="the final tag")
    wait_until(gone(box.pids), within=10, what="the end of gpu_burn and its child")


def test_the_screen(tmp_path: Path, tmux: dict[str, str]) -> None:
    """What a person who attaches sees: phase, time left, each GPU with its sparkline, watts and clock."""
    box = Box(tmp_path)
    assert box.run(*QUICK, "--sec", "30", "--tmux", **tmux)[0] == 0
    [session] = sessions(box, tmux)
    seen = ""

    def shown() -> bool:
        nonlocal seen
        seen = printed(box, tmux, session)
        return "proc'd: 40" in seen and "MHz" in seen

    wait_until(shown, within=30, what="the live page")
    assert re.search(r"phase 1/1 burn bench", seen)
    assert re.search(r"GPU 0 .* \d+ C +peak \d+ C +[▁▂▃▄▅▆▇█]+ +\d+ W +\d+ MHz", seen)
    subprocess.run(["tmux", "send-keys", "-t", session, "C-c"], env=box.environment(**tmux), check=True)
    wait_until(lambda: ended(box, tmux, session), within=20, what="the end of the run")
    wait_until(gone(box.pids), within=10, what="the end of gpu_burn")


def test_without_tmux(tmp_path: Path) -> None:
    box = Box(tmp_path)
    code, _, err = box.run(*QUICK, "--tmux", PATH=str(tmp_path))
    assert code == 2
    assert "tmux is not installed" in err
