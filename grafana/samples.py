"""What the panels of one host are computed from: the samples of its GPUs, at the level for the range shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from grafana import style
from grafana.gaps import BLANK, gapped, with_gaps
from grafana.resolution import FROM, PER_GPU, TO, USAGE, Level, read
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
    """A line for each GPU. Where the range is read from buckets it is the mean of each, and its name says so: the
    highest of a legend is then not taken for a peak."""

    def select(level: Level) -> str:
        value = f"{level.average(column)} AS value, INTERVAL '{level.gap}' AS gap"
        return f"m.{level.time} AS time, gpu.name{_average(level)} AS metric, {value}"

    return sample(select) + with_gaps(("value",), "metric")


def average_and_peak(column: str) -> str:
    """The same, and of buckets the highest as a line beside it: "GPU 0 average", "GPU 0 peak"; of rows only "GPU 0".

    One reading for both. Grafana sorts the series of an answer by name.
    """

    def select(level: Level) -> str:
        peak = "NULL" if level.raw else "gpu.name || ' peak'"
        return (
            f"m.{level.time} AS time, gpu.name{_average(level)} AS metric, {peak} AS peaks, "
            f"{level.average(column)} AS value, {level.highest(column)} AS high, INTERVAL '{level.gap}' AS gap"
        )

    drawn = gapped(("value", "high"), "metric, peaks")
    return f"""{sample(select).rstrip()}, drawn AS (
{drawn}
)
SELECT time, metric, value FROM drawn
UNION ALL
SELECT time, peaks, high FROM drawn WHERE peaks IS NOT NULL
ORDER BY 1"""


def _average(level: Level) -> str:
    return "" if level.raw else " || ' average'"


# --- by status -------------------------------------------------------------------------------------------------------

LAST_WORD: Final = (
    " Over six hours exact to the minute, which counts under the status it ended with; over two days a status that"
    " comes back within an hour is one with its first time in it; over a year to the day."
)
"""What the descriptions of panels by status say of long ranges."""


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
        f"{level.begin} AS time, {level.end} AS until, INTERVAL '{_length(level)}' AS length, gpu.name, "
        f"coalesce({level.said('status_tag')}, '{style.UNTAGGED}') AS tag, {level.said('status_memo')} AS memo, "
        f"{level.average(x)} AS value, {_at_begin(level, x)} AS at_begin, {level.lowest(x)} AS low, "
        f"{level.highest(x)} AS high, {level.total(x)} AS total, {level.count(x)} AS n, {level.samples} AS samples, "
        f"{level.total('power_usage')} AS watts, {level.count('power_usage')} AS watts_n, INTERVAL '{level.gap}' AS gap"
    )


def _length(level: Level) -> str:
    """Of the sample, minute or day that a row ends with."""
    return "0" if level.raw else "1 minute" if level.by_usage else f"1 {level.step}"


def _at_begin(level: Level, column: str) -> str:
    """What it was when the row began, to the minute. Of an hour or a day nobody knows: its average is of later."""
    return level.average(column) if level.step in ("", "minute") else "NULL::float8"


_IS_WHOLE: Final = f"(min(number) > 1 OR min(time) >= {FROM} + INTERVAL '1 minute')"
"""Whether it began within the range. A run that goes on at the begin of the range has a sample in its first minute."""


def runs() -> str:
    """WITH: `run` has what was measured while a GPU's status and memo stayed the same."""
    # Islands: while they stay, a row's number among all and among those of its status and memo go up together.
    numbered = "row_number() OVER (PARTITION BY name{} ORDER BY time)"
    return f"""{tagged().rstrip()}, island AS (
SELECT *, {numbered.format("")} AS number, {numbered.format("")} - {numbered.format(", tag, memo")} AS island
FROM sample
), run AS (
SELECT tag, memo, name, min(time) AS begin, least(max(until + length), {TO}) AS until,
    {_IS_WHOLE} AS whole, first(at_begin, time) FILTER (WHERE at_begin IS NOT NULL) AS at_begin, max(high) AS peak,
    {MEAN} AS mean, {MEAN_WATTS} AS watts, sum(samples)::bigint AS samples
FROM island WHERE memo IS NOT NULL GROUP BY tag, memo, name, island
)
"""


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
