"""`--tmux`: the same run in a tmux session of its own, which goes on when this terminal is closed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.settings import child_environment

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OWN: Final = re.compile(r"TERM.*|TMUX.*|COLUMNS|LINES|SHLVL|PWD|OLDPWD|_")
"""What tmux, or the shell in it, sets itself."""
_DEAD: Final = re.compile(r"Pane is dead\b")
KEYS: Final = "Ctrl-b d leaves it again, Ctrl-b [ scrolls, Ctrl-c ends the run in good order"
TIMEOUT: Final = 10.0
"""Seconds; tmux starts its server within a fraction of one."""


class TmuxError(Exception):
    """No session was started; the message says why."""


def start(session: str, arguments: list[str]) -> None:
    """`gpumon <arguments>` in a new detached session, in this directory and with this environment. Its window stays
    when the run ends: what it showed last is the summary. Raises TmuxError."""
    _program()
    script = _script([sys.executable, "-m", "services", *arguments])
    new = ["new-session", "-d", "-s", session, "-c", str(Path.cwd()), "/bin/sh", str(script)]
    # In one call: the run cannot end before tmux has heard that its window is to stay.
    keep = [";", "set-option", "-w", "-t", f"={session}:", "remain-on-exit", "on"]
    try:
        done = _tmux(*new, *keep)
    except TmuxError:
        script.unlink(missing_ok=True)
        raise
    if done.returncode != 0:
        script.unlink(missing_ok=True)
        raise TmuxError(f"tmux does not start a session: {done.stderr.strip() or done.returncode}")


@dataclass(frozen=True, slots=True)
class Pane:
    """What a session's window is at."""

    ended: bool
    status: int | None = None
    """Exit status of what ran in it; None: it still runs, a signal ended it, or tmux does not know."""


def look(session: str) -> Pane:
    """A session that is gone has ended. Raises TmuxError."""
    done = _tmux("list-panes", "-t", f"={session}:", "-F", "#{pane_dead} #{pane_dead_status}")
    dead, _, status = done.stdout.strip().partition(" ")
    return Pane(done.returncode != 0 or dead == "1", int(status) if status.isdigit() else None)


def shown(session: str) -> str:
    """All that was printed in the session, without tmux' own line at its end. Raises TmuxError."""
    text = _tmux("capture-pane", "-p", "-J", "-S", "-", "-t", f"={session}:").stdout
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip() and not _DEAD.match(line))


def end(session: str) -> None:
    """The run in it, if there still is one, gets SIGHUP and puts everything back. Raises TmuxError."""
    _tmux("kill-session", "-t", f"={session}")


def _program() -> str:
    program = shutil.which("tmux")
    if program is None:
        raise TmuxError("--tmux: tmux is not installed (`apt install tmux`); leave --tmux out to run in this terminal")
    return program


def _tmux(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [_program(), *arguments]
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TmuxError(f"tmux does not answer: {error}") from None


def _script(command: list[str]) -> Path:
    """A file only its owner can read, which deletes itself: a tmux server that runs already has the environment of
    whoever started it, and a password on a command line is everybody's to see."""
    lines = [
        f"export {name}={shlex.quote(value)}"
        for name, value in child_environment().items()
        if _NAME.fullmatch(name) and not _OWN.fullmatch(name)
    ]
    descriptor, path = tempfile.mkstemp(prefix="gpumon-burn-", suffix=".sh")
    with os.fdopen(descriptor, "w") as file:
        file.write("\n".join([f"rm -f {shlex.quote(path)}", *lines, f"exec {shlex.join(command)}", ""]))
    return Path(path)


def how_to_attach(session: str) -> str:
    return f"tmux attach -t {session}"


def how_to_close(session: str) -> str:
    return f"tmux kill-session -t {session}"
