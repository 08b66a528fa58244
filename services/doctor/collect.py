"""Runs the probes: side by side, each with a time limit, none able to stop the others."""

from __future__ import annotations

import glob
import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from services.doctor.evidence import Command, Evidence, File, Listing, Output, Probe
from services.settings import child_environment

TIME_LIMIT: Final = 20.0
"""Seconds. nvidia-smi on a host with eight GPUs and no persistence mode takes about ten."""
MAX_BYTES: Final = 4 * 1024 * 1024
"""The end of a longer output is kept: logs end with what matters. 37 probes, so 150 MB at the very worst."""
WORKERS: Final = 6


def collect(probes: Iterable[Probe], root: Path, limit: float, told: Callable[[str], None]) -> Evidence:
    """All probes. `root` stands before every path of a file (tests); `told` hears each name when it is done."""

    def one(probe: Probe) -> tuple[str, Output]:
        output = _collect(probe, root, limit)
        told(probe.name)
        return probe.name, output

    with ThreadPoolExecutor(WORKERS, "doctor") as pool:
        return dict(pool.map(one, probes))


def _collect(probe: Probe, root: Path, limit: float) -> Output:
    match probe:
        case Command(each=None):
            return run(probe.argv, limit)
        case Command(each=pattern):
            return _run_each(probe.argv, _matches(root, str(pattern)), limit)
        case File():
            return _read(root, probe.path)
        case Listing():
            return _list(root, probe.path)


def _run_each(argv: tuple[str, ...], paths: list[Path], limit: float) -> Output:
    """One after the other; the first exit code that is not 0 stands for all."""
    if not paths:
        return Output(problem="not there")
    outputs = [run(tuple(part.replace("{}", str(path)) for part in argv), limit) for path in paths]
    if all(output.problem for output in outputs):
        return outputs[0]
    text = "".join(f"# {path}\n{o.text or o.problem}\n" for path, o in zip(paths, outputs, strict=True))
    return Output(text, next((o.code for o in outputs if o.code), 0))


def run(argv: tuple[str, ...], limit: float) -> Output:
    """A command's output, both streams; its whole process group is killed at the time limit."""
    try:
        process = subprocess.Popen(  # noqa: S603 - argument lists of this package only
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=child_environment(LC_ALL="C", LANG="C"),
        )
    except FileNotFoundError:
        return Output(problem="not installed")
    except OSError as error:
        return Output(problem=str(error.strerror).lower())
    try:
        raw, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return Output(text=_kill(process), problem=f"no answer within {limit:g} s")
    return Output(_text(raw), process.returncode)


def _kill(process: subprocess.Popen[bytes]) -> str:
    """A process that hangs in the driver cannot even be killed: it is not waited for."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
        raw, _ = process.communicate(timeout=1.0)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        return ""
    return _text(raw)


def _text(raw: bytes) -> str:
    return raw[-MAX_BYTES:].decode("utf-8", "replace").replace("\0", " ")


def _matches(root: Path, pattern: str) -> list[Path]:
    return [Path(name) for name in sorted(glob.glob(str(root / pattern.lstrip("/"))))]


def _read(root: Path, pattern: str) -> Output:
    paths = _matches(root, pattern)
    if not paths:
        return Output(problem="not there")
    parts = []
    for path in paths:
        try:
            content = _text(path.read_bytes())
        except OSError as error:
            if len(paths) == 1:
                return Output(problem=str(error.strerror).lower())
            content = f"({error.strerror})\n"
        parts.append(content if len(paths) == 1 else f"# {path}\n{content}")
    return Output("\n".join(parts))


def _list(root: Path, pattern: str) -> Output:
    paths = _matches(root, pattern)
    if not paths:
        return Output(problem="not there")
    return Output("".join(_line(path) for path in paths))


def _line(path: Path) -> str:
    try:
        entry = path.stat()
    except OSError as error:
        return f"? {path} ({error.strerror})\n"
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.st_mtime))
    access = "readable" if os.access(path, os.R_OK | os.W_OK) or path.is_dir() else "CLOSED TO THIS USER"
    return f"{stat.filemode(entry.st_mode)} {entry.st_uid}:{entry.st_gid} {when} {path} {access}\n"
