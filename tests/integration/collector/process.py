"""`python -m services collector` as users start it, with its metrics and its log at hand."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

from services.settings import child_environment
from tests.support.processes import wait_until

WITHIN = 30.0
"""Seconds; generous, because test machines are shared."""


class CollectorProcess:
    """Killed at the end of the block if it still runs."""

    def __init__(self, directory: Path, bootstrap: str, **environment: str) -> None:
        self._log = directory / "collector.log"
        self.spool = Path(environment.get("SPOOL_DIR", str(directory / "spool")))
        given = {
            "KAFKA_BOOTSTRAP": bootstrap,
            "SPOOL_DIR": str(self.spool),
            "COLLECTION_INTERVAL": "0.2",
            "KAFKA_DELIVERY_TIMEOUT": "1",
            "KAFKA_LINGER_MS": "5",
            "OPS_PORT": "0",
        }
        self.environment = child_environment(**(given | environment))
        with self._log.open("ab") as log:
            self._start = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services", "collector"], env=self.environment, stdout=log, stderr=log
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def log(self) -> str:
        """Of this start."""
        return self._log.read_bytes()[self._start :].decode()

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(WITHIN)

    def ended(self) -> int:
        """Waits for the end; returns the exit code."""
        return self._process.wait(WITHIN)

    def get(self, path: str) -> tuple[int, str]:
        self.until(lambda: "metrics and probes" in self.log, "the ops server")
        port = re.search(r"metrics and probes port=(\d+)", self.log)
        assert port is not None
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self) -> dict[str, float]:
        """Without the prefix, labels summed away: `events_accepted_total`; with one label also `up{VALUE}`."""
        found: dict[str, float] = defaultdict(float)
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                name = sample.name.removeprefix("gpumon_collector_")
                found[name] += sample.value
                for value in sample.labels.values():
                    found[f"{name}{{{value}}}"] = sample.value
        return found

    def until(self, condition: object, what: str) -> None:
        """`condition` is called until true. The collector must not have ended."""

        def check() -> bool:
            assert self._process.poll() is None, f"the collector ended:\n{self._log.read_text()}"
            assert callable(condition)
            return bool(condition())

        wait_until(check, within=WITHIN, what=what)

    def until_metric(self, name: str, at_least: float = 1.0) -> float:
        self.until(lambda: self.metrics()[name] >= at_least, f"{name} >= {at_least}")
        return self.metrics()[name]
