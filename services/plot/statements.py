"""SQL of the points, by level. Column names come from the catalogue; whatever a user gave is passed as a value."""

from __future__ import annotations

from typing import Final, LiteralString

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from services.contract.catalogue import Kind, Metric, Unit
from services.contract.clocks_event import THROTTLING
from services.plot.data import HEAT
from services.plot.select import ROWS, Level, Selection

_SOURCE: Final = SQL("""
    FROM {relation} m
    JOIN unnest(%(ids)s::int[], %(since)s::timestamptz[], %(until)s::timestamptz[]) AS stay (gpu_id, since, until)
        ON m.gpu_id = stay.gpu_id AND m.{time} >= stay.since AND m.{time} < stay.until
    WHERE m.{time} >= %(start)s AND m.{time} < %(end)s AND m.gpu_id = ANY(%(ids)s)
""")


def source(level: Level) -> Composed:
    """FROM and WHERE: a GPU counts while it stood at a selected host. The time of a bucket is its begin."""
    return _SOURCE.format(relation=Identifier(level.relation), time=Identifier(level.time))


def status(selection: Selection, level: Level) -> Composable:
    """What the host said it did, as conditions that follow `source`."""
    tag, memo = (Identifier("m", f"{level.prefix}status_{part}") for part in ("tag", "memo"))
    parts: list[Composable] = []
    if selection.tags:
        parts.append(SQL("AND {} = ANY(%(tags)s)").format(tag))
    if selection.exclude_prod:
        parts.append(SQL("AND {} IS DISTINCT FROM 'prod'").format(tag))
    if selection.memos:
        parts.append(SQL("AND {} = ANY(%(memos)s)").format(memo))
    return SQL(" ").join(parts)


def extent(level: Level) -> Composed:
    """gpu_id, number of rows, first and last time, of GPUs that have any."""
    samples = SQL("count(*)") if level is ROWS else SQL("sum(m.samples)::bigint")
    return SQL("SELECT m.gpu_id, {samples}, min(m.{t}), max(m.{t}) {source} GROUP BY 1").format(
        samples=samples, t=Identifier(level.time), source=source(level)
    )


def points(selection: Selection, level: Level, bucket: float) -> Composed:
    """gpu_id, time (epoch seconds; of a bucket its begin), then value, minimum, maximum, samples of each metric."""
    time: Composable = Identifier("m", level.time)
    if bucket:
        time = SQL("time_bucket({}::interval, {})").format(Literal(f"{bucket:g} seconds"), time)
    return SQL(
        "SELECT m.gpu_id, extract(epoch FROM {time})::float8, {values} {source} {status} {grouped} ORDER BY 1, 2"
    ).format(
        time=time,
        values=SQL(", ").join([value for m in selection.metrics for value in _columns(m, level, bucket)]),
        source=source(level),
        status=status(selection, level),
        grouped=SQL("GROUP BY 1, 2") if bucket else SQL(""),
    )


def _columns(metric: Metric, level: Level, bucket: float) -> list[Composable]:
    """Value, minimum, maximum and number of samples of a metric, as expressions over `m`.

    Of a bucket: the mean of what is measured, the largest code or flag, every bit that was set, a counter's last.
    """
    name, rows = metric.column, level is ROWS
    if not bucket:
        return _say(name, "m.{x}::float8", "NULL::float8", "NULL::float8", "(m.{x} IS NOT NULL)::int")
    if metric.kind is Kind.COUNTER:
        last = "last(m.{x}, m.time)::float8" if rows else "last(m.last_{x}, m.bucket)::float8"
        return _say(name, last, "NULL::float8", "NULL::float8", "1")
    if metric.unit is Unit.BITMASK:
        bits = "bit_or(m.{x})::float8" if rows else "bit_or(m.or_{x})::float8"
        return _say(name, bits, "NULL::float8", "NULL::float8", "1")
    if metric.unit in (Unit.CODE, Unit.FLAG):
        largest = "max(m.{x})::float8" if rows else "max(m.max_{x})::float8"
        return _say(name, largest, "NULL::float8", "NULL::float8", "1")
    if rows:
        return _say(name, "avg(m.{x})::float8", "min(m.{x})::float8", "max(m.{x})::float8", "count(m.{x})")
    mean = "sum(m.sum_{x})::float8 / nullif(sum(m.count_{x}), 0)::float8"
    return _say(name, mean, "min(m.min_{x})::float8", "max(m.max_{x})::float8", "sum(m.count_{x})")


def _say(name: str, *expressions: LiteralString) -> list[Composable]:
    """`m.min_{x}` -> m."min_gpu_temp": the names are those of the catalogue, never a user's."""
    return [SQL(e.replace("{x}", name)) for e in expressions]


def power_limits(level: Level) -> Composed:
    """gpu_id, largest power limit in W."""
    column = SQL("power_limit") if level is ROWS else SQL("max_power_limit")
    return SQL("SELECT m.gpu_id, max(m.{})::float8 {} GROUP BY 1").format(column, source(level))


def runs(selection: Selection, level: Level, gap: float, step: float) -> Composed:
    """gpu_id, start, end, tag, memo of each stretch of one status."""
    tag, memo = (Identifier("m", f"{level.prefix}status_{part}") for part in ("tag", "memo"))
    given = SQL("{} AS tag, {} AS memo").format(tag, memo)
    return _islands(given, SQL("row(tag, memo)"), SQL("min(tag), min(memo)"), (selection, level, gap, step))


def throttled(selection: Selection, level: Level, gap: float, step: float) -> Composed:
    """gpu_id, start, end, bits of each stretch that was throttled by heat, or else by power, or not at all."""
    column = "clocks_event_reasons" if level is ROWS else "or_clocks_event_reasons"
    given = SQL("{} AS bits").format(Identifier("m", column))
    state = SQL("CASE WHEN bits & {heat} <> 0 THEN 2 WHEN bits & {any} <> 0 THEN 1 END").format(
        heat=Literal(HEAT), any=Literal(THROTTLING)
    )
    return _islands(given, state, SQL("bit_or(bits)"), (selection, level, gap, step))


def _islands(
    given: Composable, state: Composable, shown: Composable, of: tuple[Selection, Level, float, float]
) -> Composed:
    """Stretches of each GPU's samples with one `state` and no gap: gpu_id, start, end (epoch s), `shown` of them."""
    selection, level, gap, step = of
    return SQL("""
        WITH samples AS (SELECT m.gpu_id, {time} AS at, {given} {source} {status}),
        marked AS (
            SELECT *, {state} IS DISTINCT FROM lag({state}) OVER w OR at - lag(at) OVER w > {gap}::interval AS begins
            FROM samples
            WINDOW w AS (PARTITION BY gpu_id ORDER BY at)
        ), numbered AS (
            SELECT *, count(*) FILTER (WHERE begins) OVER (PARTITION BY gpu_id ORDER BY at) AS number FROM marked
        )
        SELECT gpu_id, extract(epoch FROM min(at))::float8, extract(epoch FROM max(at))::float8 + {step}, {shown}
        FROM numbered GROUP BY gpu_id, number ORDER BY 1, 2
    """).format(
        given=given, state=state, shown=shown, time=Identifier("m", level.time), gap=Literal(f"{gap:.3f} seconds"),
        step=Literal(step), source=source(level), status=status(selection, level),
    )  # fmt: skip
