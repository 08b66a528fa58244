"""Role `install-units`: the systemd user units with this installation's paths. Doing it again changes nothing."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from services.settings import Settings

EXPORTER: Final = "gpu-telemetry-exporter.service"
COLLECTOR: Final = "gpu-telemetry.service"
FLUSH: Final = "gpu-telemetry-flush.service"
TIMER: Final = "gpu-telemetry-flush.timer"
USER_UNITS: Final = Path("~/.config/systemd/user")
"""Where systemd looks for the units of a user."""
MARK: Final = "# Written by `gpumon install-units`; run it again instead of editing, or use `systemctl --user edit`."
BACKOFF_SINCE: Final = 254
"""Version of systemd that knows RestartSteps."""
_BACKOFF: Final = "RestartSteps=5\nRestartMaxDelaySec=60"
_WHERE: Final = {"kafka": "to Kafka", "timescaledb": "straight into TimescaleDB", None: "as DESTINATION says"}
_PLAINER: Final = "{!r}: systemd cannot take such a path; use a directory with a plainer name"
_SUPERVISOR_TIMEOUT: Final = 60
"""Seconds for a call of systemctl."""


class UnitsError(Exception):
    """The units cannot be written or enabled; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Installation:
    """What the units are about."""

    command: tuple[str, ...]
    """How `gpumon` is started: absolute path, and arguments before the role's name."""
    directory: Path
    """Working directory: `.env`, `status.json` and the spool are there."""
    spool: Path
    to: str | None = None
    """`kafka`, `timescaledb`; None: what DESTINATION says."""
    port: int = 9400
    """Of the exporter, which the collector scrapes unless TARGETS says otherwise."""
    exporter: bool = True
    systemd: int = 0
    """Version of systemd; 0: unknown, only what every version knows."""

    @property
    def names(self) -> list[str]:
        return ([EXPORTER] if self.exporter else []) + [COLLECTOR, FLUSH, TIMER]

    @property
    def enabled(self) -> list[str]:
        """The units that are started by themselves; the timer starts the flush."""
        return [name for name in self.names if name != FLUSH]


# Rendering: pure -----------------------------------------------------------------------------------------------------


def render(installation: Installation) -> dict[str, str]:
    """File name -> content. Raises UnitsError for paths that no unit file can hold."""
    wants = f"Wants={EXPORTER}\nAfter={EXPORTER}" if installation.exporter else ""
    directory = whole_line(str(installation.directory))
    values = {
        "DIRECTORY": directory,
        "GPUMON": " ".join(argument(word) for word in installation.command),
        "SPOOL": argument(str(installation.spool)),
        "TO": f" --to {installation.to}" if installation.to else "",
        "DESTINATION": _WHERE[installation.to],
        "WANTS": wants,
        "PORT": str(installation.port),
        "BACKOFF": _BACKOFF if installation.systemd >= BACKOFF_SINCE else "",
        "HARDENING": _template("hardening.txt").strip(),
    }
    return {name: f"{MARK}\n{_fill(_template(name), values)}" for name in installation.names}


def _template(name: str) -> str:
    return (files("services.host.units") / name).read_text(encoding="utf-8")


def _fill(template: str, values: Mapping[str, str]) -> str:
    """A line that holds nothing but an empty value goes."""
    lines: list[str] = []
    for line in template.splitlines():
        filled = re.sub(r"@([A-Z]+)@", lambda found: values[found[1]], line)
        if filled or not line:
            lines.append(filled)
    return "\n".join(lines) + "\n"


def whole_line(path: str) -> str:
    """For settings that take the rest of the line (WorkingDirectory, EnvironmentFile): only specifiers are special."""
    _check(path)
    return path.replace("%", "%%")


def argument(word: str) -> str:
    """For settings that are split into words: in quotes where need be. Variables are not expanded in the path of the
    program, which is the only path in a command line of ours. systemd takes no quotes and backslashes in it."""
    _check(word)
    if any(char in word for char in "\"'\\"):
        raise UnitsError(_PLAINER.format(word))
    escaped = word.replace("%", "%%")
    return escaped if re.fullmatch(r"[\w@%+=:,./-]+", word, re.ASCII) else f'"{escaped}"'


def _check(text: str) -> None:
    if not text.isprintable() or text != text.strip() or text.endswith("\\"):
        raise UnitsError(_PLAINER.format(text))


