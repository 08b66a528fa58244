"""Lowest, mean and highest of every metric of one GPU within the time range: of samples, not of the buckets drawn."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from grafana import panels, style
from grafana.panels import AnyPanel
from grafana.queries import rows
from grafana.resolution import Level, read
from grafana.selection import CARD, of_card
from services.contract.catalogue import SAMPLED, Kind, Metric, Unit

_MEASURED: Final = tuple(
    m for m in SAMPLED if m.kind is Kind.GAUGE and m.unit not in (Unit.CODE, Unit.FLAG, Unit.BITMASK)
)
"""A mean of codes or flags is nothing."""
_READABLE: Final = MappingProxyType({Unit.RATIO: (0.01, "%"), Unit.BYTES_PER_SECOND: (1e6, "MB/s")})
"""Divisor, and the unit then: a column of a table has one format for all its rows."""


def extremes() -> AnyPanel:
    def select(level: Level) -> str:
        return ", ".join(
            f"{level.lowest(x)} AS low{i}, {level.highest(x)} AS high{i}, {level.total(x)} AS sum{i}, "
            f"{level.count(x)} AS n{i}"
            for i, x in enumerate(m.column for m in _MEASURED)
        )

    every = ", ".join(
        f"min(low{i}) AS low{i}, max(high{i}) AS high{i}, sum(sum{i}) / nullif(sum(n{i}), 0)::float8 AS mean{i}"
        for i, _ in enumerate(_MEASURED)
    )
    sql = f"""WITH {CARD}, sample AS (
{read(select, of_card)}
), whole AS (SELECT {every} FROM sample)
SELECT of.metric, of.lowest, of.mean, of.highest, of.unit
FROM whole, LATERAL (VALUES {", ".join(_row(i, m) for i, m in enumerate(_MEASURED))}) of (metric, lowest, mean, highest,
    unit) WHERE of.mean IS NOT NULL"""
    panel = panels.table(
        "Extremes",
        "Lowest, mean and highest of all samples within the time range, also where averages are drawn; over six hours "
        "of whole minutes, over two days of whole hours, over sixty days of whole days.",
        rows(sql),
        style.COUNT,
    )
    return panels.override(panel.span(24).height(8), {"/^(lowest|mean|highest)$/": {"decimals": 1}})


def _row(i: int, metric: Metric) -> str:
    divisor, unit = _READABLE.get(metric.unit, (1, str(metric.unit)))
    values = ", ".join(f"({x}{i} / {float(divisor)})::float8" for x in ("low", "mean", "high"))
    return f"('{metric.column}', {values}, '{unit}')"
