"""A role as a child process: its log in a file, its probes on a port of its own, gone when we are."""

from __future__ import annotations

import ctypes
import json
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from services.settings import child_environment

PR_SET_PDEATHSIG = 1  # prctl(2): the kernel sends this signal when the parent dies, even by kill -9
STOP_WITHIN_SECONDS = 20.0
"""From SIGTERM to SIGKILL; a sink finishes its batch and a collector flushes within a few seconds."""
FIRST_PORT = 15000
"""Of those handed out; lower ones are many services' usual ones."""
ATTEMPTS = 200
"""Random ports tried before giving up: of more than 17,000 nearly all are free."""
LOOK_EVERY_SECONDS = 0.05
"""Whether what we wait for has come, or a signal to stop."""


class RoleFailedError(Exception):
    """A part ended or did not become ready; of a role, the message ends with the last lines of its log."""


class StoppedError(Exception):
    """We were told to stop before the demo had begun."""


def free_port(preferred: int = 0) -> int:
    """`preferred` when nobody listens there, else a free TCP port on the loopback.

    The child binds it only a second later. So it is one below the range from which the kernel gives ports to outgoing
    connections: any program on this machine may connect to something in between. Raises OSError when there is none.
    """
    if preferred and _is_free(preferred):
        return preferred
    below = _ephemeral_begin()
    if below - FIRST_PORT < ATTEMPTS:
        return _kernels_choice()  # that range begins so low that there is nothing below it
    for _ in range(ATTEMPTS):
        port = FIRST_PORT + secrets.randbelow(below - FIRST_PORT)
        if port != preferred and _is_free(port):
            return port
    raise OSError(f"no free TCP port on 127.0.0.1 from {FIRST_PORT} to {below - 1}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: connections of one that has just ended (TIME_WAIT) are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _kernels_choice() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ephemeral_begin(source: Path = Path("/proc/sys/net/ipv4/ip_local_port_range")) -> int:
    """The first port of outgoing connections; Linux' default where it cannot be read."""
    try:
        return int(source.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32768


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _ending(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"


class RoleProcess:
    """`gpumon <role>` started by us. stdout and stderr go to `<logs>/<name>.log`.

    It runs in the directory above the logs: a `.env` where we were started is not meant for it.
    """

    def __init__(
        self, name: str, arguments: list[str], variables: Mapping[str, str], logs: Path, ops_port: int = 0
    ) -> None:
        """`ops_port`: of its /metrics and probes; 0 takes a free one. Raises OSError."""
        self.name = name
        self.log_path = logs / f"{name}.log"
        self.ops_port = ops_port or free_port()
        environment = child_environment(
            **{"OPS_HOST": "127.0.0.1", "OPS_PORT": str(self.ops_port), "LOG_FORMAT": "json", **variables}
        )
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services", *arguments],
                env=environment,
                cwd=logs.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us only, and we stop the roles in their order
                preexec_fn=_die_with_parent,  # noqa: PLW1509  # no threads are started before the children are
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raises RoleFailedError when the role has ended."""
        if self._process.poll() is not None:
            raise RoleFailedError(f"{self.name} {_ending(self._process.returncode)}\n{self.tail()}")

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Until a role that ends by itself has done so. Raises RoleFailedError on time-out or failure, StoppedError."""
        deadline = time.monotonic() + seconds
        while (status := self._process.poll()) is None:
            if time.monotonic() > deadline:
                raise RoleFailedError(f"{self.name} did not finish within {seconds:.0f} s\n{self.tail()}")
            if stop.wait(LOOK_EVERY_SECONDS):
                raise StoppedError
        if status != 0:
            raise RoleFailedError(f"{self.name} {_ending(status)}\n{self.tail()}")

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after STOP_WITHIN_SECONDS."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_WITHIN_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def get(self, path: str, port: int | None = None) -> str | None:
        """Body of a probe when it answers 200, else None."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port or self.ops_port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError):
            return None

    def tail(self, lines: int = 5) -> str:
        """The last lines of the log, for a message."""
        return "\n".join(f"  {line}" for line in self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def last_record(self, message: str) -> dict[str, object] | None:
        """The newest JSON log record with that message, or None."""
        for line in reversed(self.log_path.read_text(errors="replace").splitlines()):
            if line.startswith("{") and f'"{message}"' in line:
                record: dict[str, object] = json.loads(line)
                return record
        return None
