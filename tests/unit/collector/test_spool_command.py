from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from services.collector import spool_command
from services.collector.spool import Spool
from services.settings import load
from tests.unit.collector.fakes import batch


def gpumon_spool(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    spool_command.add_arguments(parser)
    return spool_command.run(parser.parse_args(arguments), load())


def filled(directory: Path) -> Spool:
    spool = Spool(directory, 2**20)
    spool.write(batch(0), "_MSG_TIMED_OUT")
    spool.sync()
    return spool


def test_status_while_a_collector_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spool = filled(tmp_path)
    assert gpumon_spool("status", "--spool-dir", str(tmp_path), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["records"], told["bytes"]) == (2, spool.bytes)
    [segment] = told["segments"]
    assert (segment["_spool_reason"], segment["records"]) == ("_MSG_TIMED_OUT", 2)
    spool.close()


def test_status_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path).close()
    gpumon_spool("status", "--spool-dir", str(tmp_path))
    assert "2 records" in capsys.readouterr().out


def test_status_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpumon_spool("status", "--spool-dir", str(tmp_path / "none")) == 0
    assert f"{tmp_path / 'none'} does not exist" in capsys.readouterr().out
    assert gpumon_spool("status", "--spool-dir", str(tmp_path / "none"), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["exists"], told["records"]) == (False, 0)


def test_status_changes_nothing(tmp_path: Path) -> None:
    filled(tmp_path).close()
    path = next(tmp_path.glob("*.spool"))
    path.write_bytes(path.read_bytes()[:-3])
    before = path.read_bytes()
    gpumon_spool("status", "--spool-dir", str(tmp_path))
    assert path.read_bytes() == before


def test_flush_leaves_a_running_collector_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spool = filled(tmp_path)
    assert gpumon_spool("flush", "--spool-dir", str(tmp_path)) == 1
    assert "it flushes the spool by itself" in capsys.readouterr().err
    assert gpumon_spool("flush", "--spool-dir", str(tmp_path), "--unless-running") == 0, "a timer has nothing to mend"
    assert capsys.readouterr().err == ""
    spool.close()


def test_the_spools_below_are_shown_with_their_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path).close()
    filled(tmp_path / "sample-2").close()
    (tmp_path / "something").mkdir()
    gpumon_spool("status", "--spool-dir", str(tmp_path), "--json")
    told = json.loads(capsys.readouterr().out)
    assert [segment["file"] for segment in told["segments"]] == ["0000000001.spool", "sample-2/0000000001.spool"]
    assert told["records"] == 4
    gpumon_spool("status", "--spool-dir", str(tmp_path))
    assert "sample-2/0000000001.spool  2 records" in capsys.readouterr().out
