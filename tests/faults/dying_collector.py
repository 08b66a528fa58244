"""`python -m tests.faults.dying_collector POINT N`: the collector, which kills itself at the N-th time it is at POINT.

A real SIGKILL in a real process: nothing is flushed, nothing is caught, only what the kernel already has remains.
"""

from __future__ import annotations

import os
import signal
import sys

from services.__main__ import main
from services.collector import spool as spool_module
from services.collector.spool import Chunk, Spool

SMALLEST_RECORD = 400
"""Bytes: larger than a segment's header, smaller than any batch. The torn write must be one of records."""


class Death:
    """Counts visits; at the last one says so in the log and dies."""

    def __init__(self, point: str, hit: int) -> None:
        self.point, self._left = point, hit

    def visit(self, point: str) -> bool:
        """True when it is time."""
        if point == self.point:
            self._left -= 1
        return point == self.point and self._left <= 0

    def die(self) -> None:
        sys.stderr.write(f"dying at {self.point}\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    def here(self, point: str) -> None:
        if self.visit(point):
            self.die()


def arm(death: Death) -> None:
    """Points: mid_write, before_sync, after_sync (of something written), before_advance, after_advance."""
    write_all, sync, advance = spool_module._write_all, Spool.sync, Spool.advance

    def torn_write(descriptor: int, data: bytes) -> None:
        if len(data) > SMALLEST_RECORD and death.visit("mid_write"):
            os.write(descriptor, data[: len(data) // 2])
            death.die()
        write_all(descriptor, data)

    def watched_sync(spool: Spool) -> None:
        written = bool(spool._written)
        if written:
            death.here("before_sync")
        sync(spool)
        if written:
            death.here("after_sync")

    def watched_advance(spool: Spool, chunk: Chunk) -> None:
        death.here("before_advance")
        advance(spool, chunk)
        death.here("after_advance")

    for owner, name, replacement in (
        (spool_module, "_write_all", torn_write),
        (Spool, "sync", watched_sync),
        (Spool, "advance", watched_advance),
    ):
        setattr(owner, name, replacement)


if __name__ == "__main__":
    arm(Death(sys.argv[1], int(sys.argv[2])))
    sys.exit(main(["collector"]))
