"""Ports and processes of servers under test."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Callable


class ServerError(RuntimeError):
    """A server under test did not start; the message carries the end of its log."""


def free_port() -> int:
    """A TCP port that is free now and stays free while its server is down.

    Below the range from which the kernel picks ports of outgoing connections (32768 and up on Linux): a client that
    retries while the server is down must not be given the server's own port.
    """
    while True:
        port = random.randint(15000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class KillWithParent:
    """A tiny shell that kills a process when ours is gone, however it went: nothing may be left behind."""

    def __init__(self, pid: int) -> None:
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", f"cat >/dev/null; kill -9 {pid} 2>/dev/null"],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def release(self) -> None:
        """The process has ended: stop watching (its pid may be given to another)."""
        self._watcher.kill()
        self._watcher.wait()
        if self._watcher.stdin is not None:
            self._watcher.stdin.close()


def wait_until(condition: Callable[[], bool], *, within: float, what: str) -> None:
    """Poll until `condition()`; raise ServerError after `within` seconds."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise ServerError(f"{what} did not happen within {within:g} s")
        time.sleep(0.05)
