"""Role `migrate`: brings the schema up to date, then the policies and grants. Idempotent; one at a time.

Each migration runs in a transaction of its own together with its row in `schema_migrations`, so it is there wholly or
not at all. A migration that PostgreSQL refuses inside a transaction is announced first; when it does not end, the next
run says so.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

from services.settings import Settings
from services.store import database_settings, policies
from services.store.connect import Connection, StoreError, connect, one_line
from services.store.migrations import Migration, Record, pending, read

log = logging.getLogger("migrate")

LOCK = 0x6770_756D_6F6E  # "gpumon": any number, the same in all processes
OLDEST_POSTGRESQL = 15
"""UNIQUE NULLS NOT DISTINCT."""
OLDEST_TIMESCALEDB = (2, 23)
"""The oldest the tests run on (the embedded one)."""

STATE_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    applied_at timestamptz
);
COMMENT ON TABLE schema_migrations IS 'Migrations of this database; applied_at NULL: started and not ended.';
"""


@dataclass(slots=True)
class Outcome:
    version: int
    """Number of the last migration applied."""
    applied: list[str] = field(default_factory=list)
    policies: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="how long to wait for the server")
    parser.add_argument("--status", action="store_true", help="change nothing; exit 1 unless the schema is up to date")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, settings: Settings) -> int:
    try:
        with connect(settings, "migrate", autocommit=True, wait=args.wait) as connection:
            return _status(connection, args) if args.status else _migrate(connection, settings, args)
    except StoreError as error:
        return _failed(str(error), args)
    except psycopg.Error as error:
        return _failed(f"{one_line(error)} (SQLSTATE {error.sqlstate})", args)


def _failed(message: str, args: argparse.Namespace) -> int:
    if args.json:
        print(json.dumps({"ok": False, "error": message}))
    print(f"gpumon migrate: {message}", file=sys.stderr)
    return 1


def _migrate(connection: Connection, settings: Settings, args: argparse.Namespace) -> int:
    outcome = migrate(connection, settings)
    if args.json:
        print(json.dumps({"ok": True, **{name: getattr(outcome, name) for name in outcome.__slots__}}))
    else:
        done = f"applied {len(outcome.applied)}" if outcome.applied else "nothing to apply"
        print(f"schema at {outcome.version:04d}: {done}, {len(outcome.policies)} policies set")
    return 0


def migrate(connection: Connection, settings: Settings, migrations: Sequence[Migration] | None = None) -> Outcome:
    """Apply what is missing, then policies and grants. `connection` is in autocommit. Raises StoreError."""
    migrations = read() if migrations is None else migrations
    notices: list[str] = []
    connection.add_notice_handler(lambda notice: _keep(notice, notices))
    check_server(connection)
    with _lock(connection):
        connection.execute(STATE_TABLE)
        outcome = Outcome(version=migrations[-1].version)
        notices.clear()  # "already exists, skipping" of the table above
        for migration in pending(migrations, records(connection)):
            _apply(connection, migration)
            outcome.applied.append(migration.name)
        outcome.policies = list(policies.apply(connection, settings))
        notices.clear()  # of the policies; what follows is for the operator
        refused = database_settings.apply(connection)
        connection.execute("SELECT grant_roles()")
        outcome.notices = notices + refused
    for notice in outcome.notices:
        log.warning(notice)
    return outcome


def _keep(notice: psycopg.errors.Diagnostic, notices: list[str]) -> None:
    if notice.severity_nonlocalized in ("NOTICE", "WARNING") and notice.message_primary:
        notices.append(notice.message_primary)


