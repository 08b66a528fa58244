"""The load: a program in a process group of its own, of which nothing is left however this process ends."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from services.burn.gpu_burn import Findings, chunks
from services.settings import Settings, child_environment

TERM_SECONDS: Final = 5.0
"""From SIGTERM to SIGKILL: gpu_burn's processes leave their loop within one multiplication, well under a second."""
OVERTIME: Final = 60.0
"""Seconds gpu_burn may take beyond its time: it fills the memory first, and waits up to 30 s for its processes last."""
EARLY: Final = 0.9
"""Of its time; a load that ends before it did not do its work."""
MAX_REST: Final = 64 * 1024
"""Characters kept of a line that does not end; what follows up to its end is lost."""
MAX_LINE: Final = 4096
"""Characters of a line that are read: the progress of sixteen GPUs takes one thousand."""


class LoadError(Exception):
    """The load cannot be started; the message says what to do."""


def command(settings: Settings, kind: str, seconds: float, extra: tuple[str, ...]) -> tuple[list[str], Path | None]:
    """(argument list, directory to run in). Raises LoadError. `none` has no command: an empty list."""
    if kind == "gpu_burn":
        program = settings.gpu_burn.expanduser()
        _check_program(program)
        # It looks for its kernel, compare.ptx, in the current directory.
        return [str(program.resolve()), *extra, str(max(1, round(seconds)))], program.resolve().parent
    if kind == "torch":
        if importlib.util.find_spec("torch") is None:
            raise LoadError(
                f"--load torch: PyTorch is not installed for {sys.executable}; `pip install torch`, or build gpu_burn "
                "and use --load gpu_burn"
            )
        return [sys.executable, "-m", "services.burn.torch_load", "--seconds", f"{seconds:g}", *extra], None
    return [], None


_COMPUTE: Final = (
    "COMPUTE is the card's compute capability without its dot: 61 P40, 70 V100, 75 T4, 80 A100, 86 A10, 89 L4 and "
    "L40S, 90 H100, others by `nvidia-smi --query-gpu=compute_cap --format=csv`"
)
"""gpu_burn's compare.ptx loads on the generation it is built for and on newer ones only, and which one its Makefile
takes by itself differs between its versions."""


def _check_program(program: Path) -> None:
    advice = (
        "build it (`git clone https://github.com/wilicc/gpu-burn ~/projects/gpu-burn && make -C ~/projects/gpu-burn "
        f"COMPUTE=61` for a P40; {_COMPUTE}; needs the CUDA toolkit), set GPU_BURN to where it is, or use --load torch "
        "or --load none"
    )
    if not program.is_file():
        raise LoadError(f"GPU_BURN={program}: there is no such program; {advice}")
    if not os.access(program, os.X_OK):
        raise LoadError(f"GPU_BURN={program}: is not executable; `chmod +x` it, or {advice}")


class Load:
    """Started by its constructor. Raises LoadError."""

    def __init__(self, argv: list[str], directory: Path | None, said: Callable[[str], None]) -> None:
        """`said` gets every line, from a thread."""
        self._said = said
        # gpu_burn and PyTorch number GPUs by speed otherwise, the driver's tools by PCI address.
        environment = child_environment(CUDA_DEVICE_ORDER="PCI_BUS_ID", PYTHONUNBUFFERED="1")
        chosen = "CUDA_VISIBLE_DEVICES" in environment or any(word.startswith("-i") for word in argv[1:])
        self.findings = Findings(chosen=chosen)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - an argument list; the program is what the operator set
                argv,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
        except OSError as error:
            raise LoadError(f"{argv[0]}: cannot be started ({error.strerror})") from None
        self.pid = self._process.pid
        self._guard = _Guard(self.pid)
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), name="load", daemon=True)
        self._reader.start()

    def poll(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def stop(self, *, at_once: Callable[[], bool] = lambda: False) -> None:
        """SIGTERM to the whole group, SIGKILL after TERM_SECONDS or when `at_once()`. Also what an ended load left."""
        _signal(self.pid, signal.SIGTERM)
        for _ in range(int(TERM_SECONDS / 0.1)):
            if at_once() or not _alive(self.pid):
                break
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.1)
            if self._process.returncode is not None:
                threading.Event().wait(0.1)
        _signal(self.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(2.0)
        self._guard.release()

    def _read(self, stream: IO[bytes] | None) -> None:
        if stream is None:
            return
        rest = ""
        while data := os.read(stream.fileno(), 65536):
            lines, rest = chunks(rest + data.decode(errors="replace"))
            for line in lines:
                self._take(line)
            rest = rest[:MAX_REST]
        if rest.strip():
            self._take(rest)
        stream.close()

    def _take(self, line: str) -> None:
        self.findings.take(line[:MAX_LINE])
        self._said(line[:MAX_LINE])


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # PermissionError: only zombies of it are left (macOS)
        os.killpg(group, number)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


class _Guard:
    """A tiny shell that ends the load's group when this process is gone, even by SIGKILL: it waits for the end of a
    pipe that only this process holds open."""

    def __init__(self, group: int) -> None:
        script = f"cat >/dev/null; kill -TERM -{group} && sleep {TERM_SECONDS:g}; kill -KILL -{group}"
        self._process = subprocess.Popen(  # noqa: S603 - our own script, and a number
            ["/bin/sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def release(self) -> None:
        """The load has ended; its number may be given to another process."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
