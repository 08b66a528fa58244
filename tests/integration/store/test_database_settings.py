"""What `gpumon migrate` sets for the database, on whatever server there is."""

from __future__ import annotations

import psycopg

from services.settings import Settings
from services.store.database_settings import allowed, apply
from services.store.migrate import migrate

KEPT = (
    "SELECT unnest(setconfig) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase WHERE datname = %s"
)


def _kept(connection: psycopg.Connection) -> set[str]:
    return {text for (text,) in connection.execute(KEPT, (connection.info.dbname,)).fetchall()}


def test_settings_are_kept_with_the_database(timescale: str) -> None:
    with psycopg.connect(timescale, autocommit=True) as connection:
        migrate(connection, Settings())
        expected = {f"{name}={value}" for name, value in allowed(connection).items()}
        assert "jit=off" in expected
        assert expected <= _kept(connection)


def test_applying_twice_says_nothing_and_changes_nothing(timescale: str) -> None:
    with psycopg.connect(timescale, autocommit=True) as connection:
        assert apply(connection) == []
        before = _kept(connection)
        assert apply(connection) == []
        assert _kept(connection) == before
