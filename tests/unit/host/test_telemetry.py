"""Samples of a run from the spool and from live readings, and the choice between them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from services.collector.batch import Batch
from services.collector.spool import Spool
from services.contract.event import SCHEMA_VERSION, Event, Gpu, Metrics, encode
from services.host.series import Sample
from services.host.telemetry import Gpu as Card
from services.host.telemetry import Telemetry, Wanted, best, coverage, from_spool, own_hostnames
from services.settings import load

START = 1_760_000_000.0
TOPIC = "gpu-metrics-raw"


class Clock:
    def time(self) -> float:
        return START + 1000

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise AssertionError


def event(offset: float, uuid: str = "GPU-1", hostname: str = "box", temp: int = 60, **more: Any) -> bytes:
    time = dt.datetime.fromtimestamp(START + offset, dt.UTC)
    metrics = Metrics(
        gpu_temp=temp, power_usage=200.5, clocks_event_reasons=4, total_energy_consumption=7, sm_clock=1303
    )
    gpu = Gpu(uuid=uuid, hostname=hostname, index=0, model="Tesla P40", **more)
    return encode(Event(schema_version=SCHEMA_VERSION, time=time, gpu=gpu, metrics=metrics))


def spooled(directory: Path, *values: bytes, topic: str = TOPIC) -> None:
    spool = Spool(directory, 2**20, Clock())
    spool.write(Batch("box:9400", [(topic, "GPU-1", value) for value in values]), "_MSG_TIMED_OUT")
    spool.sync()
    spool.close()


def wanted(**more: Any) -> Wanted:
    return Wanted(START, START + 100, ("box",), **more)


def test_samples_of_this_host_in_the_time(tmp_path: Path) -> None:
    others = event(20, "GPU-2", "elsewhere"), event(-1), event(101), b"not json"
    spooled(tmp_path, event(30), event(10), *others)
    found = from_spool(tmp_path, TOPIC, wanted())
    assert found.problem is None
    assert found.gpus == {"GPU-1": Card("GPU-1", 0, "Tesla P40", "box")}
    assert found.series == {"GPU-1": [Sample(START + at, 60, 200.5, 4, 7, 1303) for at in (10, 30)]}


def test_samples_of_known_gpus_whatever_their_host_is_called(tmp_path: Path) -> None:
    spooled(tmp_path, event(10, "GPU-2", "exporter-container"), event(10, "GPU-1"))
    assert list(from_spool(tmp_path, TOPIC, wanted(uuids=("GPU-2",))).series) == ["GPU-2"]


def test_another_topic_is_not_read(tmp_path: Path) -> None:
    spooled(tmp_path, event(10), topic="gpu-events")
    assert from_spool(tmp_path, TOPIC, wanted()).problem == "the spool has no sample of this host in that time"


def test_the_whole_gpu_goes_before_its_mig_instances(tmp_path: Path) -> None:
    instances = event(10, temp=63, instance_id=3), event(20, temp=63, instance_id=3), event(20, temp=61, instance_id=1)
    spooled(tmp_path, *instances, event(10))
    found = from_spool(tmp_path, TOPIC, wanted())
    assert [(s.time - START, s.temp) for s in found.series["GPU-1"]] == [(10, 60), (20, 61)]


def test_looking_changes_nothing_while_a_collector_writes(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 2**20, Clock())
    spool.write(Batch("box:9400", [(TOPIC, "GPU-1", event(10))]), "x")
    spool.sync()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert from_spool(tmp_path, TOPIC, wanted()).series
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    spool.close()


def test_no_spool(tmp_path: Path) -> None:
    assert from_spool(tmp_path / "none", TOPIC, wanted()).problem == f"SPOOL_DIR={tmp_path / 'none'} does not exist"


def covering(origin: str, last: int) -> Telemetry:
    return Telemetry(origin, {"GPU-1": Card("GPU-1")}, {"GPU-1": [Sample(float(t)) for t in range(last + 1)]})


def test_the_first_that_covers_the_run_is_taken_and_the_rest_not_asked() -> None:
    def never() -> Telemetry:
        raise AssertionError

    full = covering("database", 100)
    assert best([lambda: Telemetry("x", problem="x is away"), lambda: full, never], 0, 100) == (full, ["x is away"])


def test_else_the_one_that_covers_most() -> None:
    """The database went away in the middle; the spool has the rest; live readings have a little more."""
    sources = [covering("database", 40), covering("spool", 10), covering("live readings", 60)]
    taken, notes = best([lambda s=s: s for s in sources], 0, 100)  # type: ignore[misc]  # mypy: a default of a lambda
    assert taken is sources[2]
    assert notes[0] == "database: samples cover 40% of the load"


def test_nothing_anywhere() -> None:
    assert best([lambda: Telemetry("database", problem="away")], 0, 100) == (None, ["away"])


def test_coverage_is_that_of_the_worst_gpu() -> None:
    both = {"GPU-1": [Sample(float(t)) for t in range(101)], "GPU-2": [Sample(float(t)) for t in range(51)]}
    assert coverage(Telemetry("x", {}, both), 0, 100) == pytest.approx(0.5)


def test_names_of_this_host() -> None:
    assert own_hostnames(load(node_name="p40-box"))[0] == "p40-box"
