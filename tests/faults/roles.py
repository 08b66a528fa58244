"""A role of the product as a separate process that a test may kill, freeze and stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from services.demo.watch import Readings
from tests.support.processes import KillWithParent, free_port, wait_until

READY_WITHIN = 60.0
"""Seconds: a start takes one to two on an idle machine, and several start at once on two cores."""
STOP_WITHIN = 30.0


class Role:
    """`python -m <module> <arguments>`; its log in `<logs>/<name>.log`, its probes on a port of its own."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        logs: Path,
        module: str = "services",
    ) -> None:
        self.name = name
        self.port = free_port()
        self.log_path = logs / f"{name}.log"
        inherited = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG")}  # noqa: TID251  # no setting leaks in
        own = {"OPS_HOST": "127.0.0.1", "OPS_PORT": str(self.port), "LOG_LEVEL": "INFO", "PYTHONUNBUFFERED": "1"}
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env={**inherited, **own, **environment},
                cwd=Path(__file__).parents[2],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = KillWithParent(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_ready(self, within: float = READY_WITHIN) -> None:
        """Until /readyz answers 200; an end before that fails the test with the log."""

        def ready() -> bool:
            self.check()
            return self.get("/readyz") is not None

        wait_until(ready, within=within, what=f"{self.name} being ready ({self.tail()})")

    def check(self) -> None:
        if not self.running:
            raise AssertionError(f"{self.name} ended with status {self._process.returncode}: {self.tail(30)}")

    def finish(self, within: float = READY_WITHIN) -> None:
        """A role that ends by itself, with status 0."""
        status = self.wait(within)
        if status != 0:
            raise AssertionError(f"{self.name} ended with status {status}: {self.tail(30)}")

    def wait(self, within: float) -> int:
        """Exit status; negative is the signal that ended it."""
        try:
            status = self._process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {within:g} s: {self.tail(30)}") from None
        self._guard.release()
        return status

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self.wait(STOP_WITHIN)

    def stop(self) -> None:
        """SIGTERM; the role must end with status 0 in time."""
        if not self.running:
            raise AssertionError(f"{self.name} had ended with status {self._process.returncode}: {self.tail(30)}")
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        self.finish(STOP_WITHIN)

    def discard(self) -> None:
        """The end of the test: whatever state it is in, nothing is left."""
        if self.running:
            self._process.kill()
        self._process.wait()
        self._guard.release()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def get(self, path: str) -> str | None:
        """Body of /metrics, /livez or /readyz when it answers 200."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError):
            return None

    def metric(self, metric: str, /, **labels: str) -> float:
        """Sum of the series of that name with these labels; 0 where there is none."""
        return self.readings().total(metric, **labels)

    def readings(self) -> Readings:
        """What it says of itself; empty when it does not answer."""
        return Readings.parse(self.get("/metrics"))

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def tail(self, lines: int = 8) -> str:
        return " | ".join(self.log.splitlines()[-lines:])
