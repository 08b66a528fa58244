"""`gpumon migrate` on a real TimescaleDB: idempotent, refuses what it cannot build on, follows the settings."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from services.__main__ import main
from services.store.connect import Connection, StoreError
from services.store.migrate import migrate, records
from services.store.migrations import Migration, read
from tests.support.database import rows_of, settings_for, value_of

pytestmark = pytest.mark.timescale


@pytest.fixture
def connection(timescale: str) -> Iterator[Connection]:
    with psycopg.connect(timescale, autocommit=True) as connection:
        yield connection


@pytest.fixture
def migrated(timescale: str, connection: Connection) -> Connection:
    migrate(connection, settings_for(timescale))
    return connection


def jobs(connection: Connection) -> dict[tuple[str, str], tuple[int, Any]]:
    rows = connection.execute(
        "SELECT proc_name, hypertable_name, job_id, config FROM timescaledb_information.jobs WHERE job_id >= 1000"
    ).fetchall()
    return {(kind, relation): (number, config) for kind, relation, number, config in rows}


def test_first_run_applies_everything_and_second_nothing(timescale: str, connection: Connection) -> None:
    first = migrate(connection, settings_for(timescale))
    assert first.applied == [m.name for m in read()]
    assert len(first.policies) == 18
    before = jobs(connection)
    second = migrate(connection, settings_for(timescale))
    assert (second.applied, second.policies) == ([], [])
    assert jobs(connection) == before


def test_state_table_has_names_and_checksums(migrated: Connection) -> None:
    assert {r.version: (r.name, r.checksum, r.applied) for r in records(migrated).values()} == {
        m.version: (m.name, m.checksum, True) for m in read()
    }


def test_changed_settings_replace_only_their_policies(timescale: str, migrated: Connection) -> None:
    before = jobs(migrated)
    outcome = migrate(migrated, settings_for(timescale, compress_after="2 hours", retention_1min="60 days"))
    assert outcome.policies == [
        "policy_compression on gpu_metrics",
        "policy_retention on gpu_metrics_1min",
        "policy_refresh_continuous_aggregate on gpu_usage_1hour",  # it reaches back as far as minutes are kept
    ]
    after = jobs(migrated)
    changed = {key for key in before if before[key][0] != after[key][0]}
    assert changed == {
        ("policy_compression", "gpu_metrics"),
        ("policy_retention", "gpu_metrics_1min"),
        ("policy_refresh_continuous_aggregate", "gpu_usage_1hour"),
    }
    assert after["policy_compression", "gpu_metrics"][1]["compress_after"] == "02:00:00"
    assert kept(migrated)["gpu_metrics_1min"] == dt.timedelta(days=60)
    assert len(migrate(migrated, settings_for(timescale)).policies) == 3


def kept(connection: Connection) -> dict[str, dt.timedelta]:
    return dict(connection.execute("SELECT relation, drop_after FROM retention").fetchall())


def test_retentions_are_written_down_as_the_policies_have_them(migrated: Connection) -> None:
    """Dashboards read the table: the policies are too slow to ask."""
    policies = migrated.execute(
        """SELECT hypertable_name, (config ->> 'drop_after')::interval FROM timescaledb_information.jobs
        WHERE proc_name = 'policy_retention'"""
    ).fetchall()
    assert kept(migrated) == dict(policies)
    assert kept(migrated)["gpu_metrics"] == dt.timedelta(days=7)


def test_a_policy_somebody_removed_comes_back(timescale: str, migrated: Connection) -> None:
    migrated.execute("SELECT remove_retention_policy('gpu_metrics')")
    assert migrate(migrated, settings_for(timescale)).policies == ["policy_retention on gpu_metrics"]


def test_chunk_interval_follows_the_setting(timescale: str, migrated: Connection) -> None:
    migrate(migrated, settings_for(timescale, chunk_interval="10 minutes"))
    query = "SELECT time_interval::text FROM timescaledb_information.dimensions WHERE hypertable_name = 'gpu_metrics'"
    assert value_of(migrated, query) == "00:10:00"
    migrate(migrated, settings_for(timescale))
    assert value_of(migrated, query) == "00:30:00"


def with_another(sql: str, *, transactional: bool = True) -> list[Migration]:
    known = list(read())
    number = len(known) + 1
    return [*known, Migration(number, f"{number:04d}_try_something", sql, transactional=transactional)]


def test_a_failing_migration_leaves_nothing(timescale: str, migrated: Connection) -> None:
    migrations = with_another("CREATE TABLE half (a integer);\nSELECT 1 / 0;\n")
    with pytest.raises(StoreError, match=r"_try_something failed: division by zero \(SQLSTATE 22012\); nothing of it"):
        migrate(migrated, settings_for(timescale), migrations)
    assert value_of(migrated, "SELECT to_regclass('half')") is None
    assert len(records(migrated)) == len(read())


def test_half_applied_is_refused_until_somebody_decides(timescale: str, migrated: Connection) -> None:
    broken = with_another("CREATE INDEX CONCURRENTLY i ON kafka_offsets (nothing)", transactional=False)
    with pytest.raises(StoreError, match="it may be applied in part"):
        migrate(migrated, settings_for(timescale), broken)
    with pytest.raises(StoreError, match="_try_something was started and did not end"):
        migrate(migrated, settings_for(timescale), broken)
    with pytest.raises(StoreError, match="_try_something was started and did not end"):
        migrate(migrated, settings_for(timescale))
    migrated.execute("DELETE FROM schema_migrations WHERE applied_at IS NULL")
    assert migrate(migrated, settings_for(timescale)).applied == []


def test_without_transaction(timescale: str, migrated: Connection) -> None:
    migrations = with_another("VACUUM gpus", transactional=False)
    name = migrations[-1].name
    assert migrate(migrated, settings_for(timescale), migrations).applied == [name]
    assert migrate(migrated, settings_for(timescale), migrations).applied == []
    with pytest.raises(StoreError, match=f"has migration {name}, which this version of gpumon does not know"):
        migrate(migrated, settings_for(timescale))
    migrated.execute("DELETE FROM schema_migrations WHERE version = %s", (migrations[-1].version,))


def test_a_changed_file_is_refused(timescale: str, migrated: Connection) -> None:
    changed = list(read())
    changed[2] = Migration(3, changed[2].name, changed[2].sql + "-- harmless?\n", transactional=True)
    with pytest.raises(StoreError, match=f"{changed[2].name} was changed after it had been applied"):
        migrate(migrated, settings_for(timescale), changed)


def test_retentions_that_cannot_work_change_nothing(timescale: str, migrated: Connection) -> None:
    before = jobs(migrated)
    short = {"retention": "1 day", "retention_1min": "1 day", "retention_1hour": "1 day", "max_age": 3600}
    with pytest.raises(StoreError, match="RETENTION_1HOUR of 86400 s is too short"):
        migrate(migrated, settings_for(timescale, **short))
    assert jobs(migrated) == before


def test_the_command(timescale: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TIMESCALE_DSN", timescale)
    assert main(["migrate", "--wait", "5"]) == 0
    assert f"schema at {len(read()):04d}:" in capsys.readouterr().out
    assert main(["migrate", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    assert main(["migrate", "--status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "applied  0001_create_inventory"
    assert len(lines) == len(read())


def test_status_of_a_database_behind(
    timescale: str, migrated: Connection, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIMESCALE_DSN", timescale)
    last = read()[-1]
    row = rows_of(migrated, "DELETE FROM schema_migrations WHERE version = %s RETURNING *", (last.version,))[0]
    try:
        assert main(["migrate", "--status", "--json"]) == 1
        said = json.loads(capsys.readouterr().out)
        assert said["ok"] is False
        assert [name for name, state in said["migrations"].items() if state == "pending"] == [last.name]
    finally:
        columns = ", ".join(row)
        places = ", ".join(f"%({name})s" for name in row)
        migrated.execute(f"INSERT INTO schema_migrations ({columns}) VALUES ({places})".encode(), row)


def test_no_database_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIMESCALE_DSN", f"postgresql://someone:secret@/gpu?host={tmp_path}&port=1")
    assert main(["migrate", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["ok"] is False
    assert "cannot connect to the database" in err
    assert "secret" not in out + err


@pytest.mark.native
def test_a_server_without_timescaledb_is_one_clear_line(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIMESCALE_DSN", request.getfixturevalue("native_postgres").dsn)
    assert main(["migrate"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gpumon migrate:")]
    assert "has no TimescaleDB extension" in line
