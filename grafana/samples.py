"""What the panels of one host are computed from: the samples of its GPUs, at the level for the range shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from grafana import style
from grafana.gaps import BLANK, with_gaps
from grafana.resolution import PER_GPU, USAGE, Level, read
from grafana.selection import ON_HOST, on_host

MEAN: Final = "sum(total) / nullif(sum(n), 0)::float8"
MEAN_WATTS: Final = "sum(watts) / nullif(sum(watts_n), 0)::float8"


def sample(select: Callable[[Level], str]) -> str:
    """WITH: `sample` has what `select` takes of the samples of the GPUs chosen, at the level for the range."""
    return f"WITH {ON_HOST}, sample AS (\n{read(select, on_host)}\n)\n"


def by_gpu(value: Callable[[Level], str], *, blank: bool = False) -> str:
    """A series for each GPU, with gaps where it was silent; with `blank`, also for those without a sample."""

    def select(level: Level) -> str:
        return f"m.{level.time} AS time, gpu.name AS metric, {value(level)} AS value, INTERVAL '{level.gap}' AS gap"

    silent = f"SELECT {BLANK}, name, NULL FROM gpu WHERE name NOT IN (SELECT metric FROM sample)" if blank else ""
    return sample(select) + with_gaps(("value",), "metric", silent)


def average(column: str) -> str:
    return by_gpu(lambda level: level.average(column))


def peaks(column: str) -> str:
    """The highest of each bucket, where the range is read from buckets; of rows the value itself is shown."""

    def select(level: Level) -> str:
        value = f"{level.highest(column)} AS value, INTERVAL '{level.gap}' AS gap"
        return f"m.{level.time} AS time, gpu.name || ' peak' AS metric, {value}"

    levels = read(select, on_host, PER_GPU, skip_rows=True)
    return f"WITH {ON_HOST}, sample AS (\n{levels}\n)\n" + with_gaps(("value",), "metric")


# --- by status -------------------------------------------------------------------------------------------------------


def temperatures() -> str:
    """WITH: `sample` has highest, sum and number of temperatures, and samples, of each bucket of the GPUs chosen."""
    x = "gpu_temp"
    return sample(
        lambda level: (
            f"{level.highest(x)} AS high, {level.total(x)} AS total, {level.count(x)} AS n, {level.samples} AS samples"
        )
    )


def tagged(name: str = "sample") -> str:
    """WITH: `name` has temperature and power of the GPUs chosen, and what the operator said then (tag, memo)."""
    return f"WITH {ON_HOST}, {name} AS (\n{read(_tagged, on_host, USAGE)}\n)\n"


def _tagged(level: Level) -> str:
    x = "gpu_temp"
    return (
        f"{level.begin} AS time, {level.end} AS until, gpu.name, "
        f"coalesce({level.said('status_tag')}, '{style.UNTAGGED}') AS tag, {level.said('status_memo')} AS memo, "
        f"{level.average(x)} AS value, {level.lowest(x)} AS low, "
        f"{level.highest(x)} AS high, {level.total(x)} AS total, {level.count(x)} AS n, {level.samples} AS samples, "
        f"{level.total('power_usage')} AS watts, {level.count('power_usage')} AS watts_n, INTERVAL '{level.gap}' AS gap"
    )


# --- counters --------------------------------------------------------------------------------------------------------


def grown(column: str) -> str:
    """WITH: `sample` has `metric` and `value`, by how much a counter of each GPU grew from its first value within the
    range to its last, over silence too; NULL where it restarted unseen (ADR 3)."""
    counted = (
        f"m.bucket AS time, gpu.name AS metric, m.gpu_id, gpu.visit, m.first_{column} AS first, "
        f"m.last_{column} AS last, m.resets_{column} AS resets"
    )
    return f"""WITH {ON_HOST}, part AS (
{read(lambda _: counted, lambda level: f"{on_host(level)} AND m.last_{column} IS NOT NULL", PER_GPU[1:])}
), step AS (
SELECT *, counter_increase(first, last, resets, lag(last) OVER (PARTITION BY gpu_id, visit ORDER BY time)) AS grew
FROM part
), sample AS (
SELECT max(time) AS time, metric, CASE WHEN count(grew) = count(*) THEN sum(grew)::float8 END AS value
FROM step GROUP BY gpu_id, metric
)
"""
