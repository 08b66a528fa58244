"""The schema of a database as text that is the same on every server it is right on."""

from __future__ import annotations

from operator import itemgetter

from services.store.connect import Connection
from tests.support.database import rows_of

_RELATIONS = """
SELECT c.oid::regclass::text AS name, obj_description(c.oid, 'pg_class') AS comment,
    CASE WHEN c.oid::regclass::text IN (SELECT view_name FROM timescaledb_information.continuous_aggregates)
        THEN 'continuous aggregate' ELSE CASE c.relkind WHEN 'r' THEN 'table' ELSE 'view' END END AS kind
FROM pg_class c
WHERE c.relnamespace IN ('public'::regnamespace, 'telemetry'::regnamespace) AND c.relkind IN ('r', 'v')
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
"""
_COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS required,
    col_description(a.attrelid, a.attnum) AS comment
FROM pg_attribute a WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_CONSTRAINTS = """
SELECT pg_get_constraintdef(oid) AS text FROM pg_constraint
WHERE conrelid = %s::regclass AND contype <> 'n'
"""
_INDEXES = """
SELECT pg_get_indexdef(i.indexrelid) AS text FROM pg_index i
WHERE i.indrelid = %s::regclass AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid)
"""
_FUNCTIONS = """
SELECT p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')' || CASE
    WHEN pg_get_function_result(p.oid) IS NULL THEN ' (procedure)'
    WHEN pg_get_function_result(p.oid) LIKE 'TABLE%' THEN ' -> TABLE'
    ELSE ' -> ' || pg_get_function_result(p.oid) END AS text
FROM pg_proc p
WHERE p.pronamespace IN ('public'::regnamespace, 'telemetry'::regnamespace)
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
"""
_HYPERTABLES = """
SELECT coalesce(a.view_name, d.hypertable_name) AS name, d.column_name AS dimension, d.time_interval::text AS chunk,
    s.segmentby, s.orderby
FROM timescaledb_information.dimensions d
LEFT JOIN timescaledb_information.continuous_aggregates a ON a.materialization_hypertable_name = d.hypertable_name
LEFT JOIN timescaledb_information.hypertable_compression_settings s
    ON s.hypertable = format('%I.%I', d.hypertable_schema, d.hypertable_name)::regclass
"""
_POLICIES = """
SELECT proc_name || coalesce(' on ' || hypertable_name, '') || ' every ' || schedule_interval || coalesce(': ' || (
    SELECT string_agg(key || ' ' || value, ', ' ORDER BY key) FROM jsonb_each_text(config)
    WHERE key NOT LIKE '%hypertable_id'), '') AS text
FROM timescaledb_information.jobs WHERE job_id >= 1000
"""


def describe(connection: Connection) -> str:
    """Relations with columns, comments, keys and indexes; functions; hypertables; policies.

    Sorted by Python: collations differ between servers.
    """
    lines = []
    for relation in sorted(rows_of(connection, _RELATIONS), key=itemgetter("name")):
        lines.append(f"{relation['kind']} {relation['name']}" + _comment(relation["comment"]))
        lines += _inside(connection, relation["name"])
    lines += sorted(f"function {row['text']}" for row in rows_of(connection, _FUNCTIONS))
    for row in sorted(rows_of(connection, _HYPERTABLES), key=itemgetter("name")):
        lines.append(f"hypertable {row['name']} by {row['dimension']} every {row['chunk']}")
        lines.append(f"    columnstore segmentby {row['segmentby'] or 'none'} orderby {row['orderby']}")
    lines += sorted(f"policy {row['text']}" for row in rows_of(connection, _POLICIES))
    return "\n".join(lines) + "\n"


def _inside(connection: Connection, relation: str) -> list[str]:
    lines = []
    for row in rows_of(connection, _COLUMNS, (relation,)):
        required = " NOT NULL" if row["required"] else ""
        lines.append(f"    {row['name']} {row['type']}{required}" + _comment(row["comment"]))
    lines += sorted(f"    {row['text']}" for row in rows_of(connection, _CONSTRAINTS, (relation,)))
    lines += sorted(f"    {row['text']}" for row in rows_of(connection, _INDEXES, (relation,)))
    return lines


def _comment(text: str | None) -> str:
    return "" if text is None else f"  -- {text}"
