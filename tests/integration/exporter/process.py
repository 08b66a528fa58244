"""`python -m services exporter` as users start it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from services.settings import child_environment
from tests.support.processes import KillWithParent, wait_until

WITHIN = 30.0
"""Seconds; generous, because test machines are shared."""


class ExporterProcess:
    """Killed at the end of the block if it still runs. Takes a free port."""

    def __init__(self, directory: Path, *flags: str, **environment: str) -> None:
        self._log = directory / f"exporter-{time.monotonic_ns()}.log"
        given = {"EXPORTER_PORT": "0", "EXPORTER_INTERVAL": "0.2", "KERNEL_LOG": "off"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services", "exporter", *flags],
                env=child_environment(**(given | environment)),
                stdout=log,
                stderr=log,
            )
        self._guard = KillWithParent(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._guard.release()

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        """Without the path."""
        self.until(lambda: "url=" in self.log or self._process.poll() is not None, "the exporter's start")
        found = re.search(r"url=(https?://\S+?)/metrics", self.log)
        assert found is not None, self.log
        return found[1]

    def get(self, path: str = "/metrics", **headers: str) -> tuple[int, str]:
        """Status and body."""
        request = urllib.request.Request(self.url + path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        try:
            with urllib.request.urlopen(request, timeout=WITHIN) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def ready(self) -> Self:
        self.until(lambda: self.get("/readyz")[0] == 200, "the first reading")
        return self

    def until(self, condition: object, what: str) -> None:
        assert callable(condition)
        wait_until(condition, within=WITHIN, what=f"{what}; log:\n{self.log}")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def ended(self) -> int:
        """Waits for the end; gives the exit code."""
        return self._process.wait(WITHIN)
