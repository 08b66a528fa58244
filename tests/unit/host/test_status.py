"""`gpumon status`: what is written is what every reader sees, whole, and nonsense is reported."""

from __future__ import annotations

import argparse
import json
import os
import stat
from pathlib import Path

import pytest

from services.collector.host_status import StatusFile
from services.contract.event import Status
from services.host import status
from services.host.status import StatusError, during, make, read, write
from services.host.tags import Tags
from services.settings import load

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "status.json"


def gpumon_status(path: Path, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    status.add_arguments(parser)
    return status.run(parser.parse_args([*arguments, "--status-file", str(path)]), load())


def test_what_is_set_is_what_the_collector_reads(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpumon_status(path, "set", "bench", 'fan=100% "gpu-burn" ジョブ') == 0
    assert StatusFile(path).read() == Status(tag="bench", memo='fan=100% "gpu-burn" ジョブ')
    assert gpumon_status(path, "set", "idle") == 0
    assert StatusFile(path).read() == Status(tag="idle")
    capsys.readouterr()
    assert gpumon_status(path, "show", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["tag"], told["memo"], told["file"]) == ("idle", None, str(path))
    assert gpumon_status(path, "clear") == 0
    assert not path.exists()
    assert gpumon_status(path, "clear") == 0, "clearing nothing is no error"


def test_other_users_may_read_it(path: Path) -> None:
    before = os.umask(0o077)
    try:
        write(path, make("prod"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_it_is_replaced_whole_and_nothing_is_left_behind(path: Path) -> None:
    write(path, make("idle", "x" * 1000))
    with path.open() as reader:
        write(path, make("bench"))
        assert json.loads(reader.read())["tag"] == "idle", "an open reader sees the old file to its end"
    assert [item.name for item in path.parent.iterdir()] == ["status.json"]


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "shared.json")
    write(path, make("prod"))
    assert path.is_symlink()
    assert read(tmp_path / "shared.json") == Status(tag="prod")


def test_a_write_that_fails_leaves_the_old_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, make("idle"))

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StatusError, match="No space left on device"):
        write(path, make("bench"))
    assert read(path) == Status(tag="idle")
    assert [item.name for item in path.parent.iterdir()] == ["status.json"]


NONSENSE = ['{"tag": 3}', "{", "[]", "null", "\x00", '{"tag": "' + "x" * 2000 + '"}', "\udcff"]


@pytest.mark.parametrize("content", [*NONSENSE, '{"tag":"bench\udcff"}', '{"memo":' + "[" * 60_000, "x" * 70_000])
def test_nonsense_is_reported_and_replaced(path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_bytes(content.encode(errors="surrogateescape"))
    assert gpumon_status(path, "show") == 1
    told = capsys.readouterr().err
    assert "holds no status" in told or "larger than" in told
    assert told.count("\n") == 1
    assert "gpumon status set" in told
    assert gpumon_status(path, "set", "idle") == 0
    assert "it is replaced" in capsys.readouterr().err
    assert read(path) == Status(tag="idle")


@pytest.mark.parametrize("action", [("show",), ("set", "idle"), ("clear",)])
def test_what_is_no_regular_file_is_left_alone(
    path: Path, action: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """As root, `/dev/null` would be replaced."""
    os.mkfifo(path)
    assert gpumon_status(path, *action) == 1
    told = capsys.readouterr().err
    assert "it is a FIFO, not a regular file" in told
    assert told.count("\n") == 1
    assert path.is_fifo()


def test_a_burn_that_holds_the_status_is_told(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tags = Tags(path, None, print)
    tags.begin()
    try:
        assert gpumon_status(path, "set", "prod") == 0
        told = capsys.readouterr()
        assert told.out.startswith("prod")
        assert f"a burn or benchmark (process {os.getpid()}) holds the status" in told.err
        assert "its next phase overwrites" in told.err
        assert gpumon_status(path, "clear") == 0
        assert "holds the status" in capsys.readouterr().err
    finally:
        tags.restore()
    assert gpumon_status(path, "set", "prod") == 0
    assert capsys.readouterr().err == "", "the lock's file stays, the lock does not"


def test_no_file_says_what_to_do(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpumon_status(path, "show", "--json") == 1
    told = capsys.readouterr()
    assert "does not exist" in json.loads(told.out)["problem"]
    assert 'gpumon status set idle "baseline"' in told.err


@pytest.mark.parametrize(
    ("tag", "memo"),
    [("", None), ("  ", None), ("a\nb", None), ("idle", "nul\0"), ("idle", "half \udcff"), ("x" * 1025, None)],
)
def test_what_the_event_could_not_carry_is_refused(path: Path, tag: str, memo: str | None) -> None:
    assert gpumon_status(path, "set", tag, *([memo] if memo else [])) == 1
    assert not path.exists()


def test_a_directory_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpumon_status(tmp_path / "none" / "status.json", "set", "idle") == 1
    assert "set STATUS_FILE" in capsys.readouterr().err


def test_from_another_directory_it_says_which_file_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STATUS_FILE", raising=False)
    parser = argparse.ArgumentParser()
    status.add_arguments(parser)

    def told(*arguments: str) -> tuple[str, str]:
        status.run(parser.parse_args(arguments), load())
        captured = capsys.readouterr()
        return captured.out, captured.err

    file = tmp_path / "status.json"
    out, warning = told("set", "bench", "x")
    assert str(file) in out
    assert warning.count("\n") == 1
    assert f"warning: {file} was written" in warning
    assert "STATUS_FILE is not set and there is no .env here" in warning
    assert "go to the project's directory" in told("clear")[1]
    assert "go to the project's directory" in told("show")[1]
    monkeypatch.setenv("STATUS_FILE", str(file))
    assert told("set", "bench", "x")[1] == ""
    monkeypatch.delenv("STATUS_FILE")
    (tmp_path / ".env").touch()
    assert told("set", "bench", "x")[1] == ""


def test_during_comes_back_to_what_was_before(path: Path) -> None:
    write(path, make("prod", "serving"))
    with during(path, "bench", "gpu-burn"):
        assert read(path) == Status(tag="bench", memo="gpu-burn")
    assert read(path) == Status(tag="prod", memo="serving")
    path.unlink()
    with during(path, "bench"):
        pass
    assert not path.exists()


def test_during_ends_with_the_final_one_however_it_ends(path: Path) -> None:
    write(path, make("idle"))

    def interrupted_run() -> None:
        with during(path, "bench", final=make("prod", "normal usage")):
            write(path, make("idle", "cooldown"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_run()
    assert read(path) == Status(tag="prod", memo="normal usage")


def test_the_example_is_a_status() -> None:
    assert read(ROOT / "status.json.example") == Status(tag="idle", memo="baseline")
