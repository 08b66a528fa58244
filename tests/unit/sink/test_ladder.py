"""The climbing, on a table made of a set: no database."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contract.row import COLUMNS
from services.sink import ladder
from services.sink.copy_format import to_copy
from services.sink.ladder import Outcome, Rung, insert
from services.sink.rows import Row
from services.sink.sqlstate import Kind, classify
from services.sink.writer import climb
from tests.support.copy_parse import parse_copy


def row(key: int) -> Row:
    return (key, 1, *(None,) * (len(COLUMNS) - 2))


class FakeTable:
    """Keys in a set. `poison` raise a data error when they are copied; `broken` makes the connection fail."""

    def __init__(
        self, present: set[int] | None = None, poison: set[int] | None = None, broken_after: int = 10**9
    ) -> None:
        self.keys = set(present or ())
        self.poison = poison or set()
        self.copies = 0
        self._broken_after = broken_after

    def _read(self, data: bytes | bytearray) -> list[int]:
        self.copies += 1
        if self.copies > self._broken_after:
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        keys = [int.from_bytes(fields[0] or b"", "big") for fields in parse_copy(bytes(data))]
        if self.poison & set(keys):
            raise psycopg.errors.CheckViolation("no")
        return keys

    def copy(self, data: bytes | bytearray) -> int:
        keys = self._read(data)
        if len(set(keys)) < len(keys) or self.keys & set(keys):
            raise psycopg.errors.UniqueViolation("already there")
        self.keys |= set(keys)
        return len(keys)

    def stage(self, data: bytes | bytearray) -> int:
        new = set(self._read(data)) - self.keys
        self.keys |= new
        return len(new)

    def savepoint(self) -> AbstractContextManager[object]:
        return self._savepoint()

    @contextmanager
    def _savepoint(self) -> Iterator[None]:
        before = set(self.keys)
        try:
            yield
        except psycopg.Error:
            self.keys = before
            raise


def climbed(table: FakeTable, keys: list[int], points: list[str] | None = None) -> Outcome:
    """What the writer does: each attempt from the start, on the rung that the last error calls for."""
    rows, rung = [row(key) for key in keys], Rung.DIRECT
    while True:
        try:
            with table.savepoint():
                return insert(table, rung, rows, to_copy(rows), (points if points is not None else []).append)
        except psycopg.Error as error:
            rung = climb(rung, error)


def test_new_rows_take_the_direct_way() -> None:
    table, points = FakeTable(), list[str]()
    outcome = climbed(table, [1, 2, 3], points)
    assert (outcome.rung, outcome.inserted, outcome.duplicates, outcome.bad) == (Rung.DIRECT, 3, 0, [])
    assert (table.copies, points) == (1, ["before_copy", "copied_direct"])


def test_duplicates_go_through_the_stage_and_are_counted() -> None:
    table, points = FakeTable(present={2}), list[str]()
    outcome = climbed(table, [1, 2, 3, 3], points)
    assert (outcome.rung, outcome.inserted, outcome.duplicates) == (Rung.STAGED, 2, 2)
    assert table.keys == {1, 2, 3}
    assert points[-1] == "staged"


def test_the_bad_row_is_found_alone_and_the_others_are_written() -> None:
    table, points = FakeTable(present={7}, poison={42}), list[str]()
    outcome = climbed(table, list(range(100)), points)
    assert outcome.rung is Rung.BISECTED
    assert [position for position, _ in outcome.bad] == [42]
    assert (outcome.inserted, outcome.duplicates) == (98, 1)
    assert table.keys == set(range(100)) - {42}
    assert "bisecting" in points


@given(
    keys=st.lists(st.integers(0, 50), min_size=1, max_size=60),
    poison=st.sets(st.integers(0, 50), max_size=6),
    present=st.sets(st.integers(0, 50), max_size=20),
)
def test_whatever_the_mix_every_good_row_is_in_once_and_only_bad_ones_are_refused(
    keys: list[int], poison: set[int], present: set[int]
) -> None:
    table = FakeTable(present=present - poison, poison=poison)
    before = set(table.keys)
    outcome = climbed(table, keys)
    assert sorted(position for position, _ in outcome.bad) == [i for i, key in enumerate(keys) if key in poison]
    assert table.keys == before | (set(keys) - poison)
    assert outcome.inserted == len(table.keys) - len(before)
    assert outcome.inserted + outcome.duplicates + len(outcome.bad) == len(keys)


def test_finding_one_bad_row_costs_a_logarithm() -> None:
    table = FakeTable(poison={4321})
    climbed(table, list(range(5000)))
    assert table.copies <= 2 * math.ceil(math.log2(5000)) + 4


def test_a_lost_connection_in_mid_search_makes_no_row_bad() -> None:
    table = FakeTable(poison={3}, broken_after=4)
    with pytest.raises(psycopg.OperationalError):
        climbed(table, list(range(16)))


def test_an_empty_batch_touches_nothing() -> None:
    table = FakeTable()
    assert climbed(table, []).inserted == 0
    assert table.copies == 0


@pytest.mark.parametrize(
    ("rung", "error", "following"),
    [
        (Rung.DIRECT, psycopg.errors.UniqueViolation(), Rung.STAGED),
        (Rung.DIRECT, psycopg.errors.NumericValueOutOfRange(), Rung.BISECTED),
        (Rung.STAGED, psycopg.errors.NotNullViolation(), Rung.BISECTED),
    ],
)
def test_climb(rung: Rung, error: psycopg.Error, following: Rung) -> None:
    assert climb(rung, error) is following


@pytest.mark.parametrize(
    ("rung", "error"),
    [
        (Rung.STAGED, psycopg.errors.UniqueViolation()),
        (Rung.BISECTED, psycopg.errors.NumericValueOutOfRange()),
        (Rung.DIRECT, psycopg.errors.UndefinedTable()),
        (Rung.DIRECT, psycopg.errors.AdminShutdown()),
        (Rung.DIRECT, psycopg.OperationalError()),
    ],
)
def test_no_rung_deals_with_the_rest(rung: Rung, error: psycopg.Error) -> None:
    with pytest.raises(type(error)):
        climb(rung, error)


TRANSIENT = ["08006", "08P01", "40001", "40P01", "53100", "53300", "55P03", "57P01", "57P02", "57P03", "58030", "57014"]
DATA = ["22001", "22003", "22021", "22P05", "22007", "23502", "23514", "42804", "54000"]
FATAL = ["42P01", "42501", "42703", "42883", "28P01", "3D000", "P0001", "XX000", "23503", "0A000"]


@pytest.mark.parametrize(
    ("state", "kind"),
    [(s, Kind.TRANSIENT) for s in TRANSIENT] + [(s, Kind.DATA) for s in DATA] + [(s, Kind.FATAL) for s in FATAL],
)
def test_sqlstates(state: str, kind: Kind) -> None:
    assert classify(psycopg.errors.lookup(state)()) is kind


def test_errors_without_sqlstate() -> None:
    assert classify(psycopg.OperationalError("connection refused")) is Kind.TRANSIENT
    assert classify(psycopg.InterfaceError("a bug of ours")) is Kind.FATAL
    assert classify(psycopg.ProgrammingError("a bug of ours")) is Kind.FATAL


def test_the_staging_table_and_the_target_have_the_columns_of_the_contract() -> None:
    assert ladder._COPY.count(",") == len(COLUMNS) - 1
