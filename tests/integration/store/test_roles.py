"""Roles on a native server: who may do what, and what happens where roles may not be made.

Plain PostgreSQL: hypertables are plain tables here, privileges are the same. The last test needs TimescaleDB as well.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from services.settings import load
from services.store.connect import Connection
from tests.support.database import migrated, run_job, value_of
from tests.support.native_postgres import NativePostgres
from tests.support.plain_schema import fresh

pytestmark = pytest.mark.native

ROLES = ("gpu_owner", "gpu_writer", "gpu_reader")
LOGINS = {"test_owner": "gpu_owner", "test_writer": "gpu_writer", "test_reader": "gpu_reader", "test_migrator": None}


def drop_roles(connection: Connection) -> None:
    for role in (*LOGINS, *ROLES):
        if value_of(connection, "SELECT count(*) FROM pg_roles WHERE rolname = %s", (role,)):
            connection.execute(f"DROP OWNED BY {role} CASCADE".encode())
            connection.execute(f"DROP ROLE {role}".encode())


@pytest.fixture(scope="module")
def connection(native_postgres: NativePostgres) -> Iterator[Connection]:
    with psycopg.connect(native_postgres.dsn, autocommit=True) as admin:
        drop_roles(admin)
    with fresh(native_postgres.dsn) as connection:
        connection.execute("SELECT grant_roles()")
        for login, group in LOGINS.items():
            member = f" IN ROLE {group}" if group else ""
            connection.execute(f"CREATE ROLE {login} LOGIN{member}".encode())
        yield connection
        drop_roles(connection)


READS = [
    "SELECT * FROM gpu_metrics",
    "SELECT * FROM v_latest_gpu_metrics",
    "SELECT * FROM v_gpu_metrics",
    "SELECT * FROM v_fleet_health_summary",
    "SELECT * FROM telemetry.gpu_telemetry",
    "SELECT * FROM gpu_events, gpu_snapshots, gpu_health_scores, gpu_failure_predictions, kafka_offsets",
]
WRITES = [
    "INSERT INTO gpu_metrics (time, gpu_id) VALUES (clock_timestamp(), 1)",
    'SELECT register_gpu(\'{"uuid": "GPU-1", "hostname": "h"}\', clock_timestamp())',
    "SELECT refresh_gpu_latest()",
    "INSERT INTO kafka_offsets VALUES ('g', 'c', 't', 'i', 0, 1) ON CONFLICT DO NOTHING",
    "UPDATE kafka_offsets SET next_offset = 2 WHERE next_offset = 1",
    "INSERT INTO gpu_events (time, kind) VALUES (clock_timestamp(), 'xid') ON CONFLICT DO NOTHING",
    "CREATE TEMPORARY TABLE staging (LIKE gpu_metrics) ON COMMIT DROP",
]
DELETES = ["DELETE FROM gpu_metrics", "TRUNCATE gpu_metrics", "DELETE FROM gpus", "DELETE FROM kafka_offsets"]
DEFINES = ["CREATE TABLE mine (a integer)", "DROP VIEW v_gpu_metrics", "ALTER TABLE gpu_metrics ADD COLUMN x integer"]


def allowed(server: NativePostgres, login: str, statement: str) -> bool:
    with psycopg.connect(server.dsn_for(login)) as session:
        try:
            session.execute(statement.encode())
        except psycopg.errors.InsufficientPrivilege:
            return False
        finally:
            session.rollback()
    return True


@pytest.mark.parametrize(
    ("login", "may"),
    [
        ("test_reader", READS),
        ("test_writer", READS + WRITES),
        ("test_owner", READS + WRITES + DELETES + DEFINES[:1]),
        ("test_migrator", []),
    ],
)
def test_least_privilege(connection: Connection, native_postgres: NativePostgres, login: str, may: list[str]) -> None:
    everything = READS + WRITES + DELETES + DEFINES
    found = [statement for statement in everything if allowed(native_postgres, login, statement)]
    always = [statement for statement in WRITES if statement.startswith("CREATE TEMPORARY")]  # PUBLIC may, by default
    always = always if login == "test_reader" else []
    assert [s for s in found if s not in always] == [s for s in may if s not in always]


def test_a_moved_gpu_may_be_written(connection: Connection, native_postgres: NativePostgres) -> None:
    """The history deletes and updates: all of it within the writer's rights."""
    with psycopg.connect(native_postgres.dsn_for("test_writer")) as session:
        for host, seen in (("a", 0), ("b", 100), ("c", 100), ("b", 50), ("z", -10)):
            document = f'{{"uuid": "GPU-moving", "hostname": "{host}"}}'
            session.execute("SELECT register_gpu(%s::jsonb, to_timestamp(%s))", (document, 1_800_000_000 + seen))
        session.rollback()


def test_tables_made_later_are_covered(connection: Connection, native_postgres: NativePostgres) -> None:
    connection.execute("CREATE TABLE made_later (a integer)")
    assert allowed(native_postgres, "test_reader", "SELECT * FROM made_later")
    assert not allowed(native_postgres, "test_reader", "INSERT INTO made_later VALUES (1)")


def test_again_is_harmless(connection: Connection) -> None:
    connection.execute("SELECT grant_roles()")
    connection.execute("SELECT grant_roles()")


def test_who_may_not_make_roles_is_told_what_to_ask_for(
    connection: Connection, native_postgres: NativePostgres
) -> None:
    definition = value_of(connection, "SELECT pg_get_functiondef('grant_roles'::regproc)").replace("gpu_", "absent_")
    connection.execute("GRANT CREATE ON SCHEMA telemetry TO test_migrator")
    connection.execute("GRANT USAGE ON SCHEMA telemetry TO test_migrator")
    with psycopg.connect(native_postgres.dsn_for("test_migrator"), autocommit=True) as session:
        notices: list[str] = []
        session.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
        session.execute(definition.replace("public.grant_roles", "telemetry.grant_roles").encode())
        session.execute("SELECT telemetry.grant_roles()")
    assert len(notices) == 3
    assert 'ask an administrator for "CREATE ROLE absent_owner NOLOGIN"' in notices[0]
    assert "test_migrator may not create roles" in notices[0]


@pytest.mark.timescale
def test_writer_and_reader_on_hypertables_and_aggregates(request: pytest.FixtureRequest) -> None:
    """Grants reach chunks, compressed chunks and what the aggregates are made of."""
    if load().timescale_dsn is None:
        pytest.skip("needs a native TimescaleDB: TIMESCALE_DSN is not set, and the embedded one does not enforce roles")
    dsn = request.getfixturevalue("timescale")
    hourly = "INSERT INTO gpu_metrics (time, gpu_id) SELECT now() - n * interval '1 h', %s FROM generate_series(0, 9) n"
    with migrated(dsn) as connection:
        connection.execute(hourly, (1,))
        connection.execute("CALL refresh_continuous_aggregate('gpu_metrics_1min', NULL, NULL)")
        run_job(connection, "policy_compression", "gpu_metrics")
        with connection.transaction(force_rollback=True):
            connection.execute("SET LOCAL ROLE gpu_writer")
            connection.execute(hourly, (2,))
        with connection.transaction():
            connection.execute("SET LOCAL ROLE gpu_reader")
            assert value_of(connection, "SELECT count(*) FROM gpu_metrics") == 10
            assert value_of(connection, "SELECT count(*) FROM v_gpu_metrics_1min") == 10
        with connection.transaction(force_rollback=True):
            connection.execute("SET LOCAL ROLE gpu_reader")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("INSERT INTO gpu_metrics (time, gpu_id) VALUES (now(), 3)")
