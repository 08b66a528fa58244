from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.collector import state


def test_saved_once_taken_once(tmp_path: Path) -> None:
    known = {"gpu1:9400": {"up": True, "reader": {"n": 1}}}
    state.save(tmp_path, known)
    assert state.take(tmp_path) == known
    assert state.take(tmp_path) == {}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"targets": 3}', '{"targets": {"a": 3}}', "{}", "[" * 100_000])
def test_an_unreadable_state_is_logged_and_gone(tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state.json").write_text(content)
    assert state.take(tmp_path) == {}
    assert "starting afresh" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_is_a_fifo_holds_nobody_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(tmp_path / "state.json")
    assert state.take(tmp_path) == {}
    [record] = caplog.records
    assert "it is a FIFO" in vars(record)["reason"]
    state.save(tmp_path, {"a:1": {}})
    assert state.take(tmp_path) == {"a:1": {}}


def test_a_failure_to_save_does_not_fail_the_stop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state.save(tmp_path / "missing", {})
    assert "cannot save" in caplog.text
