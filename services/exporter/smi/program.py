"""Running nvidia-smi: one answer within a time limit, whatever the driver does.

A driver that hangs leaves nvidia-smi in an uninterruptible wait, where even SIGKILL is only noted. So nothing here
waits for the end of a process that was killed, and no second one is started while such a one is still there: they
would pile up behind the same lock.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import IO, Final

from services.exporter.reading import SourceError, Trouble

MAX_BYTES: Final = 64 * 1024 * 1024
"""An answer for 16 GPUs with all their clocks is below 1 MiB; endless garbage must not fill the memory."""
_CHUNK: Final = 65_536
_REAP_SECONDS: Final = 0.5
"""A killed process is gone in milliseconds, unless the kernel holds it."""
_STUCK: Final[dict[str, subprocess.Popen[bytes]]] = {}
"""Program -> a process of it that SIGKILL did not end. Of the whole process, not of one source: a source is opened anew
after an error, and the snapshots call the same program."""
_RUNNING: Final[set[subprocess.Popen[bytes]]] = set()
"""Processes that were started and have not been waited for, by whichever thread."""
_STARTING: Final = threading.Lock()
"""Held until a process that is being started is in `_RUNNING`."""
_ENDING: Final = threading.Event()
"""This process ends: what is started from now on would stay behind it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call printed."""

    code: int
    """Exit status; below zero: ended by that signal."""
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Both streams, for messages. nvidia-smi writes its errors to stdout, mostly."""
        return (self.stdout + b"\n" + self.stderr).decode("utf-8", "replace")


class SmiProgram:
    """One nvidia-smi. `run` raises SourceError: not there, not allowed, hung, or far too much output."""

    def __init__(self, program: str = "nvidia-smi", timeout: float = 30.0) -> None:
        self.program = program
        self._timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = threading.Event()

    def stop(self) -> None:
        """From any thread: a `run` that is under way ends at once. Waits for nothing."""
        self._stopped.set()
        process = self._process
        if process is not None:
            _kill_group(process)

    def run(self, *arguments: str, timeout: float | None = None) -> Answer:
        """Blocks for `timeout` seconds at most (default: the one of the constructor), and 0.5 s more for the kill."""
        self._refuse_while_stuck()
        limit = self._timeout if timeout is None else timeout
        self._stopped.clear()
        with _STARTING:
            process = self._process = self._start(arguments)
            _RUNNING.add(process)
        try:
            if self._stopped.is_set() or _ENDING.is_set():  # while it was being started
                raise SourceError(Trouble.FAILED, f"{self.program} is not waited for: it was told to end")
            stdout, stderr = _drain(process, time.monotonic() + limit)
            code = process.wait(_REAP_SECONDS)  # both pipes are closed: it is ending
        except subprocess.TimeoutExpired:
            self._kill(process)
            raise SourceError(Trouble.HUNG, self._hung(limit)) from None
        except BaseException:
            self._kill(process)
            raise
        finally:
            self._process = None
            _RUNNING.discard(process)
        _close(process)
        return Answer(code, stdout, stderr)

    def _start(self, arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(  # noqa: S603 -- the program is the operator's setting, the arguments are ours
                [self.program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # a group of its own, so that its children are killed with it
            )
        except FileNotFoundError:
            raise SourceError(Trouble.NO_DRIVER, self._not_found()) from None
        except PermissionError:
            raise SourceError(
                Trouble.PERMISSION, f"{self.program} may not be executed by this user: check its mode and its folder's"
            ) from None
        except OSError as error:
            raise SourceError(Trouble.FAILED, f"{self.program} cannot be started: {error}") from None

    def _refuse_while_stuck(self) -> None:
        stuck = _STUCK.get(self.program)
        if stuck is None:
            return
        if stuck.poll() is None:
            raise SourceError(
                Trouble.HUNG,
                f"{self.program} (process {stuck.pid}) was killed and has not ended: the driver holds it. "
                "`sudo dmesg | grep -i -e nvrm -e xid` may say why; a GPU reset or a reboot frees it",
            )
        _STUCK.pop(self.program, None)

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        _kill_group(process)
        _close(process)
        try:
            process.wait(_REAP_SECONDS)
        except subprocess.TimeoutExpired:
            _STUCK[self.program] = process

    def _not_found(self) -> str:
        return (
            f"{self.program} is not there: install the NVIDIA driver with its utilities (Ubuntu: "
            "`sudo ubuntu-drivers install`, or the package nvidia-utils-<version>), or set NVIDIA_SMI to its path"
        )

    def _hung(self, limit: float) -> str:
        return (
            f"{self.program} gave no answer within {limit:g} s and was killed: the driver hangs, or starts anew at "
            "each call (`sudo nvidia-smi -pm 1` keeps it loaded; NVIDIA_SMI_TIMEOUT is the limit)"
        )


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is not None:  # waited for: its number may be another's by now
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


@atexit.register
def _leave_none_behind() -> None:
    """Threads that wait for a driver that hangs are left at the end of this process; what they started shall not be."""
    _ENDING.set()
    started = _STARTING.acquire(timeout=_REAP_SECONDS)
    for process in list(_RUNNING):
        _kill_group(process)
    if started:
        _STARTING.release()


def _drain(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes]:
    """Both pipes to their ends. Raises TimeoutExpired at the deadline, SourceError above MAX_BYTES."""
    parts: dict[IO[bytes], bytearray] = {pipe: bytearray() for pipe in (process.stdout, process.stderr) if pipe}
    with selectors.DefaultSelector() as selector:
        for pipe in parts:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(process.args, 0)
            for key, _ in selector.select(left):
                _take(selector, key, parts)
    stdout, stderr = (bytes(part) for part in parts.values())
    return stdout, stderr


def _take(selector: selectors.BaseSelector, key: selectors.SelectorKey, parts: dict[IO[bytes], bytearray]) -> None:
    block = os.read(key.fd, _CHUNK)
    pipe = key.fileobj
    if isinstance(pipe, int) or not block:
        selector.unregister(pipe)
        return
    next(part for candidate, part in parts.items() if candidate is pipe).extend(block)
    if sum(map(len, parts.values())) > MAX_BYTES:
        raise SourceError(Trouble.GARBAGE, f"nvidia-smi printed more than {MAX_BYTES // 2**20} MiB: this is no answer")


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
