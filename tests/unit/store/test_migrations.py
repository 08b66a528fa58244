"""Reading migrations and deciding which are to be applied: without a database."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.store.connect import StoreError
from services.store.migrations import Migration, Record, pending, read


def write(directory: Path, *names: str) -> Path:
    for name in names:
        (directory / name).write_text(f"SELECT '{name}';\n", encoding="utf-8")
    return directory


def applied(*migrations: Migration) -> dict[int, Record]:
    return {m.version: Record(m.version, m.name, m.checksum, applied=True) for m in migrations}


def test_the_delivered_migrations_are_complete() -> None:
    migrations = read()
    assert [m.version for m in migrations] == list(range(1, len(migrations) + 1))
    assert len(migrations) >= 12
    assert all(m.transactional for m in migrations)


def test_read_gives_them_in_order(tmp_path: Path) -> None:
    first, second = read(write(tmp_path, "0002_add_things.sql", "0001_create_things.sql"))
    assert (first.version, first.name, first.sql) == (1, "0001_create_things", "SELECT '0001_create_things.sql';\n")
    assert second.version == 2


def test_a_missing_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"migration 0002 is missing .* the next is 0003_add_more"):
        read(write(tmp_path, "0001_create_things.sql", "0003_add_more.sql"))


def test_a_number_used_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="number 0001 is used twice: 0001_create_other, 0001_create_things"):
        read(write(tmp_path, "0001_create_things.sql", "0001_create_other.sql"))


@pytest.mark.parametrize(
    "name", ["1_create_things.sql", "0001-create.sql", "0001_Create_Things.sql", "0001_create.sql"]
)
def test_a_name_that_does_not_fit_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match=r"NNNN_verb_noun\.sql"):
        read(write(tmp_path, name))


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no migrations in"):
        read(tmp_path)


def test_checksum_ignores_line_ends_and_sees_the_rest() -> None:
    unix, windows = (Migration(1, "n", text, transactional=True) for text in ("a\nb\n", "a\r\nb\r\n"))
    other = Migration(1, "n", "a\nc\n", transactional=True)
    assert unix.checksum == windows.checksum
    assert unix.checksum != other.checksum


def test_no_transaction_is_said_in_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "0001_create_index.sql").write_text("-- no transaction\nCREATE INDEX CONCURRENTLY i ON t (a);\n")
    assert not read(tmp_path)[0].transactional


@pytest.fixture
def three(tmp_path: Path) -> tuple[Migration, ...]:
    return read(write(tmp_path, "0001_create_a.sql", "0002_create_b.sql", "0003_create_c.sql"))


def test_pending_is_what_is_not_applied(three: tuple[Migration, ...]) -> None:
    assert pending(three, {}) == three
    assert pending(three, applied(*three[:1])) == three[1:]
    assert pending(three, applied(*three)) == ()


def test_half_applied_is_refused_with_what_to_do(three: tuple[Migration, ...]) -> None:
    state = applied(*three[:1]) | {2: Record(2, "0002_create_b", three[1].checksum, applied=False)}
    with pytest.raises(StoreError, match=r"0002_create_b was started and did not end.*version = 2.*run gpumon migrate"):
        pending(three, state)


def test_a_changed_migration_is_refused(three: tuple[Migration, ...]) -> None:
    state = applied(*three) | {2: Record(2, "0002_create_b", "0" * 64, applied=True)}
    with pytest.raises(StoreError, match="0002_create_b was changed after it had been applied"):
        pending(three, state)


def test_a_newer_database_is_refused(three: tuple[Migration, ...]) -> None:
    with pytest.raises(StoreError, match="has migration 0003_create_c, which this version of gpumon does not know"):
        pending(three[:2], applied(*three))


def test_a_gap_in_the_database_is_refused(three: tuple[Migration, ...]) -> None:
    with pytest.raises(StoreError, match="0002_create_b was never applied, but later ones were"):
        pending(three, applied(three[0], three[2]))
