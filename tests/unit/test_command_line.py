"""`gpumon` itself: every role says what it is, and nothing is asked for without an answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from services.__main__ import CLOSED_PIPE, ROLES, build_parser, main
from services.settings import child_environment

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("role", ROLES, ids=lambda r: r.name)
def test_every_role_has_help_with_an_example_and_its_settings(role: object, capsys: pytest.CaptureFixture[str]) -> None:
    name = getattr(role, "name", "")
    with pytest.raises(SystemExit) as ended:
        build_parser(name).parse_args([name, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"example: gpumon {name}" in text
    assert "settings: " in text


def test_without_a_role_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "collector" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["sample", "--source", "mock", "--dry-run", "--json"],
        ["catalogue", "--format", "markdown"],
        ["spool", "status"],
    ],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_a_reader_that_has_seen_enough_is_no_error(arguments: list[str], unbuffered: str, tmp_path: Path) -> None:
    """`| head`: whatever the role, it ends without a word, and with what a shell takes for SIGPIPE."""
    (tmp_path / "spool").mkdir()  # without it `spool` has something to say on stderr
    # A shell's own pipe: nothing else in this process can hold its reading end open.
    pipe = '"$@" | true; exit "${PIPESTATUS[0]}"'
    done = subprocess.run(
        ["bash", "-c", pipe, "bash", sys.executable, "-m", "services", *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path,
        env=child_environment(PYTHONPATH=str(ROOT), PYTHONUNBUFFERED=unbuffered),
    )  # fmt: skip
    assert (done.stderr, done.returncode) == ("", CLOSED_PIPE)


def test_another_broken_pipe_is_a_bug(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def broken(_arguments: list[str]) -> int:
        raise BrokenPipeError

    monkeypatch.setattr("services.__main__._run", broken)
    with capfd.disabled(), pytest.raises(BrokenPipeError):
        main([])


def test_demo_refuses_a_data_directory_it_cannot_make(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.touch()
    assert main(["demo", "--data-dir", str(file / "x")]) == 1
    assert "--data-dir" in capsys.readouterr().err
