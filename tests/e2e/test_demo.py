"""`gpumon demo`: the whole pipeline with one command, as a newcomer starts it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from services.embedded.timescale import EmbeddedTimescale, EmbeddedTimescaleError, require_node
from tests.support.prerequisites import missing
from tests.support.processes import KillWithParent, wait_until

pytestmark = pytest.mark.timescale

ROOT = Path(__file__).parents[2]
KEYS = {
    "scraped_samples", "published_events", "rows_inserted", "duplicates", "dead_letters", "gpus",
    "freshness_seconds_p50", "freshness_seconds_p99", "ok",
}  # fmt: skip
"""What a program that reads `--json` may rely on."""
STARTED = re.compile("samples/s")
"""In the live line: it comes once everything runs."""
AT_WORK = re.compile(r"\b[1-9]\d* rows  lag")
"""In the live line once there are rows."""


@pytest.fixture(autouse=True, scope="module")
def _node() -> None:
    try:
        require_node()
    except EmbeddedTimescaleError as error:
        missing("timescale", str(error))


class Demo:
    """The command as a process group of its own; stdout and stderr in files."""

    def __init__(self, directory: Path, *arguments: str, cwd: Path = ROOT) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._out, self._err = directory / "stdout", directory / "stderr"
        environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")}  # noqa: TID251  # nothing leaks in
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services", "demo", *arguments],
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self._guard = KillWithParent(self.process.pid)

    @property
    def progress(self) -> str:
        return self._err.read_text(encoding="utf-8", errors="replace")

    def result(self, within: float = 120) -> dict[str, Any]:
        """Wait for the end; the JSON object of its output."""
        status = self.process.wait(within)
        assert status == 0, self.progress
        return self.document

    @property
    def document(self) -> dict[str, Any]:
        """The JSON object of its output, once it has ended."""
        found: dict[str, Any] = json.loads(self._out.read_text(encoding="utf-8"))
        return found

    def wait_for(self, line: re.Pattern[str]) -> None:
        def seen() -> bool:
            return line.search(self.progress) is not None or self.process.poll() is not None

        wait_until(seen, within=90, what=f"{line.pattern} in the progress")
        assert self.process.poll() is None, self.progress

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._guard.release()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Any]:
    started: list[Demo] = []

    def start(*arguments: str, cwd: Path = ROOT) -> Demo:
        started.append(Demo(tmp_path / f"demo-{len(started)}", *arguments, cwd=cwd))
        return started[-1]

    yield start
    for each in started:
        each.close()


def descendants(pid: int) -> dict[int, str]:
    """Every process below `pid`, with its command line."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text()
        except OSError:
            continue
        parent = int(text.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(status.parent.name))
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            found[child] = _command(child)
            waiting.append(child)
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def still_there(processes: dict[int, str]) -> dict[int, str]:
    """Those that run: a process id that was given to another command does not count."""
    return {pid: command for pid, command in processes.items() if command and _command(pid) == command}


def test_ends_by_itself_and_says_what_happened(demo: Any) -> None:
    started: Demo = demo("--seconds", "8", "--gpus", "16", "--interval", "0.5", "--json")
    started.wait_for(STARTED)
    processes = descendants(started.process.pid)
    result = started.result()
    print(f"demo of 8 s: {result}")
    assert result.keys() >= KEYS
    assert result["ok"] is True
    assert result["gpus"] == 16
    assert result["published_events"] == result["rows_inserted"] >= 16 * 4
    assert (result["duplicates"], result["dead_letters"]) == (0, 0)
    assert result["scraped_samples"] > result["published_events"], "several samples make one event"
    assert 0 < result["freshness_seconds_p50"] <= result["freshness_seconds_p99"]
    assert len(processes) >= 5, f"broker, database, mock, sink and collector are processes: {processes}"
    assert still_there(processes) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, id="SIGINT"),  # Ctrl-C
        pytest.param(signal.SIGTERM, id="SIGTERM", marks=pytest.mark.long),
    ],
)
def test_a_signal_leaves_no_process(number: signal.Signals, demo: Any) -> None:
    started: Demo = demo("--gpus", "4", "--interval", "0.5")
    started.wait_for(AT_WORK)
    processes = descendants(started.process.pid)
    assert len(processes) >= 5
    started.process.send_signal(number)
    status = started.process.wait(60)
    assert still_there(processes) == {}
    assert status == 0, started.progress
    assert "Traceback" not in started.progress


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_kill_9_leaves_no_process(demo: Any) -> None:
    started: Demo = demo("--gpus", "4", "--interval", "0.5")
    started.wait_for(STARTED)
    processes = descendants(started.process.pid)
    started.process.kill()
    started.process.wait()
    wait_until(lambda: not still_there(processes), within=40, what=f"the end of {still_there(processes)}")


def test_a_host_that_is_set_up_for_itself_does_not_get_into_the_demo(demo: Any, tmp_path: Path) -> None:
    """The owner's `.env` names a destination and targets of its own, `status.json` what the host does."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(ROOT / ".env.example", home / ".env")
    (home / "status.json").write_text('{"tag": "prod"}')
    result = demo("--seconds", "8", "--gpus", "8", "--interval", "0.5", "--json", cwd=home).result()
    assert (result["ok"], result["gpus"]) == (True, 8)
    assert {path.name for path in home.iterdir()} == {".env", "status.json"}


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize(
    ("command", "part"),
    [
        pytest.param("server.mjs", "TimescaleDB", id="database"),
        pytest.param("services broker", "Kafka broker", id="broker", marks=pytest.mark.long),  # sink and collector wait
    ],
)
def test_a_server_that_was_killed_is_named(command: str, part: str, demo: Any) -> None:
    started: Demo = demo("--gpus", "4", "--interval", "0.5")
    started.wait_for(AT_WORK)
    processes = descendants(started.process.pid)
    os.kill(next(pid for pid, line in processes.items() if command in line), signal.SIGKILL)
    assert started.process.wait(60) == 1
    assert f"gpumon demo: the embedded {part} has ended by itself" in started.progress
    assert "%3|" not in started.progress, "librdkafka's own lines"
    assert still_there(processes) == {}


def test_data_dir_twice(demo: Any, tmp_path: Path) -> None:
    """A new broker counts from zero: the offsets of the old one must not make the sink skip or wait."""
    data = str(tmp_path / "data")
    arguments = ("--seconds", "8", "--gpus", "8", "--interval", "0.5", "--json", "--data-dir", data)
    results = [demo(*arguments).result() for _ in range(2)]
    with EmbeddedTimescale(tmp_path / "data" / "pgdata") as database, psycopg.connect(database.dsn) as connection:
        rows = connection.execute("SELECT count(*), count(DISTINCT gpu_id) FROM gpu_metrics").fetchone()
        clusters = connection.execute("SELECT count(DISTINCT cluster_id) FROM kafka_offsets").fetchone()
    assert rows is not None
    assert clusters is not None
    print(f"demo twice on one directory: {[r['rows_inserted'] for r in results]} rows, {rows[0]} in the table")
    assert [result["ok"] for result in results] == [True, True]
    assert rows == (sum(result["rows_inserted"] for result in results), 8)
    assert clusters[0] == 2, "each broker has its own offsets"
