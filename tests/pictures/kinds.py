"""A panel of each kind, drawn into its axes."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from services.plot import style
from tests.pictures.fields import PALETTE, Field, config_of, hexadecimal, number
from tests.pictures.tables import table

DAY: Final = 86400.0
BAR: Final = 240.0
"""Seconds: widest bar of a time series."""
LEGEND_ROWS: Final = 3
"""Of series named below a graph; Grafana scrolls through more."""
Range = tuple[float, float]
"""Of the time axis: seconds since 1970."""
Marks = Sequence[tuple[float, str]]
"""Annotations: seconds, colour."""


def colours(fields: Sequence[Field]) -> list[str]:
    """The fixed ones; the others have the palette's in turn."""
    return [field.fixed_colour or PALETTE[n % len(PALETTE)] for n, field in enumerate(fields)]


def stat(axes: Axes, panel: Mapping[str, Any], fields: list[Field], _range: Range, _marks: Marks) -> None:
    axes.axis("off")
    every = panel["options"]["reduceOptions"].get("fields") == "/.*/"
    shown = [f for f in fields if every or not isinstance(f.last, (str, dt.datetime))]
    if not shown:
        _nothing(axes, panel)
    width = 1 / max(1, len(shown))
    for n, field in enumerate(shown):
        text = field.text(field.last)
        colour = field.colour(field.last) or style.INK
        room = axes.get_window_extent().width * width / axes.figure.dpi * 72
        size = min(24.0, 1.5 * room / max(4, len(text)))
        axes.text((n + 0.5) * width, 0.42, text, ha="center", va="center", fontsize=size, color=colour, weight="bold")
        if len(shown) > 1:
            axes.text((n + 0.5) * width, 0.86, field.name, ha="center", va="center", fontsize=8, color=style.FAINT)


def timeseries(axes: Axes, panel: Mapping[str, Any], fields: list[Field], time: Range, marks: Marks) -> None:
    series = [f for f in fields if f.name != "time" and f.times]
    if not series:
        _nothing(axes, panel)
        return
    custom = panel["fieldConfig"]["defaults"].get("custom", {})
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    if stacked and custom.get("drawStyle") == "bars":
        _stacked_bars(axes, series)
    elif stacked:
        _stacked_areas(axes, series)
    else:
        for field, colour in zip(series, colours(series), strict=True):
            _line(axes, field, colour, points=custom.get("drawStyle") == "points")
    _threshold_lines(axes, panel)
    _time_axis(axes, time)
    for moment, colour in marks:
        axes.axvline(moment / DAY, color=colour, linewidth=0.8, linestyle=(0, (3, 3)), alpha=0.75)
    unit = panel["fieldConfig"]["defaults"].get("unit", "none")
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _position: number(value, unit)))
    _legend(axes, series, str(unit), sums=custom.get("drawStyle") == "bars")


def _line(axes: Axes, field: Field, colour: str, *, points: bool) -> None:
    times = np.array(field.times) / DAY
    values = np.array([np.nan if v is None else v for v in field.values], dtype=float)
    dashed = field.config.get("custom.lineStyle", {}).get("fill") == "dash"
    if points:
        axes.plot(times, values, ".", color=colour, markersize=2.5)
    else:
        axes.plot(times, values, color=colour, linewidth=1.1, linestyle=(0, (1.5, 2)) if dashed else "-")


def _stacked_bars(axes: Axes, series: Sequence[Field]) -> None:
    below: dict[float, float] = defaultdict(float)
    moments = sorted({t for f in series for t in f.times or ()})
    width = min([*np.diff(moments), (moments[-1] - moments[0]) / 30 or 60.0, BAR]) / DAY
    for field, colour in zip(series, colours(series), strict=True):
        for moment, value in zip(field.times or (), field.values, strict=True):
            if value:
                axes.bar(moment / DAY, value, width, bottom=below[moment], color=colour, linewidth=0)
                below[moment] += value


