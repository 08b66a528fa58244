"""`python -m tests.faults.dying_sink POINT [AFTER [N]]`: the sink, which kills itself at the N-th visit of POINT.

POINT and AFTER are points the sink tells its observer. AFTER must have been passed before, by the same batch (for
`after_offset_commit`, which concerns all batches since the last, by any): so the rung of the write ladder is chosen.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from services.ops import logging as ops_logging
from services.ops.lifecycle import stop_on_signals
from services.settings import load
from services.sink.run import serve

ANY_BATCH = "after_offset_commit"


class Death:
    """An observer. Points come from the loop's thread and from the writer's."""

    def __init__(self, point: str, after: str | None, hit: int) -> None:
        self._point, self._after, self._left = point, after, hit
        self._trail: list[str] = []
        self._ever: set[str] = set()
        self._lock = threading.Lock()

    def observe(self, point: str) -> None:
        with self._lock:
            self._ever.add(point)
            if point != ANY_BATCH:
                self._trail.append(point)
            if point == self._point and (self._after is None or self._after in self._passed):
                self._left -= 1
                if self._left == 0:
                    self._die()
            if point == "after_db_commit":
                self._trail.clear()

    @property
    def _passed(self) -> set[str]:
        return self._ever if self._point == ANY_BATCH else set(self._trail)

    def _die(self) -> None:
        sys.stderr.write(f"dying at {self._point}; this batch passed {' '.join(self._trail) or 'nothing'}\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def main(point: str, after: str = "", hit: str = "1") -> None:
    settings = load()
    ops_logging.configure(settings.log_level, settings.log_format)
    serve(settings, stop_on_signals(), observe=Death(point, after or None, int(hit)).observe)


if __name__ == "__main__":
    main(*sys.argv[1:])
