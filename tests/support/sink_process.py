"""`gpumon sink` as a process of its own, which a test may stop, kill and freeze."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

STOP_WITHIN_SECONDS = 30.0


class SinkProcess:
    """A context manager; ends it with SIGTERM. `environment` holds the settings of the sink, nothing else counts."""

    def __init__(
        self, environment: Mapping[str, str], *, module: str = "services", arguments: tuple[str, ...] = ("sink",)
    ) -> None:
        self._log = tempfile.NamedTemporaryFile(prefix="gpumon-sink-", suffix=".log", delete=False)  # noqa: SIM115
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}  # noqa: TID251
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env={**inherited, "OPS_PORT": "0", **environment},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            cwd=Path(__file__).parents[2],
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return Path(self._log.name).read_text(encoding="utf-8", errors="replace")

    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> int:
        """SIGTERM; exit code."""
        if self.running():
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
        return self._process.wait(STOP_WITHIN_SECONDS)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def wait(self, within: float) -> int:
        """Exit code of a process that ends by itself."""
        return self._process.wait(within)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.running():
                self.stop()
        except subprocess.TimeoutExpired:
            self.kill()
        finally:
            self._log.close()
            Path(self._log.name).unlink(missing_ok=True)
