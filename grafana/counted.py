"""Bars of counters: how much each grew in each bucket, from where the bucket begins, and none for what is unknown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from grafana.resolution import PER_GPU, Level, of_buckets, shown


def bars(values: Mapping[str, str], source: str, levels: tuple[Level, ...] = PER_GPU, *, grown: bool = False) -> str:
    """What follows the CTE `source` (time, and what `values` take): a row for each value that is known.

    `values`: name -> SQL. A column that is NULL throughout would get a bar's legend with the total 0.
    `grown`: without those that never grew; where none did, zeros called "none of:" and what is known.
    """
    each = ", ".join(f"('{name}', ({value})::float8)" for name, value in values.items())
    return f""", {"known" if grown else "value"} AS (
SELECT time, bar.metric, bar.value FROM {source}, LATERAL (VALUES {each}) bar (metric, value)
WHERE bar.value IS NOT NULL
){_GROWN if grown else ""}
SELECT time, metric, value FROM value
UNION ALL
{_widths(levels)}
ORDER BY 1, 2"""


_GROWN: Final = """, value AS (
SELECT time, metric, value FROM (SELECT *, max(value) OVER (PARTITION BY metric) AS most FROM known) k WHERE most > 0
UNION ALL
SELECT time, 'none of: ' || (SELECT string_agg(DISTINCT metric, '; ') FROM known), 0 FROM known
WHERE NOT EXISTS (SELECT FROM known WHERE value > 0) GROUP BY 1
)"""


def _widths(levels: tuple[Level, ...]) -> str:
    counted = of_buckets(levels)
    return "\nUNION ALL\n".join(width(f"INTERVAL '1 {x.step}'", shown(counted, i)) for i, x in enumerate(counted))


def width(step: str, condition: str = "true") -> str:
    """A row without a value one bucket before the first of `value` (time, metric, value): Grafana makes bars as wide as
    two neighbours are apart, and one that stands alone as wide as the panel."""
    return f"""SELECT min(time) - {step}, min(metric), NULL::float8 FROM value
    WHERE {condition} HAVING count(*) > 0"""