def check_server(connection: Connection) -> None:
    """Refuse a server the schema cannot live on; make the extension where the server has it. Raises StoreError."""
    if connection.info.server_version // 10_000 < OLDEST_POSTGRESQL:
        major = connection.info.server_version // 10_000
        raise StoreError(f"PostgreSQL {major} is too old: {OLDEST_POSTGRESQL} or newer is needed")
    version = _extension(connection)
    if tuple(int(part) for part in version.split("-")[0].split(".")[:2]) < OLDEST_TIMESCALEDB:
        oldest = ".".join(map(str, OLDEST_TIMESCALEDB))
        raise StoreError(f"TimescaleDB {version} is too old: {oldest} or newer is needed")
    licence = connection.execute("SELECT current_setting('timescaledb.license', true)").fetchone()
    if licence is not None and licence[0] == "apache":
        raise StoreError(
            "this TimescaleDB runs under timescaledb.license = apache, without columnstore, policies and continuous "
            "aggregates: use the Community edition (image timescale/timescaledb without -oss), or set "
            "timescaledb.license = timescale where the module is installed"
        )


def _extension(connection: Connection) -> str:
    query = "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"
    found = connection.execute(query).fetchone()
    if found is None:
        try:
            connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        except psycopg.Error as error:
            raise StoreError(
                f"the database {connection.info.dbname!r} has no TimescaleDB extension, and it cannot be made: "
                f"{one_line(error)}; install TimescaleDB on the server (shared_preload_libraries = 'timescaledb'), or "
                "let a superuser run CREATE EXTENSION timescaledb"
            ) from error
        found = connection.execute(query).fetchone()
    assert found is not None  # noqa: S101  # it was made above, or that raised
    return str(found[0])


@contextmanager
def _lock(connection: Connection) -> Iterator[None]:
    """One migration at a time, over all processes; others wait here."""
    free = connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone()
    if free is not None and not free[0]:
        log.info("another gpumon migrate is running: waiting for it")
        connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
    try:
        yield
    finally:
        if not connection.closed and not connection.broken:
            connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))


def records(connection: Connection) -> dict[int, Record]:
    """What the database says of its migrations; nothing for an empty database."""
    exists = connection.execute("SELECT to_regclass('schema_migrations') IS NOT NULL").fetchone()
    if exists is None or not exists[0]:
        return {}
    rows = connection.execute(
        "SELECT version, name, checksum, applied_at IS NOT NULL FROM schema_migrations"
    ).fetchall()
    return {row[0]: Record(*row) for row in rows}


def _apply(connection: Connection, migration: Migration) -> None:
    log.info("applying", extra={"migration": migration.name})
    try:
        if migration.transactional:
            with connection.transaction():
                _execute(connection, migration)
                _start(connection, migration)
                _finish(connection, migration)
        else:
            _start(connection, migration)
            _execute(connection, migration)
            _finish(connection, migration)
    except psycopg.Error as error:
        undone = "nothing of it was applied" if migration.transactional else "it may be applied in part"
        raise StoreError(
            f"migration {migration.name} failed: {one_line(error)} (SQLSTATE {error.sqlstate}); {undone}"
        ) from error


def _execute(connection: Connection, migration: Migration) -> None:
    # No parameters: sent as one simple query, which may hold many statements.
    connection.execute(migration.sql.encode())


def _start(connection: Connection, migration: Migration) -> None:
    connection.execute(
        "INSERT INTO schema_migrations (version, name, checksum) VALUES (%s, %s, %s)",
        (migration.version, migration.name, migration.checksum),
    )


def _finish(connection: Connection, migration: Migration) -> None:
    connection.execute("UPDATE schema_migrations SET applied_at = now() WHERE version = %s", (migration.version,))


def _status(connection: Connection, args: argparse.Namespace) -> int:
    check_server(connection)
    done = records(connection)
    missing = {migration.version for migration in pending(read(), done)}
    if args.json:
        states = {m.name: "pending" if m.version in missing else "applied" for m in read()}
        print(json.dumps({"ok": not missing, "migrations": states}))
    else:
        for migration in read():
            print(f"{'pending' if migration.version in missing else 'applied':8} {migration.name}")
    return 1 if missing else 0