# The command ---------------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write systemd user units: the exporter of this host's GPUs, the collector, and a timer that sends what waits "
        "in the spool. What was there under these names and is not ours is kept as .bak."
    )
    parser.add_argument(
        "--to", choices=("kafka", "timescaledb"), help="where the collector sends; default: DESTINATION in .env"
    )
    parser.add_argument(
        "--dir",
        type=Path,
        default=USER_UNITS,
        metavar="DIR",
        help="where to write them (default: %(default)s); elsewhere they are to be looked at only",
    )
    parser.add_argument(
        "--project", type=Path, metavar="DIR", help="where .env and the spool are (default: the current directory)"
    )
    parser.add_argument("--no-exporter", action="store_true", help="another exporter serves the GPUs (see TARGETS)")
    parser.add_argument("--enable", action="store_true", help="load, enable and start them as well")
    parser.add_argument("--dry-run", action="store_true", help="show the files, write nothing")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Exit code 1: not written, or not enabled."""
    try:
        installation = _installation(args, settings)
        units = render(installation)
        directory: Path = args.dir.expanduser()
        in_place = directory.resolve() == USER_UNITS.expanduser().resolve()
        if args.enable and not in_place:
            raise UnitsError(f"--enable takes units from {USER_UNITS}: leave out --dir {args.dir}, or --enable")
        if args.dry_run:
            for name, content in units.items():
                print(f"# ==> {directory / name}\n{content}")
            return 0
        written = write(units, directory)
        installation.spool.mkdir(parents=True, exist_ok=True)
        for path, what in written.items():
            print(f"{what:9}  {path}")
        if args.enable:
            enable(installation)
            print(f"enabled    {', '.join(installation.enabled)}")
    except (UnitsError, OSError) as error:
        print(f"gpumon install-units: {error}", file=sys.stderr)
        return 1
    if in_place:
        print(next_steps(installation, enabled=args.enable))
    else:
        print(f"written to look at; without --dir they go to {USER_UNITS}")
    return 0


def _installation(args: argparse.Namespace, settings: Settings) -> Installation:
    directory = plain(args.project or Path())
    if not directory.is_dir():
        raise UnitsError(f"--project {directory}: there is no such directory")
    return Installation(
        command=gpumon(),
        directory=directory,
        spool=plain(directory / settings.spool_dir.expanduser()),
        to=args.to,
        port=settings.exporter_port,
        exporter=not args.no_exporter,
        systemd=systemd_version(),
    )


def gpumon() -> tuple[str, ...]:
    """The program beside the interpreter that runs us; else that interpreter. Not resolved: a virtual environment is
    known by the path of its links."""
    interpreter = Path(sys.executable)
    directory = plain(interpreter.parent)
    beside = directory / "gpumon"
    return (str(beside),) if beside.is_file() else (str(directory / interpreter.name), "-m", "services")


def plain(path: Path) -> Path:
    """Absolute and without `..`, which systemd refuses. Links stay (`current` -> a release), unless a `..` behind one
    leads elsewhere than the text says."""
    whole = path.expanduser().absolute()
    text = Path(re.sub(r"^//+", "/", os.path.normpath(whole)))
    return text if not whole.exists() or (text.exists() and text.samefile(whole)) else whole.resolve()


def systemd_version() -> int:
    """0 where there is none."""
    try:
        told = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=False, timeout=10)  # noqa: S607
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.match(r"systemd (\d+)", told.stdout)
    return int(found[1]) if found else 0


def write(units: Mapping[str, str], directory: Path) -> dict[Path, str]:
    """Path -> `written` or `unchanged`. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    done: dict[Path, str] = {}
    for name, content in units.items():
        path = directory / name
        there = path.read_text(encoding="utf-8", errors="replace") if path.exists() else None
        if there == content:
            done[path] = "unchanged"
            continue
        if there is not None and MARK not in there:
            path.replace(path.with_name(f"{name}.bak"))
        temporary = path.with_name(f".{name}.new")
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(path)
        done[path] = "written"
    return done


def enable(installation: Installation) -> None:
    """Load and start them. Raises UnitsError."""
    _systemctl("daemon-reload")
    _systemctl("enable", "--now", *installation.enabled)


def _systemctl(*arguments: str) -> None:
    command = ["systemctl", "--user", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SUPERVISOR_TIMEOUT)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnitsError(f"`{' '.join(command)}`: {error}") from None
    if done.returncode:
        advice = "the units are written; run it in a session of your own (over ssh: `loginctl enable-linger` first)"
        raise UnitsError(f"`{' '.join(command)}`: {done.stderr.strip() or f'exit code {done.returncode}'}; {advice}")


def next_steps(installation: Installation, *, enabled: bool) -> str:
    lines = ["next:"]
    if not (installation.directory / ".env").exists():
        lines.append(f"  cp .env.example {installation.directory}/.env   # and fill in the connection")
    if not enabled:
        lines.append("  systemctl --user daemon-reload")
        lines.append(f"  systemctl --user enable --now {' '.join(installation.enabled)}")
    lines.append("  loginctl enable-linger   # they start with the host, not with your log-in")
    lines.append(f"  systemctl --user status {COLLECTOR} --no-pager -l")
    lines.append(f"  journalctl --user -u {COLLECTOR} --no-pager -n 100")
    return "\n".join(lines)
