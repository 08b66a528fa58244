"""A demo's directory is its own, and whatever happens, nothing is left behind that nobody was told of."""

from __future__ import annotations

import argparse
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from services.demo import session
from services.demo.directory import HeldError, held
from services.demo.ledger import Balance
from services.demo.process import RoleFailedError, StoppedError
from services.demo.watch import Progress
from services.settings import load


@pytest.fixture(autouse=True)
def came(monkeypatch: pytest.MonkeyPatch) -> dict[signal.Signals, object]:
    """What was done about each signal: `stop_on_signals` gives one that has come its default effect again."""
    effects: dict[signal.Signals, object] = {signal.SIGHUP: print, signal.SIGTERM: print, signal.SIGINT: signal.SIG_DFL}
    monkeypatch.setattr(signal, "getsignal", effects.get)
    return effects


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made."""
    directory = tmp_path / "scratch"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


def run(stop: threading.Event | None = None, **given: object) -> int:
    defaults = {"gpus": 2, "hosts": None, "interval": 1.0, "seconds": 1.0, "data_dir": None, "seed": None, "json": True}
    return session.run(argparse.Namespace(**defaults | given), load(), stop or threading.Event())


class Started:
    """A pipeline that needs no processes."""

    bootstrap, dsn, export = "127.0.0.1:1", "", "export A=b"
    starts: Exception | None = None

    def __init__(self, plan: Any, *_: object) -> None:
        (plan.directory / "logs").mkdir()
        self.roles: dict[str, object] = {}

    def start(self) -> None:
        if self.starts is not None:
            raise self.starts

    def stop_role(self, name: str) -> None: ...

    def check(self) -> None: ...

    def stop(self) -> None:
        Book.events.append("broker stops")

    def cause(self, error: Exception) -> Exception:
        return error


class Book:
    """In the place of the ledger."""

    events: list[str] = []  # noqa: RUF012  # emptied by the fixture

    def __init__(self, *_: object) -> None: ...

    counted = Balance(0, 0, 0, 0)

    def open(self) -> int:
        return 0

    def drain(self, *_: object) -> bool:
        return True

    def balance(self) -> Balance:
        return self.counted

    def close(self) -> None:
        self.events.append("ledger closes")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> type[Started]:
    Book.events.clear()
    monkeypatch.setattr(Started, "starts", None)
    monkeypatch.setattr(session, "Pipeline", Started)
    monkeypatch.setattr(session, "Ledger", Book)
    return Started


def test_a_directory_belongs_to_one_demo(tmp_path: Path) -> None:
    with (
        held(tmp_path / "new"),
        pytest.raises(HeldError, match=r"process id \d+; end that one"),
        held(tmp_path / "new"),
    ):
        pass
    with held(tmp_path / "new"):
        pass


def test_in_a_directory_that_is_taken_nothing_is_written(
    tmp_path: Path, scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    with held(data):
        (data / "targets.json").write_text("of the first")
        assert run(data_dir=data) == 1
        assert {path.name for path in data.iterdir()} == {"demo.lock", "targets.json"}
        assert (data / "targets.json").read_text() == "of the first"
    assert "in use by the demo with process id" in capsys.readouterr().err
    assert list(scratch.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_named(
    tmp_path: Path, scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(data_dir=tmp_path / "file" / "data") == 1
    assert f"--data-dir {tmp_path / 'file' / 'data'}: " in capsys.readouterr().err
    assert list(scratch.iterdir()) == []


def test_the_ledger_is_closed_before_the_broker_stops(
    started: type[Started], monkeypatch: pytest.MonkeyPatch, scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RoleFailedError("sink ended with status 1")

    monkeypatch.setattr(session, "_follow", fail)
    assert run() == 1
    assert Book.events == ["ledger closes", "broker stops"]
    (left,) = scratch.iterdir()
    assert capsys.readouterr().err.splitlines()[-3:] == [
        "gpumon demo: sink ended with status 1",
        "stopped",
        f"logs: {left / 'logs'}",
    ]


def test_a_stop_before_the_begin_leaves_nothing(
    started: type[Started], monkeypatch: pytest.MonkeyPatch, scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(started, "starts", StoppedError())
    assert run() == 130
    assert capsys.readouterr().err.splitlines() == ["stopped before it had begun"]
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("counted", "told", "code"),
    [(Balance(0, 0, 0, 0), True, 130), (Balance(3, 3, 0, 2), True, 0), (Balance(0, 0, 0, 0), False, 1)],
    ids=["stopped before anything came", "stopped later", "nothing came"],
)
def test_a_stop_before_anything_came_is_no_failure(
    started: type[Started], monkeypatch: pytest.MonkeyPatch, counted: Balance, told: bool, code: int
) -> None:
    stop, nothing = threading.Event(), Progress(at=0.0)
    if told:
        stop.set()
    monkeypatch.setattr(Book, "counted", counted)
    monkeypatch.setattr(session, "_follow", lambda *_: nothing)
    monkeypatch.setattr(session, "look", lambda *_, **__: nothing)
    monkeypatch.setattr(session, "_with_last_scrape", lambda last, _: last)
    assert run(stop) == code


def test_the_exit_code_tells_the_signal(
    started: type[Started], monkeypatch: pytest.MonkeyPatch, came: dict[signal.Signals, object]
) -> None:
    came.update({signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: print})
    monkeypatch.setattr(started, "starts", StoppedError())
    assert run() == 128 + signal.SIGTERM
