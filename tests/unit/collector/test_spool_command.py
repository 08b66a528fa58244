from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.collector import spool_command
from services.collector.spool import Spool
from services.settings import Settings, load
from tests.unit.collector.fakes import FakeBus, batch


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
    told = capsys.readouterr().out
    assert "2 records" in told
    assert "Kafka did not acknowledge in time (_MSG_TIMED_OUT)" in told


def test_status_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpumon_spool("status", "--spool-dir", str(tmp_path / "none")) == 0
    assert f"{tmp_path / 'none'} does not exist" in capsys.readouterr().out
    assert gpumon_spool("status", "--spool-dir", str(tmp_path / "none"), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["exists"], told["records"]) == (False, 0)


def test_a_spool_that_is_not_there_may_be_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPOOL_DIR", raising=False)
    assert gpumon_spool("status") == 0
    told = capsys.readouterr()
    assert f"{tmp_path / 'spool'} does not exist" in told.out
    assert "SPOOL_DIR is not set and there is no .env here" in told.err
    (tmp_path / ".env").touch()
    assert gpumon_spool("status") == 0
    assert capsys.readouterr().err == ""
    assert gpumon_spool("status", "--spool-dir", str(tmp_path / "none")) == 0
    assert capsys.readouterr().err == "", "asked for by name"


def test_status_changes_nothing(tmp_path: Path) -> None:
    filled(tmp_path).close()
    path = next(tmp_path.glob("*.spool"))
    path.write_bytes(path.read_bytes()[:-3])
    before = path.read_bytes()
    gpumon_spool("status", "--spool-dir", str(tmp_path))
    assert path.read_bytes() == before


def test_flush_leaves_a_running_collector_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spool = filled(tmp_path)
    assert gpumon_spool("flush", "--spool-dir", str(tmp_path)) == 0
    told = capsys.readouterr().out.splitlines()
    assert told == [
        f"flushed 0 records; 0 left in {tmp_path}",
        f"the rest is with the running collector (pid {os.getpid()}), which sends it itself: 2 records in {tmp_path}",
    ]
    assert gpumon_spool("flush", "--spool-dir", str(tmp_path), "--json") == 0
    [held] = json.loads(capsys.readouterr().out)["in_use"]
    assert held == {"directory": str(tmp_path), "pid": str(os.getpid()), "records": 2}
    spool.close()


def test_a_timer_hears_nothing_of_a_running_collector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spool = filled(tmp_path)
    assert gpumon_spool("flush", "--spool-dir", str(tmp_path), "--unless-running") == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == (f"flushed 0 records; 0 left in {tmp_path}\n", "")
    spool.close()


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> FakeBus:
    fake = FakeBus()

    @contextmanager
    def opened(_settings: Settings) -> Iterator[FakeBus]:
        yield fake

    monkeypatch.setattr(spool_command, "opened", opened)
    return fake


def test_flush_says_what_it_does_and_for_how_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bus: FakeBus
) -> None:
    filled(tmp_path).close()
    assert gpumon_spool("flush", "--spool-dir", str(tmp_path)) == 0
    told = capsys.readouterr()
    assert "trying for 60 s (--timeout)" in told.err
    assert told.out == f"flushed 2 records; 0 left in {tmp_path}\n"
    assert len(bus.arrived) == 2
    assert gpumon_spool("flush", "--spool-dir", str(tmp_path)) == 0
    assert capsys.readouterr().err == "", "there is nothing to try"


def test_a_flush_that_fails_gives_the_reason_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bus: FakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.mode = "down"
    monkeypatch.setattr(bus, "poll", lambda _timeout=0.0: bus.time_out())
    filled(tmp_path / "sample-1").close()
    collector = filled(tmp_path)
    assert gpumon_spool("flush", "--spool-dir", str(tmp_path), "--timeout", "0.1") == 1
    told = capsys.readouterr()
    why = "Kafka did not acknowledge in time (_MSG_TIMED_OUT): no acknowledgement from KAFKA_BOOTSTRAP=127.0.0.1:9092"
    assert told.err.count("\n") == 1, "the reason is given once, at the end"
    assert told.out.splitlines() == [
        f"flushed 0 records; 2 left in {tmp_path}: {why}",
        f"the rest is with the running collector (pid {os.getpid()}), which sends it itself: 2 records in {tmp_path}",
    ]
    assert gpumon_spool("flush", "--spool-dir", str(tmp_path), "--timeout", "0.1", "--json") == 1
    assert json.loads(capsys.readouterr().out)["reason"] == "_MSG_TIMED_OUT"
    collector.close()


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


def unreadable(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / "0000000001.spool"
    path.write_bytes(b"\x00\xff" * 2500)
    return path


def test_status_of_a_file_that_holds_nothing_readable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unreadable(tmp_path)
    gpumon_spool("status", "--spool-dir", str(tmp_path))
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}: 0 records, 5000 bytes",
        "  0000000001.spool  unreadable (no header and no whole record)  5000 bytes",
    ]
    gpumon_spool("status", "--spool-dir", str(tmp_path), "--json")
    [segment] = json.loads(capsys.readouterr().out)["segments"]
    assert (segment["bytes"], segment["damaged"]) == (5000, "no header and no whole record")


def test_status_takes_nothing_but_segments_for_segments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "0000000001.spool")
    (tmp_path / "0000000002.spool").mkdir()
    (tmp_path / "mine.spool").write_text("notes")
    assert gpumon_spool("status", "--spool-dir", str(tmp_path), "--json") == 0
    assert json.loads(capsys.readouterr().out)["segments"] == []


def test_flush_tells_what_it_had_to_set_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str], bus: FakeBus) -> None:
    unreadable(tmp_path)
    assert gpumon_spool("flush", "--spool-dir", str(tmp_path), "--unless-running") == 1
    kept = tmp_path / "0000000001.spool.corrupt"
    assert capsys.readouterr().out.splitlines() == [
        f"flushed 0 records; 0 left in {tmp_path}",
        f"damaged, kept for a look: {kept}",
    ]
    assert kept.stat().st_size == 5000
    assert gpumon_spool("flush", "--spool-dir", str(tmp_path)) == 0
    assert str(kept) not in capsys.readouterr().out, "said once; `gpumon spool status` goes on saying it"


def test_flush_tells_damage_between_records(tmp_path: Path, capsys: pytest.CaptureFixture[str], bus: FakeBus) -> None:
    filled(tmp_path / "sample-1").close()
    path = next((tmp_path / "sample-1").glob("*.spool"))
    data = bytearray(path.read_bytes())
    data[data.index(b"\n") + 20] ^= 0xFF
    path.write_bytes(data)
    assert gpumon_spool("flush", "--spool-dir", str(tmp_path), "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["flushed"], told["records"], told["damaged"]) == (1, 0, [f"{path}.corrupt"])


def test_flush_tells_what_the_destination_will_never_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bus: FakeBus
) -> None:
    bus.reject = {b"0/0"}
    filled(tmp_path).close()
    assert gpumon_spool("flush", "--spool-dir", str(tmp_path)) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"flushed 1 record; 0 left in {tmp_path}",
        "1 record will never be taken: kept in rejected.jsonl",
    ]
