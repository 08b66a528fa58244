"""`gpumon collector --to timescaledb` and its neighbours as processes: killed at every step, nothing lost or twice."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from services.collector import segment
from tests.faults.exporter import CountingExporter, gpu_uuid
from tests.faults.roles import Role
from tests.support.native_postgres import NativePostgres
from tests.support.processes import wait_until

pytestmark = pytest.mark.native

GPUS = 20
Sample = tuple[str, int]


class Host:
    """An exporter, a database and a spool; roles come and go."""

    def __init__(self, dsn: str, directory: Path, exporter: CountingExporter) -> None:
        self.dsn, self.directory, self.exporter = dsn, directory, exporter
        self.spool = directory / "spool"
        self.roles: list[Role] = []
        self.environment = {
            "DESTINATION": "timescaledb",
            "TIMESCALE_DSN": dsn,
            "TARGETS": exporter.target,
            "COLLECTION_INTERVAL": "0.1",
            "SCRAPE_TIMEOUT": "0.1",
            "SPOOL_DIR": str(self.spool),
            "KAFKA_DELIVERY_TIMEOUT": "2",
        }

    def role(self, *arguments: str, module: str = "services") -> Role:
        role = Role(f"role-{len(self.roles)}", arguments, self.environment, self.directory, module=module)
        self.roles.append(role)
        return role

    def in_table(self) -> Counter[Sample]:
        query = (
            "SELECT gpu_uuid, total_energy_consumption, count(*)"
            " FROM gpu_metrics JOIN gpus USING (gpu_id) GROUP BY 1, 2"
        )
        with psycopg.connect(self.dsn) as connection:
            return Counter({(gpu, int(n)): int(count) for gpu, n, count in connection.execute(query)})

    def in_spool(self) -> set[Sample]:
        found = set()
        for path in self.spool.glob("*.spool"):
            data = path.read_bytes()
            frames = [segment.frame_at(data, offset) for offset in segment.scan(data).offsets]
            documents = [json.loads(frame[0].value) for frame in frames if frame is not None]
            found |= {
                (d["gpu"]["uuid"], int(d["metrics"]["total_energy_consumption"])) for d in documents if "metrics" in d
            }
        return found

    def drain(self) -> None:
        """A last collector sends what is left, and stops."""
        self.exporter.pause()
        role = self.role("collector")
        wait_until(lambda: role.get("/readyz") is not None, within=60, what="the collector")
        wait_until(lambda: role.metric("gpumon_collector_spool_records") == 0, within=60, what="the flush")
        role.stop()

    def published(self, role: Role) -> float:
        return role.metric("gpumon_collector_events_published_total")


@pytest.fixture
def host(native: NativePostgres, tmp_path: Path) -> Iterator[Host]:
    with CountingExporter(GPUS) as exporter:
        made = Host(native.dsn, tmp_path, exporter)
        yield made
        for role in made.roles:
            role.discard()


def test_every_sample_of_a_run_is_a_row(host: Host) -> None:
    role = host.role("collector")
    wait_until(lambda: host.published(role) > 10 * GPUS, within=60, what="ten scrapes")
    host.exporter.pause()
    role.stop()
    table = host.in_table()
    answers = {(gpu_uuid(gpu), n) for gpu in range(GPUS) for n in range(1, host.exporter.answers + 1)}
    assert set(table) <= answers
    assert len(table) >= len(answers) - GPUS, "the last answer may have come too late"
    assert set(table.values()) == {1}
    with psycopg.connect(host.dsn) as connection:
        row = connection.execute("SELECT count(*) FROM gpu_events WHERE kind = 'target_down'").fetchone()
    assert row is not None


def test_killed_while_it_writes(host: Host) -> None:
    """What the collector counted as accepted before SIGKILL is in the table."""
    accepted = 0.0
    for _ in range(3):
        role = host.role("collector")
        wait_until(lambda r=role: host.published(r) > 5 * GPUS, within=60, what="five scrapes")  # type: ignore[misc]  # bound
        accepted += role.metric("gpumon_collector_events_accepted_total")
        role.kill()
    host.drain()
    table = host.in_table()
    assert table.total() >= accepted
    assert set(table.values()) == {1}


def test_killed_at_every_step_of_the_spool(native: NativePostgres, host: Host) -> None:
    accepted: set[Sample] = set()
    native.kill()
    try:
        for point, hit in (("mid_write", 4), ("before_sync", 4), ("after_sync", 4)):
            _died(host.role(point, str(hit), module="tests.faults.dying_collector"), point)
            before, accepted = len(accepted), accepted | host.in_spool()
            assert len(accepted) > before, f"nothing new in the spool at {point}: the fault was not hit"
    finally:
        native.start()
    for point in ("before_advance", "after_advance"):
        _died(host.role(point, "1", module="tests.faults.dying_collector"), point)
        accepted |= host.in_spool()
    host.drain()
    table = host.in_table()
    assert accepted <= set(table), "lost"
    assert set(table.values()) == {1}, "twice"


def _died(role: Role, point: str) -> None:
    assert role.wait(60) == -signal.SIGKILL, role.tail(20)
    assert f"dying at {point}" in role.log


def test_the_database_killed_under_it(native: NativePostgres, host: Host) -> None:
    role = host.role("collector")
    wait_until(lambda: host.published(role) > 3 * GPUS, within=60, what="three scrapes")
    native.kill()
    try:
        wait_until(lambda: role.metric("gpumon_collector_spool_records") > 3 * GPUS, within=60, what="the spool")
        assert role.get("/readyz") is not None, "the spool takes events: it can do its work"
    finally:
        native.start()
    wait_until(lambda: role.metric("gpumon_collector_spool_records") == 0, within=60, what="the flush")
    host.exporter.pause()
    role.stop()
    table = host.in_table()
    assert len({n for _, n in table}) >= host.exporter.answers - 1, "no scrape is missing"
    assert set(table.values()) == {1}


def test_no_schema_no_start(host: Host) -> None:
    with psycopg.connect(host.dsn, autocommit=True) as connection:
        connection.execute("DROP TABLE gpu_metrics CASCADE")
    role = host.role("collector")
    assert role.wait(60) == 1
    assert "run `gpumon migrate`" in role.log


def test_sample_and_flush(native: NativePostgres, host: Host) -> None:
    """A sample is a row; with the database down it waits, beside a collector in a spool of its own, which the collector
    sends with its own."""
    arguments = ("sample", "--targets", host.exporter.target, "--json", "--timeout", "5")
    assert _told(host.role(*arguments))["delivery"]["sent"] == GPUS
    assert len(host.in_table()) == GPUS
    native.stop()
    try:
        spooled = _told(host.role(*arguments))
        assert spooled["delivery"]["_spool_reason"] == "database_unreachable"
        assert spooled["delivery"]["spool"] == str(host.spool)
        collector = host.role("collector")
        wait_until(lambda: collector.metric("gpumon_collector_spool_records") > 2 * GPUS, within=60, what="the spool")
        assert _told(host.role(*arguments))["delivery"]["spool"] == str(host.spool / "sample-1")
        status = json.loads(_finished(host.role("spool", "status", "--json")))
        assert {s["_spool_reason"] for s in status["segments"]} == {"database_unreachable"}
        assert any(s["file"].startswith("sample-1/") for s in status["segments"])
        told = json.loads(_finished(host.role("spool", "flush", "--timeout", "1", "--json"), status=1))
        assert (told["flushed"], told["records"], told["reason"]) == (0, GPUS, "database_unreachable")
        assert [held["directory"] for held in told["in_use"]] == [str(host.spool)]
        assert "trying for 1 s (--timeout)" in host.roles[-1].log
    finally:
        native.start()
    wait_until(lambda: collector.metric("gpumon_collector_spool_records") == 0, within=60, what="the flush")
    wait_until(lambda: not list(host.spool.glob("*/*.spool")), within=60, what="the flush of the sample beside it")
    wait_until(lambda: "first samples of" in collector.log, within=60, what="the collector saying that it works")
    assert json.loads(_finished(host.role("spool", "flush", "--json")))["records"] == 0, "and that is no failure"
    host.exporter.pause()
    collector.stop()
    table = host.in_table()
    assert len({n for _, n in table}) >= host.exporter.answers - 1
    assert set(table.values()) == {1}


def _finished(role: Role, status: int = 0) -> str:
    """The last line of a role that ended with `status`."""
    assert role.wait(60) == status, role.tail(30)
    return next(line for line in reversed(role.log.splitlines()) if line.startswith("{"))


def _told(role: Role) -> dict[str, dict[str, object]]:
    document: dict[str, dict[str, object]] = json.loads(_finished(role))
    return document
