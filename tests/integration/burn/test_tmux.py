"""`gpumon burn --tmux` with the real tmux."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.contract.event import Status
from tests.integration.burn.test_burn import QUICK, Box, gone
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
    wait_until(lambda: sessions(box, tmux) == [], within=30, what="the end of the session")
    assert box.tag() == Status(tag="idle")
    assert "result: completed" in box.log()
    log = re.findall(r"log (\S+)", out)[0]
    assert (tmp_path / log).read_text() == box.log()


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
        capture = ["tmux", "capture-pane", "-p", "-t", session]
        seen = subprocess.run(capture, env=box.environment(**tmux), capture_output=True, text=True, check=True).stdout
        return "proc'd: 40" in seen and "MHz" in seen

    wait_until(shown, within=30, what="the live page")
    assert re.search(r"phase 1/2 burn bench", seen)
    assert re.search(r"GPU 0 .* \d+ C +peak \d+ C +[▁▂▃▄▅▆▇█]+ +\d+ W +\d+ MHz", seen)
    subprocess.run(["tmux", "send-keys", "-t", session, "C-c"], env=box.environment(**tmux), check=True)
    wait_until(lambda: sessions(box, tmux) == [], within=20, what="the end of the session")
    wait_until(gone(box.pids), within=10, what="the end of gpu_burn")


def test_without_tmux(tmp_path: Path) -> None:
    box = Box(tmp_path)
    code, _, err = box.run(*QUICK, "--tmux", PATH=str(tmp_path))
    assert code == 2
    assert "tmux is not installed" in err
