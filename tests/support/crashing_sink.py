"""A sink that kills itself (SIGKILL) at a named point: `python -m tests.support.crashing_sink before_commit 2`.

Production code has no such switch; it only tells where it is.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from services.ops import logging as ops_logging
from services.settings import load
from services.sink.run import serve, tune_interpreter


def main() -> None:
    """Arguments: the point, and at which time of passing it."""
    point, nth = sys.argv[1], int(sys.argv[2])
    passed = 0

    def observe(at: str) -> None:
        nonlocal passed
        passed += at == point
        if at == point and passed == nth:
            sys.stderr.write(f"killed at {point}\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    ops_logging.configure("INFO", "text")
    tune_interpreter()
    serve(load(), threading.Event(), observe=observe)


if __name__ == "__main__":
    main()
