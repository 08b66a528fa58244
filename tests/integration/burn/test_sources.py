"""Where the samples of a run come from: a real TimescaleDB, a real exporter over HTTP."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from services.burn import report as reporting
from services.burn.drive import Outcome
from services.exporter.reading import Source, SourceError, Trouble
from services.host.live import LiveError, open_eye
from services.host.telemetry import Gpu, Telemetry, Wanted, from_database
from services.ops.clock import SystemClock
from services.settings import Settings, load
from tests.support.database import insert, migrated, register, settings_for
from tests.support.processes import free_port

BEGIN = dt.datetime(2026, 1, 4, 0, 0, tzinfo=dt.UTC)


def second(offset: float) -> dt.datetime:
    return BEGIN + dt.timedelta(seconds=offset)


def rows(gpu_id: int, offsets: range) -> list[dict[str, Any]]:
    return [
        {
            "time": second(t),
            "gpu_id": gpu_id,
            "gpu_temp": 30 if t <= 0 else min(30 + t // 5, 75),
            "power_usage": 240.5 if t >= 0 else 50.0,
            "clocks_event_reasons": 0x4 if 0 <= t < 60 else 0x1,
            "total_energy_consumption": 240_500 * t + 10**9,
        }
        for t in offsets
    ]


class ClockAt(SystemClock):
    def __init__(self, time: float) -> None:
        self.now = time

    def time(self) -> float:
        return self.now


@pytest.mark.timescale
def test_the_summary_of_a_run_from_the_database(timescale: str, tmp_path: Path) -> None:
    with migrated(timescale) as connection:
        box = register(connection, BEGIN, uuid="GPU-1", hostname="box", index=0, model="Tesla P40")
        other = register(connection, BEGIN, uuid="GPU-9", hostname="elsewhere", index=0, model="T4")
        instance = register(connection, BEGIN, uuid="GPU-1", hostname="box", index=0, instance_id=3)
        insert(connection, rows(box, range(-60, 660, 10)))
        insert(connection, rows(other, range(-60, 660, 10)))
        insert(connection, [{"time": second(t), "gpu_id": instance, "gpu_temp": 99} for t in range(-60, 660, 10)])
    settings = settings_for(timescale, node_name="box", spool_dir=tmp_path / "spool")
    outcome = Outcome(begin=BEGIN.timestamp(), end=BEGIN.timestamp() + 600)
    nothing = Telemetry("live readings", problem="no live readings")
    report = reporting.report_of(settings, outcome, nothing, ClockAt(BEGIN.timestamp() + 700), None)
    assert (report.origin, report.notes) == ("database", [])
    [(gpu, summary)] = report.gpus
    assert gpu == Gpu("GPU-1", 0, "Tesla P40", "box")
    assert (summary.start, summary.peak, summary.steady, summary.gaps) == (30, 75, 75, 0)
    assert summary.time_to_steady == pytest.approx(220, abs=10)
    assert summary.throttled.power == pytest.approx(60)
    assert summary.energy.method == "counter"
    assert summary.energy.joules == pytest.approx(240.5 * 600)
    assert summary.degrees_per_watt == pytest.approx(45 / 240.5, rel=0.01)


@pytest.mark.timescale
def test_known_gpus_are_found_under_whatever_name_the_exporter_gave_the_host(timescale: str) -> None:
    with migrated(timescale) as connection:
        gpu = register(connection, BEGIN, uuid="GPU-1", hostname="dcgm-exporter-x7k2p", index=0)
        insert(connection, rows(gpu, range(0, 60, 10)))
    settings = settings_for(timescale)
    begin = BEGIN.timestamp()
    assert from_database(settings, Wanted(begin, begin + 60, ("box",))).series == {}
    found = from_database(settings, Wanted(begin, begin + 60, ("box",), ("GPU-1",)))
    assert len(found.series["GPU-1"]) == 6


@pytest.mark.timescale
def test_the_sample_behind_the_end_is_waited_for(timescale: str, tmp_path: Path) -> None:
    """The pipeline brings it a moment later; without it the last ten seconds would be unknown."""
    with migrated(timescale) as connection:
        gpu = register(connection, BEGIN, uuid="GPU-1", hostname="box", index=0)
        insert(connection, rows(gpu, range(-60, 300, 10)))
        clock = ClockAt(BEGIN.timestamp() + 301)
        waits: list[float] = []

        def wait(seconds: float) -> None:
            waits.append(seconds)
            clock.now += seconds
            insert(connection, rows(gpu, range(290 + 10 * len(waits), 300 + 10 * len(waits), 10)))

        settings = settings_for(timescale, node_name="box", spool_dir=tmp_path / "spool")
        outcome = Outcome(begin=BEGIN.timestamp(), end=BEGIN.timestamp() + 305)
        report = reporting.report_of(settings, outcome, Telemetry("live readings"), clock, wait)
    assert waits == [1.0, 1.0]
    assert report.gpus[0][1].samples == 31


@pytest.mark.timescale
def test_a_database_without_the_schema_is_passed_over(timescale: str) -> None:
    found = from_database(load(timescale_dsn=timescale, pghost="x"), Wanted(0, 1, ("box",)))
    assert found.problem is not None
    empty = "the database has no sample of this host in that time"
    assert found.problem == empty or found.problem.startswith("the database does not answer the query: ")


# The exporter ---------------------------------------------------------------------------------------------------------

BODY = """\
# HELP DCGM_FI_DEV_GPU_TEMP GPU temperature (in C).
# TYPE DCGM_FI_DEV_GPU_TEMP gauge
DCGM_FI_DEV_GPU_TEMP{{gpu="0",UUID="GPU-1",device="nvidia0",modelName="Tesla P40",Hostname="{host}"}} 61
DCGM_FI_DEV_POWER_USAGE{{gpu="0",UUID="GPU-1",device="nvidia0",modelName="Tesla P40",Hostname="{host}"}} 240.5
DCGM_FI_DEV_SLOWDOWN_TEMP{{gpu="0",UUID="GPU-1",device="nvidia0",modelName="Tesla P40",Hostname="{host}"}} 95
gpumon_exporter_reading_timestamp_seconds 1763790000.5
gpumon_exporter_info{{version="0.3.0",source="{source}"}} 1
"""
SOON = 1763790001.0
"""Half a second behind the reading of BODY."""


class Exporter(ThreadingHTTPServer):
    status = 200
    body = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/metrics"


class Handler(BaseHTTPRequestHandler):
    server: Exporter

    def do_GET(self) -> None:
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.body.encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class' name
        pass


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    with Exporter(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def no_driver(_settings: Settings) -> Source:
    raise SourceError(Trouble.NO_DRIVER, "no NVIDIA driver")


def test_readings_of_an_exporter(exporter: Exporter) -> None:
    exporter.body = BODY.format(host="another-name", source="nvml")
    eye = open_eye(load(), exporter.url, no_driver, ClockAt(SOON))
    [look] = eye.look()
    eye.close()
    assert look.gpu == Gpu("GPU-1", 0, "Tesla P40", "another-name")
    assert (look.sample.time, look.sample.temp, look.sample.power) == (1763790000.5, 61, 240.5)
    assert look.slowdown == 95


def test_another_hosts_exporter_on_the_usual_port_is_not_this_hosts(exporter: Exporter) -> None:
    """A simulator, or a port forwarded from elsewhere."""
    settings = load(node_name="box", exporter_port=exporter.server_port)
    exporter.body = BODY.format(host="mock-host-0", source="nvml")
    with pytest.raises(LiveError, match="shows GPUs of mock-host-0, not of this host; no NVIDIA driver"):
        open_eye(settings, None, no_driver, ClockAt(SOON))
    exporter.body = BODY.format(host="box", source="nvml")
    eye = open_eye(settings, None, no_driver, ClockAt(SOON))
    assert len(eye.look()) == 1
    eye.close()


def test_simulated_gpus_under_this_hosts_name_are_not_watched_silently(exporter: Exporter) -> None:
    """`gpumon exporter --source mock` gives its GPUs the name of the host it runs on."""
    exporter.body = BODY.format(host="box", source="mock")
    settings = load(node_name="box", exporter_port=exporter.server_port)
    with pytest.raises(LiveError, match=r"simulated GPUs \(source mock\), not those of this host; no NVIDIA driver"):
        open_eye(settings, None, no_driver, ClockAt(SOON))
    mock = load(node_name="box", exporter_port=exporter.server_port, exporter_source="mock")
    for eye in (
        open_eye(mock, None, no_driver, ClockAt(SOON)),
        open_eye(settings, exporter.url, no_driver, ClockAt(SOON)),
    ):
        assert len(eye.look()) == 1
        eye.close()


def test_a_reading_of_another_time_is_none(exporter: Exporter) -> None:
    exporter.body = BODY.format(host="box", source="nvml")
    with pytest.raises(LiveError, match=r"it says it read the GPUs at 1\.76379e\+09, more than an hour from now"):
        open_eye(load(), exporter.url, no_driver, ClockAt(SOON + 7200))


@pytest.mark.parametrize(("status", "body", "reason"), [
    (503, "stale", "503 Server Error"),
    (200, "<html>", "metrics: line 1"),
    (200, "", "is empty"),
])  # fmt: skip
def test_an_exporter_that_does_not_answer_as_one(exporter: Exporter, status: int, body: str, reason: str) -> None:
    exporter.status, exporter.body = status, body
    with pytest.raises(LiveError, match=reason):
        open_eye(load(), exporter.url, no_driver, SystemClock())


def test_no_exporter() -> None:
    url = f"http://127.0.0.1:{free_port()}/metrics"
    with pytest.raises(LiveError, match=f"^{url}: Connection refused$"):
        open_eye(load(), url, no_driver, SystemClock())