def _stacked_areas(axes: Axes, series: Sequence[Field]) -> None:
    moments = np.array(sorted({t for f in series for t in f.times or ()}))
    lower = np.zeros(len(moments))
    for field, colour in zip(series, colours(series), strict=True):
        at = dict(zip(field.times or (), field.values, strict=True))
        upper = lower + np.array([at.get(float(t)) or 0.0 for t in moments])
        axes.fill_between(moments / DAY, lower, upper, color=colour, alpha=0.3, linewidth=0)
        axes.plot(moments / DAY, upper, color=colour, linewidth=1.1)
        lower = upper
    axes.set_ylim(bottom=0)


def _threshold_lines(axes: Axes, panel: Mapping[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    if defaults.get("custom", {}).get("thresholdsStyle", {}).get("mode") != "dashed":
        return
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is not None:
            axes.axhline(step["value"], color=hexadecimal(step["color"]), linewidth=1, linestyle=(0, (5, 3)))


def _time_axis(axes: Axes, time: Range) -> None:
    axes.set_xlim(time[0] / DAY, time[1] / DAY)
    # matplotlib.dates has no types
    locator = AutoDateLocator(minticks=3, maxticks=9, tz=dt.UTC)  # type: ignore[no-untyped-call]
    formatter = ConciseDateFormatter(locator, tz=dt.UTC, show_offset=False)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(formatter)
    axes.grid(visible=True, color=style.GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=7.5)
    for side in axes.spines.values():
        side.set_visible(False)


def legend_rows(fields: Sequence[Field], width: float) -> int:
    """Below a graph `width` inches wide."""
    series = [f for f in fields if f.name != "time" and f.times]
    return min(LEGEND_ROWS, -(-len(series) // _columns(width)))


def _columns(width: float) -> int:
    return 1 if width < 6 else 2 if width < 10 else 3


def _legend(axes: Axes, series: Sequence[Field], unit: str, *, sums: bool) -> None:
    """Names with what Grafana's table below the graph has."""
    words = [f"{field.name}   {_figures(field, unit, sums=sums)}" for field in series]
    columns = _columns(axes.get_window_extent().width / axes.figure.dpi)
    most = LEGEND_ROWS * columns
    if len(words) > most:
        words[most - 1] += f"   (and {len(words) - most} more)"
    handles = [Line2D([], [], color=colour, linewidth=2.5) for colour in colours(series)[:most]]
    below = 0.24 / (axes.get_window_extent().height / axes.figure.dpi)
    axes.legend(
        handles, words[:most], loc="upper left", bbox_to_anchor=(-0.01, -below), ncols=columns, frameon=False,
        fontsize=7, handlelength=1.2, labelspacing=0.35, borderaxespad=0,
    )  # fmt: skip


def _figures(field: Field, unit: str, *, sums: bool) -> str:
    values = np.array([v for v in field.values if v is not None], dtype=float)
    shown = {"sum": values.sum()} if sums else {"min": values.min(), "mean": values.mean(), "max": values.max()}
    return "  ".join(f"{name} {number(float(value), unit)}" for name, value in shown.items())


def state_timeline(axes: Axes, panel: Mapping[str, Any], fields: list[Field], time: Range, _marks: Marks) -> None:
    rows = [f for f in fields if f.name != "time" and f.times]
    if not rows:
        _nothing(axes, panel)
        return
    texts: dict[str, str] = {}
    for number_of_row, field in enumerate(rows):
        for value, start, end in _stretches(field, time[1]):
            colour = field.colour(value) or PALETTE[hash(str(value)) % len(PALETTE)]
            texts[field.text(value)] = colour
            axes.broken_barh(
                [(start / DAY, (end - start) / DAY)], (-number_of_row - 0.42, 0.84), color=colour, alpha=0.8
            )
            if end - start > (time[1] - time[0]) * 0.007 * len(field.text(value)) + 1:
                axes.text((start + end) / 2 / DAY, -number_of_row, field.text(value), ha="center", va="center",
                          fontsize=7.5, color="white", clip_on=True)  # fmt: skip
    _time_axis(axes, time)
    axes.set_yticks([-n for n in range(len(rows))], [f.name for f in rows], fontsize=7.5)
    axes.set_ylim(-len(rows) + 0.45, 0.55)
    handles = [Line2D([], [], color=c, linewidth=5) for c in texts.values()]
    axes.legend(handles, list(texts), loc="upper left", bbox_to_anchor=(-0.005, -0.14), ncols=6, frameon=False,
                fontsize=7.5, handlelength=1, borderaxespad=0)  # fmt: skip


def _stretches(field: Field, until: float) -> list[tuple[Any, float, float]]:
    """Equal values in a row are one; a NULL ends the last."""
    assert field.times is not None
    pairs = list(zip(field.times, field.values, strict=True))
    starts = [(value, next(iter(group))[0]) for value, group in groupby(pairs, key=lambda pair: pair[1])]
    ends = [*[start for _, start in starts[1:]], until]
    return [(value, start, end) for (value, start), end in zip(starts, ends, strict=True) if value is not None]


def barchart(axes: Axes, panel: Mapping[str, Any], fields: list[Field], _range: Range, _marks: Marks) -> None:
    x = next((f for f in fields if f.name == panel["options"]["xField"]), None)
    bars = [f for f in fields if f is not x]
    if x is None or not x.values:
        _nothing(axes, panel)
        return
    width = 0.8 / len(bars)
    for n, (field, colour) in enumerate(zip(bars, colours(bars), strict=True)):
        at = [i - 0.4 + (n + 0.5) * width for i in range(len(x.values))]
        drawn = axes.bar(at, [v or 0 for v in field.values], width * 0.92, color=colour, label=field.name)
        axes.bar_label(drawn, [field.text(v) for v in field.values], fontsize=7, padding=1)
    axes.set_xticks(range(len(x.values)), [str(v) for v in x.values], fontsize=8)
    axes.grid(visible=True, axis="y", color=style.GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=7.5)
    axes.margins(y=0.12)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.1), ncols=3, frameon=False, fontsize=7.5, handlelength=1)


def piechart(axes: Axes, panel: Mapping[str, Any], fields: list[Field], _range: Range, _marks: Marks) -> None:
    names = next((f for f in fields if f.values and isinstance(f.values[0], str)), None)
    numbers = next((f for f in fields if f is not names), None)
    if names is None or numbers is None:
        _nothing(axes, panel)
        return
    slices = [Field(str(name), [], config_of(panel, str(name))) for name in names.values]
    shades = colours(slices)
    axes.pie(numbers.values, colors=shades, startangle=90, counterclock=False, radius=1.1, center=(-0.9, 0),
             wedgeprops={"width": 0.45, "edgecolor": "white"})  # fmt: skip
    axes.set_xlim(-2.2, 2.6)
    total = sum(numbers.values)
    words = [f"{s.name}   {numbers.text(v)}   {v / total:.0%}" for s, v in zip(slices, numbers.values, strict=True)]
    handles = [Line2D([], [], color=c, linewidth=6) for c in shades]
    axes.legend(handles, words, loc="center right", frameon=False, fontsize=8.5, handlelength=0.8)


def draw_table(axes: Axes, panel: Mapping[str, Any], fields: list[Field], _range: Range, _marks: Marks) -> None:
    if not fields or not fields[0].values:
        _nothing(axes, panel)
        return
    table(axes, fields)


def _nothing(axes: Axes, panel: Mapping[str, Any]) -> None:
    axes.axis("off")
    words = panel["fieldConfig"]["defaults"].get("noValue") or "No data"
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color=style.FAINT, fontsize=10)


Draw = Callable[[Axes, Mapping[str, Any], list[Field], Range, Marks], None]
KINDS: Final[dict[str, Draw]] = {
    "stat": stat,
    "timeseries": timeseries,
    "state-timeline": state_timeline,
    "barchart": barchart,
    "piechart": piechart,
    "table": draw_table,
}
"""Of panels that can be drawn; another is a KeyError."""
