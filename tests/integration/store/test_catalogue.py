"""The schema against the catalogue and the row contract: columns, types, order, comments; and the golden file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.contract.catalogue import COUNTERS, SAMPLED
from services.contract.event import Gpu
from services.contract.row import COLUMNS, CONTEXT_COLUMNS
from services.store.connect import Connection
from tests.integration.store.describe import describe
from tests.integration.store.samples import aggregates
from tests.support.database import migrated, rows_of
from tests.support.golden import check_golden

pytestmark = pytest.mark.timescale

GOLDEN = Path(__file__).with_name("schema.golden.txt")
LEVELS = ("gpu_metrics_1min", "gpu_metrics_1hour", "gpu_metrics_1day")


@pytest.fixture(scope="module")
def connection(timescale: str) -> Iterator[Connection]:
    with migrated(timescale) as connection:
        yield connection


def columns(connection: Connection, relation: str) -> list[tuple[str, str, str | None]]:
    """(name, type, comment) in order."""
    rows = rows_of(
        connection,
        """
        SELECT a.attname, format_type(a.atttypid, a.atttypmod) AS type, col_description(a.attrelid, a.attnum) AS comment
        FROM pg_attribute a WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
        """,
        (relation,),
    )
    return [
        (row["attname"], row["type"].replace("timestamp with time zone", "timestamptz"), row["comment"]) for row in rows
    ]


def test_gpu_metrics_has_the_columns_of_the_row_in_copy_order(connection: Connection) -> None:
    found = [(name, kind) for name, kind, _ in columns(connection, "gpu_metrics")]
    assert found == [(column.name, column.sql) for column in COLUMNS]


def test_every_metric_column_says_its_unit_and_source(connection: Connection) -> None:
    comments = {name: comment for name, _, comment in columns(connection, "gpu_metrics")}
    for metric in SAMPLED:
        source = f"{metric.dcgm} ({metric.dcgm_id})"
        assert comments[metric.column] == f"{metric.unit}; {metric.kind}; {source}: {metric.help}"
    assert all(comments.values())


def test_aggregates_have_the_columns_that_the_kinds_ask_for(connection: Connection) -> None:
    expected = ["bucket", "gpu_id", "samples"]
    expected += [f"{name}_{metric.column}" for metric in SAMPLED for name in aggregates(metric)]
    expected += [f"last_{c.name}" for c in CONTEXT_COLUMNS if c.name not in ("counter_resets", "extra")]
    for level in LEVELS:
        assert sorted(name for name, _, _ in columns(connection, level)) == sorted(expected)


def test_levels_have_the_same_types(connection: Connection) -> None:
    one, two, three = ([(name, kind) for name, kind, _ in columns(connection, level)] for level in LEVELS)
    assert one == two == three


def test_increases_are_of_all_counters(connection: Connection) -> None:
    for level in ("1min", "1hour", "1day"):
        cursor = connection.execute(f"SELECT * FROM gpu_increases_{level}(now(), now())".encode())
        assert cursor.description is not None
        assert [c.name for c in cursor.description][2:] == [f"{m.column}_increase" for m in COUNTERS]


def test_inventory_has_every_field_of_an_identity(connection: Connection) -> None:
    names = {name for name, _, _ in columns(connection, "gpus")}
    renamed = {"uuid": "gpu_uuid", "index": "gpu_index"}
    assert {renamed.get(field, field) for field in Gpu.__struct_fields__} <= names


def test_views_have_every_metric(connection: Connection) -> None:
    for view in ("v_gpu_metrics", "v_latest_gpu_metrics"):
        names = {name for name, _, _ in columns(connection, view)}
        assert {c.name for c in COLUMNS} | {"memory_percent", "power_percent", "gpu_uuid", "hostname"} <= names


def test_every_table_and_column_of_ours_is_described(connection: Connection) -> None:
    tables = rows_of(
        connection,
        "SELECT oid::regclass::text AS name, obj_description(oid) AS comment FROM pg_class "
        "WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'schema_migrations'",
    )
    assert len(tables) >= 9
    for table in tables:
        assert table["comment"], table["name"]
        assert [name for name, _, comment in columns(connection, table["name"]) if not comment] == [], table["name"]


def test_golden_schema(connection: Connection) -> None:
    """Migrations build exactly this: tables, views, columns, types, comments, keys, indexes, functions, policies."""
    check_golden(GOLDEN, describe(connection))
