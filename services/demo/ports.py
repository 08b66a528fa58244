"""Which ports a demo uses: the same at every start, so that bookmarks, a Grafana and a Prometheus find it again."""

from __future__ import annotations

import socket
import sys
from typing import Final

from services.demo.process import free_port

DATABASE: Final = 15432
"""Not 5432: a host's own collector that finds no settings writes to PGHOST=127.0.0.1, PGPORT=5432."""
METRICS: Final = {"mock": 9490, "collector": 9491, "sink": 9492}
"""Of /metrics and the probes of each role; 9090 is Prometheus' own."""
_CLAIM: Final = "\0gpumon-demo"
"""Name of an abstract Unix socket: of one network namespace, as ports are, and gone with the process that holds it."""


class Ports:
    """Hands out ports. Of the demos on a machine the first has the fixed ones, the others have free ones.

    A port is looked at a second before its server listens there: without the claim, two demos started together would
    both find it free, and one of them would fail.
    """

    def __init__(self) -> None:
        self._claim = socket.socket(socket.AF_UNIX)
        self.first = self._claimed()
        """Whether no other demo runs here."""

    def _claimed(self) -> bool:
        if sys.platform != "linux":
            return True  # there is no such socket: two demos that start in the same second may collide
        try:
            self._claim.bind(_CLAIM)
        except OSError:
            return False
        return True

    def usual(self, port: int) -> int:
        """`port` for the first demo where nobody listens there, else a free one. Raises OSError."""
        return free_port(port if self.first else 0)

    def close(self) -> None:
        """Another demo may have the fixed ports."""
        self._claim.close()
