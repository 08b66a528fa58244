"""Ports and processes of servers under test."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field


class ServerError(RuntimeError):
    """A server under test did not start; the message carries the end of its log."""


# Below the range from which the kernel picks ports of outgoing connections (32768 and up on Linux): a client that
# retries while its server is down must not be given the server's own port.
FIRST_PORT, LAST_PORT = 15000, 31999


def ports_of(worker: str, workers: int) -> range:
    """The share of the ports that one of pytest-xdist's `workers` (`gw0`, `gw1`, ...) hands out.

    A port is free when it is asked for and bound seconds later, by a server that has to start: two workers that ask
    in between must not be given the same one.
    """
    size = (LAST_PORT + 1 - FIRST_PORT) // workers
    first = FIRST_PORT + int(worker.removeprefix("gw")) * size
    return range(first, first + size)


@dataclass(slots=True)
class Ports:
    """The ports that this process hands out to servers under test."""

    share: range
    given: set[int] = field(default_factory=set)

    def free(self) -> int:
        """A port of the share that nobody has now and nobody was given before."""
        while True:
            port = random.choice([port for port in self.share if port not in self.given])
            self.given.add(port)
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port


PORTS = Ports(ports_of("gw0", 1))
"""Of this process; `tests/conftest.py` narrows the share to its worker's."""


def free_port() -> int:
    """A TCP port that is free now and stays free while its server is down."""
    return PORTS.free()


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
