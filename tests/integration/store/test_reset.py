"""`gpumon reset`: what the runbook's TRUNCATE was."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from services.__main__ import main
from services.store.connect import Connection
from services.store.reset import TELEMETRY
from tests.support.database import insert, migrated, refresh, register, value_of

pytestmark = pytest.mark.timescale


@pytest.fixture(scope="module")
def connection(timescale: str) -> Iterator[Connection]:
    with migrated(timescale) as connection:
        yield connection


@pytest.fixture
def filled(connection: Connection) -> Connection:
    now = value_of(connection, "SELECT now()")
    gpu = register(connection, now)
    insert(connection, [{"time": now, "gpu_id": gpu, "gpu_temp": 50}])
    refresh(connection)
    connection.execute("SELECT refresh_gpu_latest()")
    connection.execute("INSERT INTO gpu_events (time, kind, gpu_id) VALUES (now(), 'xid', %s)", (gpu,))
    connection.execute("INSERT INTO gpu_snapshots VALUES ('h', NULL, 'nvidia-smi', now(), 'x', '{}', 'GPU-1')")
    for table, state in (("gpu_health_scores", "unknown"), ("gpu_failure_predictions", "unknown")):
        connection.execute(
            f"INSERT INTO {table} (time, gpu_id, state, model_version) VALUES (now(), %s, %s, '1')".encode(),
            (gpu, state),
        )
    connection.execute("INSERT INTO kafka_offsets VALUES ('g', 'c', 't', 'i', 0, 42) ON CONFLICT DO NOTHING")
    return connection


def counts(connection: Connection) -> dict[str, int]:
    return {name: value_of(connection, f"SELECT count(*) FROM {name}") for name in TELEMETRY}


def test_telemetry_goes_inventory_and_offsets_stay(
    filled: Connection, timescale: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIMESCALE_DSN", timescale)
    assert min(counts(filled).values()) >= 1
    assert main(["reset", "--yes"]) == 0
    assert set(counts(filled).values()) == {0}
    assert "all telemetry deleted" in capsys.readouterr().out
    assert value_of(filled, "SELECT next_offset FROM kafka_offsets") == 42
    assert value_of(filled, "SELECT count(*) FROM gpus") == 1
    assert value_of(filled, "SELECT count(*) FROM gpu_history") == 1
    now = value_of(filled, "SELECT now()")
    insert(filled, [{"time": now, "gpu_id": 1}])
    assert value_of(filled, "SELECT count(*) FROM v_gpu_metrics") == 1


def test_it_asks_first(
    filled: Connection, timescale: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIMESCALE_DSN", timescale)
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    assert main(["reset"]) == 1
    assert "say --yes" in capsys.readouterr().err
    terminal = io.StringIO("no\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    assert main(["reset"]) == 1
    assert "nothing deleted" in capsys.readouterr().err
    assert counts(filled)["gpu_metrics"] >= 1


def test_a_database_without_schema(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = request.getfixturevalue("native_postgres")
    monkeypatch.setenv("TIMESCALE_DSN", server.dsn.replace("gpu_health", "postgres"))
    assert main(["reset", "--yes"]) == 1
    assert "run gpumon migrate" in capsys.readouterr().err
