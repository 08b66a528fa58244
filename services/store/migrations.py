"""The migrations on disk, what the database says of them, and which are to be applied. Pure but for reading files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.store.connect import StoreError

DIRECTORY = Path(__file__).resolve().parents[2] / "schema" / "migrations"
NAME = re.compile(r"(\d{4})_([a-z0-9]+(?:_[a-z0-9]+)+)\.sql")
NO_TRANSACTION = "-- no transaction"
"""First line of a migration that PostgreSQL refuses inside a transaction. Such a file holds exactly one statement."""


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    """File name without `.sql`, for example `0001_create_inventory`."""
    sql: str
    transactional: bool

    @property
    def checksum(self) -> str:
        """SHA-256 of the text; line ends do not count."""
        return hashlib.sha256("\n".join(self.sql.splitlines()).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Record:
    """A row of schema_migrations."""

    version: int
    name: str
    checksum: str
    applied: bool
    """False: it was started and did not end."""


def read(directory: Path = DIRECTORY) -> tuple[Migration, ...]:
    """All migrations, in order. Raises StoreError on a gap, a number used twice or a name that does not fit."""
    migrations = tuple(_parse(path) for path in sorted(directory.glob("*.sql")))
    if not migrations:
        raise StoreError(f"no migrations in {directory}: the installation is not complete")
    for expected, migration in enumerate(migrations, 1):
        if migration.version < expected:
            names = ", ".join(m.name for m in migrations if m.version == migration.version)
            raise StoreError(f"migration number {migration.version:04d} is used twice: {names}")
        if migration.version > expected:
            raise StoreError(f"migration {expected:04d} is missing in {directory}; the next is {migration.name}")
    return migrations


def _parse(path: Path) -> Migration:
    match = NAME.fullmatch(path.name)
    if match is None:
        raise StoreError(f"{path} is not named like a migration: NNNN_verb_noun.sql")
    sql = path.read_text(encoding="utf-8")
    return Migration(int(match[1]), path.stem, sql, transactional=not sql.startswith(NO_TRANSACTION))


def pending(migrations: Sequence[Migration], records: Mapping[int, Record]) -> tuple[Migration, ...]:
    """What is still to be applied. Raises StoreError where the database is in a state no migration may build on."""
    known = {migration.version: migration for migration in migrations}
    for version, record in sorted(records.items()):
        if not record.applied:
            raise StoreError(half_applied(record))
        if version not in known:
            raise StoreError(
                f"the database has migration {record.name}, which this version of gpumon does not know: "
                "it was migrated by a newer one; update gpumon"
            )
        if known[version].checksum != record.checksum:
            raise StoreError(
                f"migration {record.name} was changed after it had been applied: its checksum is not the one in "
                "schema_migrations; put the file back as it was and make the change in a new migration"
            )
    open_ones = tuple(migration for migration in migrations if migration.version not in records)
    if open_ones and records and open_ones[0].version < max(records):
        raise StoreError(f"migration {open_ones[0].name} was never applied, but later ones were: restore a backup")
    return open_ones


def half_applied(record: Record) -> str:
    """What to do about a migration that was started and did not end."""
    key = f"schema_migrations WHERE version = {record.version}"
    return (
        f"migration {record.name} was started and did not end, so the schema may be half-way. Look at what its file "
        f"does; then either undo it and DELETE its row FROM {key}, or finish it and set applied_at = now() in {key}; "
        "and run gpumon migrate again"
    )
