"""Whose GPUs the demo shows, what it says to others, and which part it names when one has ended."""

from __future__ import annotations

import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.demo import ports
from services.demo.pipeline import Pipeline, Plan
from services.demo.process import RoleFailedError, RoleProcess, StoppedError
from services.embedded.broker import EmbeddedBroker
from services.settings import load
from tests.support.processes import free_port

DSN = "postgresql://a:b@127.0.0.1:1/x"
Make = Callable[..., Pipeline]


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: threading.Event, said: list[str]) -> Iterator[Make]:
    """A demo on which nothing was started; the first on this machine."""
    monkeypatch.setattr(ports, "_CLAIM", f"\0gpumon-test-{free_port()}")
    made: list[Pipeline] = []

    def one(seed: int | None = None, **variables: str) -> Pipeline:
        for name in ("KAFKA_BOOTSTRAP", "TIMESCALE_DSN"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        plan = Plan(gpus=2, hosts=1, interval=1.0, directory=tmp_path, database=None, seed=seed)
        made.append(Pipeline(plan, load(), said.append, stop))
        return made[-1]

    yield one
    for pipeline in made:
        pipeline.stop()


def test_servers_of_our_own_have_the_same_gpus_each_time(make: Make, said: list[str]) -> None:
    assert (make()._seed(), make()._seed()) == (0, 0)
    assert said == []


@pytest.mark.parametrize(
    "shared", [{"KAFKA_BOOTSTRAP": "127.0.0.1:1"}, {"TIMESCALE_DSN": DSN}], ids=["broker", "database"]
)
def test_in_servers_of_others_nobody_has_our_gpus(make: Make, said: list[str], shared: dict[str, str]) -> None:
    """Also as the first demo on this machine: the one whose servers they are may have been second."""
    pipeline = make(**shared)
    assert pipeline._ports.first
    seeds = {pipeline._seed() for _ in range(5)} | {make(**shared)._seed()}
    assert len(seeds) > 3
    assert 0 not in seeds
    assert all(f"--seed {seed}" in " ".join(said) for seed in seeds)


def test_a_seed_that_was_asked_for_is_used(make: Make) -> None:
    assert make(seed=7)._seed() == 7
    assert make(seed=7, TIMESCALE_DSN=DSN)._seed() == 7


def test_other_commands_are_told_of_servers_and_spool(make: Make, tmp_path: Path) -> None:
    pipeline = make()
    pipeline.bootstrap, pipeline.dsn = "127.0.0.1:9092", "host=127.0.0.1 password=it's"
    assert shlex.split(pipeline.export) == [
        "export",
        "KAFKA_BOOTSTRAP=127.0.0.1:9092",
        "TIMESCALE_DSN=host=127.0.0.1 password=it's",
        f"SPOOL_DIR={tmp_path / 'spool'}",
    ]


class Ended(EmbeddedBroker):
    """A server that was killed."""

    running = False


def test_a_server_that_has_ended_is_named(make: Make) -> None:
    pipeline = make()
    pipeline.check()
    pipeline._servers["TimescaleDB"] = Ended()
    with pytest.raises(RoleFailedError, match="embedded TimescaleDB has ended"):
        pipeline.check()
    assert "embedded TimescaleDB has ended" in str(pipeline.cause(OSError("connection refused")))


def role(directory: Path, code: str) -> RoleProcess:
    """Any process in the place of a role."""
    started = RoleProcess.__new__(RoleProcess)
    started.name, started.log_path = "migrate", directory / "log"
    started.log_path.write_text("its last line\n")
    started._process = subprocess.Popen([sys.executable, "-c", code])
    return started


def test_a_role_that_we_stopped_is_no_cause(make: Make, tmp_path: Path) -> None:
    pipeline = make()
    pipeline.roles["collector"] = role(tmp_path, "import time; time.sleep(60)")
    pipeline.check()
    pipeline.stop_role("collector")
    pipeline.check()
    error = OSError("of something else")
    assert pipeline.cause(error) is error


def test_a_stop_ends_the_wait_for_a_role(tmp_path: Path, stop: threading.Event) -> None:
    waited = role(tmp_path, "import time; time.sleep(60)")
    stop.set()
    begun = time.monotonic()
    with pytest.raises(StoppedError):
        waited.wait(50, stop)
    assert time.monotonic() - begun < 5
    waited.stop()


def test_a_role_that_fails_is_not_waited_for(tmp_path: Path, stop: threading.Event) -> None:
    with pytest.raises(RoleFailedError, match=r"migrate ended with status 3\n  its last line"):
        role(tmp_path, "raise SystemExit(3)").wait(50, stop)
    role(tmp_path, "").wait(50, stop)


def test_after_a_stop_nothing_more_is_started(make: Make, stop: threading.Event) -> None:
    stop.set()
    pipeline = make()
    with pytest.raises(StoppedError):
        pipeline.start()
    assert (pipeline._servers, pipeline.roles) == ({}, {})


def test_targets_of_an_earlier_run_are_not_scraped(make: Make, tmp_path: Path, stop: threading.Event) -> None:
    stale = tmp_path / "targets.json"
    stale.write_text("[]")
    stop.set()
    with pytest.raises(StoppedError):
        make().start()
    assert not stale.exists()
