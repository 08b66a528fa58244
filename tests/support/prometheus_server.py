"""A real Prometheus of the test's own."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.prerequisites import missing
from tests.support.processes import KillWithParent, free_port, wait_until

WITHIN = 30.0
"""Seconds; generous, because test machines are shared."""


class PrometheusServer:
    """Context. `config`: of prometheus.yml; `@self@` in it is the server's own address.

    Skips the test where there is no such program (`GPUMON_REQUIRE_PROMETHEUS=1`: fails it).
    """

    def __init__(self, directory: Path, config: str) -> None:
        program = shutil.which("prometheus")
        if program is None:
            missing(
                "prometheus", "no `prometheus` in PATH (Debian: apt-get install prometheus --no-install-recommends)"
            )
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = directory / "prometheus.log"
        (directory / "prometheus.yml").write_text(config.replace("@self@", f"127.0.0.1:{port}"))
        self._command = [
            program,
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        self._guard = KillWithParent(self._process.pid)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._guard.release()

    def until_up(self, *jobs: str, within: float = WITHIN) -> Self:
        """Every target of these jobs has been scraped."""
        wait_until(
            lambda: all(self._is_up(job) for job in jobs), within=within, what=f"a scrape of {jobs}; log: {self._log}"
        )
        return self

    def _is_up(self, job: str) -> bool:
        try:
            found = self.query(f'up{{job="{job}"}}')
        except OSError:
            return False
        return bool(found) and all(result["value"][1] == "1" for result in found)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The vector now. Raises OSError, also for an expression that Prometheus refuses."""
        found: list[dict[str, Any]] = self.api("query", query=expression)["result"]
        return found

    def api(self, path: str, **parameters: str) -> Any:
        """`data` of an answer."""
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(address, timeout=WITHIN) as answer:
            return json.load(answer)["data"]
