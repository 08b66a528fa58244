"""What `--tmux` makes of a session, told by a tmux that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.burn import detached, tmux
from services.burn.tmux import Pane
from tests.support.clock import HandClock

RUNS, REFUSED = Pane(ended=False), Pane(ended=True, status=2)
BEGUN = "2026-01-04T00:00:00+00:00 phase pre-idle: 180 s, idle\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "burn-1.log"
    path.write_text("2026-01-04T00:00:00+00:00 | phase of the load: none of ours\n")
    return path


def panes(monkeypatch: pytest.MonkeyPatch, *said: Pane) -> list[str]:
    """tmux says these, the last for ever; the sessions that were ended."""
    left, gone = list(said), list[str]()
    monkeypatch.setattr(tmux, "look", lambda _: left.pop(0) if len(left) > 1 else left[0])
    monkeypatch.setattr(tmux, "end", gone.append)
    return gone


def test_it_has_begun_once_the_first_phase_is_in_the_log(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = panes(monkeypatch, RUNS)

    def after_two_seconds(now: float) -> None:
        if now > 2:
            log.write_text(BEGUN)

    clock = HandClock(then=after_two_seconds)
    assert detached.confirm("s", log, clock) == RUNS
    assert clock.now == pytest.approx(2.1, abs=0.1)
    assert gone == []


def test_a_run_that_is_refused_is_seen_at_once(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panes(monkeypatch, RUNS, REFUSED)
    clock = HandClock()
    assert detached.confirm("s", log, clock) == REFUSED
    assert clock.now == pytest.approx(0.1)


def test_the_exit_status_may_come_after_the_end(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panes(monkeypatch, Pane(ended=True), REFUSED)
    assert detached.confirm("s", log, HandClock()) == REFUSED


def test_a_session_that_never_begins_is_ended(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = panes(monkeypatch, RUNS)
    with pytest.raises(tmux.TmuxError, match=r"no phase had begun after 30 s, so the session was ended; see .*burn-1"):
        detached.confirm("s", log, HandClock())
    assert gone == ["s"]


@pytest.mark.parametrize(("pane", "begun", "code"), [
    (RUNS, True, 0), (Pane(ended=True, status=0), True, 0), (Pane(ended=True, status=1), True, 1), (REFUSED, False, 2),
    (Pane(ended=True), False, 2), (Pane(ended=True), True, 0),
])  # fmt: skip
def test_the_exit_code_is_that_of_the_run(pane: Pane, begun: bool, code: int) -> None:
    assert detached.exit_code(pane, begun=begun) == code


def test_the_reason_is_that_of_the_run(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = panes(monkeypatch, REFUSED)
    monkeypatch.setattr(tmux, "shown", lambda _: "gpumon burn: --max-temp cannot be kept")
    detached.tell_why("s", log)
    assert gone == ["s"]
    assert capsys.readouterr().err.startswith("gpumon burn: --max-temp cannot be kept\n")
