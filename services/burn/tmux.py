"""`--tmux`: the same run in a tmux session of its own, which goes on when this terminal is closed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from services.settings import child_environment

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OWN: Final = re.compile(r"TERM.*|TMUX.*|COLUMNS|LINES|SHLVL|PWD|OLDPWD|_")
"""What tmux, or the shell in it, sets itself."""
TIMEOUT: Final = 10.0
"""Seconds; tmux starts its server within a fraction of one."""


class TmuxError(Exception):
    """No session was started; the message says why."""


def start(session: str, arguments: list[str]) -> None:
    """`gpumon <arguments>` in a new detached session, in this directory and with this environment. Raises TmuxError."""
    program = shutil.which("tmux")
    if program is None:
        raise TmuxError("--tmux: tmux is not installed (`apt install tmux`); leave --tmux out to run in this terminal")
    script = _script([sys.executable, "-m", "services", *arguments])
    argv = [program, "new-session", "-d", "-s", session, "-c", str(Path.cwd()), "/bin/sh", str(script)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        script.unlink(missing_ok=True)
        raise TmuxError(f"tmux does not start: {error}") from None
    if done.returncode != 0:
        script.unlink(missing_ok=True)
        raise TmuxError(f"tmux does not start a session: {done.stderr.strip() or done.returncode}")


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
    return f"tmux attach -t {session}   (leave it again with Ctrl-b d; Ctrl-c in it ends the run in good order)"
