"""Every metric of one GPU over time: lines with a band from lowest to highest, and bars of counters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Final

from grafana_foundation_sdk.builders import timeseries

from grafana import counted, panels, style
from grafana.gaps import with_gaps
from grafana.groups import Group, groups
from grafana.panels import AnyPanel, Overrides, fixed
from grafana.queries import Sql, series
from grafana.resolution import Level, increases, read
from grafana.selection import CARD, of_card
from services.contract.catalogue import Kind, Metric, Unit

BUCKETS: Final = (
    " Over six hours read from minutes, over two days from hours, over sixty days from days: then the line is the mean "
    'of each, with a band from lowest to highest; of the whole range "Extremes" has them. The mean in the legend is '
    "that of the points drawn."
)
FROM_ZERO: Final = frozenset({Unit.WATT, Unit.MEGAHERTZ, Unit.MEBIBYTE, Unit.BYTES_PER_SECOND, Unit.COUNT})
"""Units whose axis begins at zero: 398 to 400 W over the whole height would look like a storm."""


def metric_panels() -> list[AnyPanel]:
    return [_grown(group) if group.metrics[0].kind is Kind.COUNTER else _gauges(group) for group in groups()]


def _gauges(group: Group) -> AnyPanel:
    """Lines; where the range is read from buckets, a band from the lowest to the highest around the average."""
    banded = [m.column for m in group.metrics if _has_average(m)]

    def select(level: Level) -> str:
        values = [f"{_value(m, level)} AS {m.column}" for m in group.metrics]
        bands = [f'{_edge(level, x, which)} AS "{x} {which}"' for x in banded for which in ("min", "max")]
        return f"m.{level.time} AS time, {', '.join(values + bands)}, INTERVAL '{level.gap}' AS gap"

    names = (*(m.column for m in group.metrics), *(f"{x} {which}" for x in banded for which in ("min", "max")))
    sql = f"WITH {CARD}, sample AS (\n{read(select, of_card)}\n)\n{with_gaps(names)}"
    return panels.override(_drawn(group, series(sql)), _bands(banded))


def _drawn(group: Group, query: Sql) -> timeseries.Panel:
    of, unit = group.metrics[0].unit, style.unit(group.metrics[0].column)
    hot = style.TEMPERATURE if of is Unit.CELSIUS else None
    calcs = ("mean", "lastNotNull") if _has_average(group.metrics[0]) else ("lastNotNull",)
    panel = panels.lines(group.title, group.description + BUCKETS, unit, query, of=hot, calcs=calcs)
    if of in FROM_ZERO:
        panel.axis_soft_min(0)
    if of is Unit.MEGAHERTZ:
        panel.decimals(2)  # else 1.35 and 1.41 GHz are both "1.4 GHz"
    return panel.axis_label(group.axis) if group.axis else panel


def _has_average(metric: Metric) -> bool:
    return metric.unit not in (Unit.CODE, Unit.FLAG)


def _value(metric: Metric, level: Level) -> str:
    if _has_average(metric):
        return level.average(metric.column)
    return level.last(metric.column) if metric.unit is Unit.CODE else level.highest(metric.column)


def _edge(level: Level, column: str, which: str) -> str:
    if level.raw:
        return "NULL::float8"
    return f"{level.lowest(column) if which == 'min' else level.highest(column)}::float8"


def _bands(columns: Sequence[str]) -> Overrides:
    """Thin, not in the legend, in the colour of their line, filled from the highest down to the lowest."""
    quiet = {"custom.lineWidth": 0, "custom.hideFrom": {"legend": True, "tooltip": False, "viz": False}}
    colours = dict(zip(columns, cycle(style.LINE_COLOURS), strict=False))
    coloured = {f"/^{x}( min| max)?$/": fixed(colour) for x, colour in colours.items()}
    filled = {f"/^{x} max$/": {"custom.fillBelowTo": f"{x} min", "custom.fillOpacity": 15} for x in columns}
    return {"/ (min|max)$/": quiet, **coloured, **filled} if columns else {}


def _grown(group: Group) -> AnyPanel:
    """Bars: by how much counters grew in each bucket."""
    columns = [m.column for m in group.metrics]
    divisor, unit = style.grown(columns[0])
    values = {x: f"{x} / {divisor}" if divisor != 1 else x for x in columns}
    sql = f"""WITH {CARD}, sample AS (
{increases(columns, of_card)}
){counted.bars(values, "sample")}"""
    return panels.bars(
        group.title, group.description + " Up to two days read from minutes, then hours, then days.", unit, series(sql)
    )
