"""`--tmux`: the run in a session of its own, and the answer here only once it has begun there.

What refuses a run in this terminal refuses it there too, where nobody looks: exit code and reason are told here.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from pathlib import Path
from typing import Final

from services.burn import tmux
from services.burn.journal import Journal
from services.burn.plan import Plan
from services.host.tags import Tags
from services.ops.clock import Clock
from services.settings import Settings

POLL: Final = 0.1
"""Seconds between two looks at the session."""
PATIENCE: Final = 30.0
"""Seconds until the first phase: ten for the first reading of the GPUs (`services.burn.run.PATIENCE`), the rest for
Python to start on a busy host. Usually it takes two."""
LATE: Final = 1.0
"""Seconds in which the exit status follows the end: tmux sees its terminal close before it reaps the process."""
_BEGUN: Final = re.compile(r"^\S+ phase \S+: ", re.MULTILINE)
"""As `services.burn.drive` writes it into the log; the load's own lines begin with a bar."""
_NOT_AGAIN: Final = {"role", "tmux", "name", "dry_run"}


def run(args: argparse.Namespace, name: str, plan: Plan, settings: Settings, clock: Clock) -> int:
    """Exit code 0: the run has begun; otherwise as without --tmux. Raises StatusError, JournalError, TmuxError."""
    journal = Journal(settings.log_dir, name, clock)
    try:
        check(settings, journal)
    finally:
        journal.close()
    session = f"gpumon-{name}"
    tmux.start(session, ["burn", *arguments_again(args), "--name", name])
    pane = confirm(session, journal.path, clock)
    code = exit_code(pane, begun=has_begun(journal.path))
    if code:
        tell_why(session, journal.path)
    else:
        print(how_to_see(session, plan, journal, ended=pane.ended))
    return code


def check(settings: Settings, journal: Journal) -> None:
    """What refuses the run is better found before a session is started: another run, a status that cannot be written.
    The run looks again. Raises StatusError."""
    tags = Tags(settings.status_file, None, journal.note)
    try:
        tags.begin()
    except Exception as error:
        journal.note(f"ended by {type(error).__name__}: {error}")
        raise
    tags.restore()


def confirm(session: str, log: Path, clock: Clock) -> tmux.Pane:
    """Returns once the first phase is in the log, or the run has ended. Raises TmuxError after PATIENCE; the session is
    ended then, so that the answer holds: there is a run, or there is none."""
    deadline = clock.monotonic() + PATIENCE
    while clock.monotonic() < deadline:
        begun = has_begun(log)
        pane = tmux.look(session)
        if pane.ended and pane.status is None:
            clock.sleep(LATE)
            pane = tmux.look(session)
        if begun or pane.ended:
            return pane
        clock.sleep(POLL)
    tmux.end(session)
    raise tmux.TmuxError(f"--tmux: no phase had begun after {PATIENCE:.0f} s, so the session was ended; see {log}")


def has_begun(log: Path) -> bool:
    return bool(_BEGUN.search(log.read_text(errors="replace")))


def exit_code(pane: tmux.Pane, *, begun: bool) -> int:
    """tmux may know that a run has ended and not with which status (a signal ended it, or tmux missed the end of its
    child, which 3.3a was seen to do): one that ended before its first phase could not start, which is 2."""
    if not pane.ended:
        return 0
    if pane.status is not None:
        return pane.status
    return 0 if begun else 2


def tell_why(session: str, log: Path) -> None:
    """All that the run said; the session has nothing to show beyond it and is taken away."""
    reason = tmux.shown(session) or "gpumon burn: the session was ended"
    tmux.end(session)
    print(f"{reason}\ngpumon burn: the run in tmux session {session} has ended; log {log.absolute()}", file=sys.stderr)


def how_to_see(session: str, plan: Plan, journal: Journal, *, ended: bool) -> str:
    """Now and afterwards."""
    state = "the run has already ended" if ended else f"phase {plan.phases[0].name} has begun"
    return "\n".join(
        [
            f"running in tmux session {session}: {state}",
            f"  look, also when it is over:  {tmux.how_to_attach(session)}",
            f"    in it: {tmux.KEYS}",
            f"  close it, summary read:      {tmux.how_to_close(session)}",
            f"  log {journal.path.absolute()}",
            f"  summary at the end, JSON {journal.summary_path.absolute()}",
        ]
    )


def arguments_again(args: argparse.Namespace) -> list[str]:
    """The command line that gives the same namespace, but for --tmux."""
    again: list[str] = []
    for name, value in vars(args).items():
        if name in _NOT_AGAIN or value is None or value is False or value == ():
            continue
        option = "--" + name.replace("_", "-")
        text = shlex.join(value) if isinstance(value, tuple) else str(value)
        again.append(option if value is True else f"{option}={text}")
    return again
