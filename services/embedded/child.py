"""A child process that says in one JSON line that it is ready, and ends when its parent does.

The contract with the child: it writes one JSON object and a newline to stdout when it can be used, logs to stderr,
and ends on SIGTERM and when its stdin is closed. The pipe to stdin is closed by the kernel when this process dies,
however it dies, so nothing is left behind.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

KILL_AFTER_SECONDS = 10.0
"""From SIGTERM to SIGKILL: the embedded database checkpoints on shutdown, which took under 2 s for a million rows."""


class ChildError(RuntimeError):
    """The child did not become ready; the message carries what it wrote to stderr."""


class ChildProcess:
    """Starts a command, waits for its line, stops it. Not thread-safe."""

    def __init__(self, name: str, command: Sequence[str], *, ready_within: float, cwd: Path | None = None) -> None:
        """`ready_within`: seconds until the JSON line must have come."""
        self._name = name
        self._log = logging.getLogger(__name__)
        self._stderr_tail: deque[str] = deque(maxlen=20)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            start_new_session=True,  # a Ctrl-C in the terminal is the parent's to handle, in its order
        )
        self._stderr_reader = threading.Thread(target=self._drain_stderr, name=f"{name}-stderr", daemon=True)
        self._stderr_reader.start()
        try:
            self.ready: dict[str, Any] = self._read_ready_line(time.monotonic() + ready_within)
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """False once the child has ended, for whatever reason."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Block until the child ends; its exit status."""
        return self._process.wait()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after `KILL_AFTER_SECONDS`. Does nothing when it has ended already."""
        if self.running:
            self._process.terminate()
            try:
                self._process.wait(KILL_AFTER_SECONDS)
            except subprocess.TimeoutExpired:
                self._log.warning("%s did not stop within %.0f s: killed", self._name, KILL_AFTER_SECONDS)
                self._process.kill()
        self._reap()

    def kill(self) -> None:
        """SIGKILL: what the child had not written is lost."""
        if self.running:
            self._process.kill()
        self._reap()

    def _reap(self) -> None:
        self._process.wait()
        self._stderr_reader.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _drain_stderr(self) -> None:
        for line in _lines(self._process.stderr):
            self._stderr_tail.append(line)
            self._log.info("%s: %s", self._name, line)

    def _read_ready_line(self, deadline: float) -> dict[str, Any]:
        stdout = self._process.stdout
        if stdout is None:
            raise ChildError(f"{self._name}: no standard output")
        received = bytearray()
        while not received.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([stdout], [], [], left)[0]:
                raise ChildError(f"{self._name} was not ready in time{self._said()}")
            chunk = os.read(stdout.fileno(), 65536)
            if not chunk:
                self._process.wait()
                self._stderr_reader.join()
                raise ChildError(f"{self._name} ended with status {self._process.returncode}{self._said()}")
            received += chunk
        ready: dict[str, Any] = json.loads(received)
        return ready

    def _said(self) -> str:
        return ": " + " | ".join(self._stderr_tail) if self._stderr_tail else ""


def _lines(stream: IO[bytes] | None) -> Iterable[str]:
    return () if stream is None else (line.decode(errors="replace").rstrip() for line in stream)


def serve_until_told(ready: dict[str, Any], running: Callable[[], bool] = lambda: True) -> None:
    """The other side: print the ready line, then block until SIGTERM, SIGINT, the end of stdin, or not `running()`.

    Only a pipe as stdin counts as a parent: a terminal or /dev/null (a service manager) does not end the process.
    """
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    if stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        threading.Thread(target=_set_at_end_of_stdin, args=(stop,), name="parent-watch", daemon=True).start()
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    while running() and not stop.wait(0.2):  # a wait without a limit would not let the signal handler run
        pass


def _set_at_end_of_stdin(stop: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stop.set()
