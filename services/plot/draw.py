"""A picture's data -> a matplotlib Figure. No database, no files, no global state: a dashboard may draw with it too."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from services.contract.catalogue import Metric
from services.plot import lanes, style
from services.plot.data import Floats, Picture, Series, hosts, lonely, with_gaps
from services.plot.select import shown
from services.plot.zone import LocalZone

WIDTH: Final = 12.0
"""Inches; 110 dots each make 1,320 pixels, which a README shows whole."""
DPI: Final = 110
# Inches.
_FIRST_PANEL: Final = 3.1
_PANEL: Final = 1.75
_LANE: Final = 0.24
_STATUS: Final = 0.36
_TOP: Final = 0.42
_LEGEND_ROW: Final = 0.26
_BOTTOM: Final = 0.82
_LEFT: Final = 0.85
_RIGHT: Final = 1.15
_FILLS: Final = 0.25
"""Share of the range asked for that data must fill; else the axis ends with the data, and the foot says so."""
_SHORT: Final = 600.0
"""Seconds; of a range below it the foot says seconds."""
_LEGEND_COLUMNS: Final = 4
_GPU: Final = 100
"""Letters of a GPU and its host in a legend: a long domain must not hide which GPU it is."""
_TAG: Final = 40
"""Letters of a tag in a legend."""
_FEW: Final = 4
"""GPUs; the lines of more are thinner."""

RC: Final[dict[Any, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": style.INK,
    "axes.labelcolor": style.INK,
    "axes.edgecolor": "#bbbbbb",
    "xtick.color": style.FAINT,
    "ytick.color": style.FAINT,
    "svg.hashsalt": "gpumon",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a memo may say what something costs: $ is a dollar, not mathematics
}
"""Of every picture of ours; texts keep it from when they are made."""


def figure(picture: Picture, title: str | None = None, zone: dt.tzinfo | None = None) -> Figure:
    """Panels under each other on one time axis (in `zone`, by default the machine's).

    Above them what the hosts were doing, below them when GPUs were throttled.
    """
    zone = zone or LocalZone()
    with mpl.rc_context(RC):
        frame = _Frame(picture)
        for number, (axes, metric) in enumerate(zip(frame.panels, picture.metrics, strict=True)):
            panel(axes, picture, metric)
            if number == 0 and len(picture.gpus) > 1:
                _legend(frame, picture)
        if frame.status is not None:
            lanes.status(frame.status, picture)
        if frame.throttling is not None:
            lanes.throttling(frame.throttling, picture)
        _time_axis(frame, picture, zone)
        _words(frame, picture, title or default_title(picture), zone)
        frame.figure.draw_without_rendering()
        if frame.status is not None:
            lanes.fit_labels(frame.status)
            _explain_tags(frame, picture, frame.status)
    return frame.figure


class _Frame:
    """The figure and its axes, sized in inches so that more panels make it higher, not its panels lower."""

    def __init__(self, picture: Picture) -> None:
        status, held = lanes.status_rows(picture), lanes.throttled_rows(picture)
        self.legend_rows = -(-len(picture.gpus) // _LEGEND_COLUMNS) if len(picture.gpus) > 1 else 0
        top = _TOP + self.legend_rows * _LEGEND_ROW
        parts = [len(status) * _STATUS, *([_FIRST_PANEL] + [_PANEL] * (len(picture.metrics) - 1)), len(held) * _LANE]
        gaps = [0.06 if status else 0.0, *[0.16] * (len(picture.metrics) - 1), 0.1 if held else 0.0]
        height = top + sum(parts) + sum(gaps) + _BOTTOM
        self.figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
        self.height = height
        axes: list[Axes | None] = []
        y = height - top
        for size, gap in zip(parts, [*gaps, 0.0], strict=True):
            y -= size
            box = (_LEFT / WIDTH, y / height, (WIDTH - _LEFT - _RIGHT) / WIDTH, size / height)
            axes.append(self.figure.add_axes(box) if size else None)
            y -= gap
        self.status, self.throttling = axes[0], axes[-1]
        self.panels = [a for a in axes[1:-1] if a is not None]
        self.all = [a for a in axes if a is not None]


def panel(axes: Axes, picture: Picture, metric: Metric) -> None:
    """One metric of all GPUs: lines, minima to maxima as bands, runs shaded, limits dashed."""
    factor = shown(metric).factor
    series = [s for s in picture.series if s.metric is metric]
    lanes.shade(axes, picture)
    for one in series:
        number = [g.gpu_id for g in picture.gpus].index(one.gpu.gpu_id)
        width = 1.5 if len(picture.gpus) <= _FEW else 1.1
        _line(axes, with_gaps(one), number, factor, width)
    axes.set_ylabel(style.axis_label(metric))
    axes.yaxis.set_label_coords(-0.055, 0.5)  # panels' labels under each other, whatever their numbers' width
    axes.grid(visible=True, color=style.GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _limits(axes, picture, metric, series, factor)


def _line(axes: Axes, series: Series, number: int, factor: float, width: float) -> None:
    colour, dashes = style.line(number)
    times = _dates(series.times)
    values = series.values * factor
    label = series.gpu.name
    if series.low is not None and series.high is not None:
        axes.fill_between(times, series.low * factor, series.high * factor, color=colour, alpha=0.18, linewidth=0)
    axes.plot(times, values, color=colour, linestyle=dashes, linewidth=width, label=label, solid_joinstyle="round")
    alone = lonely(series.values)
    if alone.any():
        axes.plot(times[alone], values[alone], ".", color=colour, markersize=4)


def _limits(axes: Axes, picture: Picture, metric: Metric, series: list[Series], factor: float) -> None:
    """The dashed lines, named at the right edge, and room for them."""
    found = [s for s in (one.summary() for one in series) if s]
    if not found:
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", va="center", color=style.FAINT)
        axes.set_yticks([])
        return
    low, top = min(s[0] for s in found) * factor, max(s[2] for s in found) * factor
    bottom = 0.0 if low >= 0 and metric.column != "gpu_temp" else low
    # One below the data is not in the panel, and its name would stand alone under it.
    drawn = [each for each in style.references(metric, picture.gpus, top) if each[0] >= bottom]
    for value, _, colour in drawn:
        axes.axhline(value, color=colour, linewidth=1.0, linestyle=(0, (5, 3)), zorder=1.5)
    highest = max([top, *(value for value, _, _ in drawn)])
    room = (highest - bottom) * 0.06 or 1.0
    axes.set_ylim(bottom - (room if bottom else 0.0), highest + room)
    lanes.name_lines(axes, [(value, words, colour) for value, words, colour in drawn])


def _legend(frame: _Frame, picture: Picture) -> None:
    several = len(hosts(picture.gpus)) > 1
    handles = []
    for number, gpu in enumerate(picture.gpus):
        colour, dashes = style.line(number)
        name = f"{gpu.hostname} · {gpu.name}" if several else gpu.name
        handles.append(Line2D([], [], color=colour, linestyle=dashes, linewidth=2, label=lanes.cut(name, _GPU)))
    frame.figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(_LEFT / WIDTH - 0.006, 1 - 0.44 / frame.height),
        ncols=_LEGEND_COLUMNS, frameon=False, borderaxespad=0, handlelength=1.6, columnspacing=1.8,
    )  # fmt: skip


def _explain_tags(frame: _Frame, picture: Picture, status: Axes) -> None:
    """What the shades mean, where a tag nowhere had room to be written."""
    tags = lanes.tags(picture)
    written = {text.get_text() for text in status.texts}
    if written.issuperset(lanes.cut(tag, lanes.LONGEST) for tag in tags):
        return
    handles = [Patch(color=style.tag_colour(tag, tags)) for tag in tags]
    frame.figure.legend(
        handles, [lanes.cut(tag, _TAG) for tag in tags], loc="upper right",
        bbox_to_anchor=(1 - _RIGHT / WIDTH, 1 - 0.1 / frame.height),
        ncols=len(handles), frameon=False, borderaxespad=0, handlelength=1.2, columnspacing=1.4,
    )  # fmt: skip


def _time_axis(frame: _Frame, picture: Picture, zone: dt.tzinfo) -> None:
    left, right = _shown_range(picture)
    margin = (right - left) * 0.006
    # matplotlib.dates has no types
    locator = AutoDateLocator(minticks=6, maxticks=12, tz=zone)  # type: ignore[no-untyped-call]
    formatter = ConciseDateFormatter(locator, tz=zone, show_offset=False)  # type: ignore[no-untyped-call]
    formatter.formats[2] = formatter.zero_formats[3] = "%b %d"  # a day is nothing without its month
    formatter.formats[5] = formatter.zero_formats[5] = "%H:%M:%S"  # nor are seconds without their hour
    lowest = frame.all[-1]
    for axes in frame.all:
        axes.set_xlim(*_dates(np.array([left - margin, right + margin])))
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(formatter)
        axes.tick_params(axis="x", length=0 if axes is frame.status else 3, labelbottom=axes is lowest)
    lowest.set_xlabel(f"local time ({_zone_name(left, right, zone)})", fontsize=8.5, color=style.FAINT)


def _shown_range(picture: Picture) -> tuple[float, float]:
    first, last = picture.extent
    asked = picture.end - picture.start
    return (picture.start, picture.end) if last - first >= _FILLS * asked else (first, max(last, first + 1))


def _words(frame: _Frame, picture: Picture, title: str, zone: dt.tzinfo) -> None:
    figure, height = frame.figure, frame.height
    head = lanes.cut(title, lanes.LONGEST)
    figure.text(_LEFT / WIDTH, 1 - 0.2 / height, head, fontsize=13, fontweight="bold", va="center", ha="left")
    figure.text(_LEFT / WIDTH, 0.1 / height, foot(picture, zone), fontsize=8, color=style.FAINT, va="bottom", ha="left")


def default_title(picture: Picture) -> str:
    """`GPU temperature, power draw: attic-01, Tesla P40`."""
    first, *rest = [style.title(m) for m in picture.metrics]
    what = ", ".join([first, *(r[0].lower() + r[1:] if not r[:2].isupper() else r for r in rest)])
    where = hosts(picture.gpus)
    named = where[0] if len(where) == 1 else f"{len(where)} hosts"
    return f"{what}: {named}" + (f", GPU {picture.gpus[0].name}" if len(picture.gpus) == 1 else "")


def foot(picture: Picture, zone: dt.tzinfo) -> str:
    """Range, source and what a point is."""
    first, last = picture.extent
    point = f"{_length(picture.bucket)} means, band: minimum to maximum" if picture.bucket else "every row"
    form = "%Y-%m-%d %H:%M" if picture.end - picture.start >= _SHORT else "%Y-%m-%d %H:%M:%S"
    start, end, begun, done = (
        dt.datetime.fromtimestamp(t, zone).strftime(form) for t in (picture.start, picture.end, first, last)
    )
    parts = [f"{start} to {end}", f"from {picture.relation}, {point}"]
    if _shown_range(picture) != (picture.start, picture.end):
        parts.append(f"data only {begun} to {done}")
    return "  ·  ".join([*parts, *picture.notes])


def _length(seconds: float) -> str:
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} s"


def _zone_name(left: float, right: float, zone: dt.tzinfo) -> str:
    """`JST, UTC+09:00`; both where summer time begins or ends in the range."""
    moments = [dt.datetime.fromtimestamp(seconds, zone) for seconds in (left, right)]
    return " / ".join(dict.fromkeys(_offset(m) for m in moments))


def _offset(moment: dt.datetime) -> str:
    offset = moment.strftime("%z")
    text = f"UTC{offset[:3]}:{offset[3:5]}"
    name = moment.tzname() or ""
    return text if not name or name.startswith(("UTC", "+", "-")) else f"{name}, {text}"


def _dates(seconds: Floats) -> Floats:
    """Matplotlib's days since 1970 (its `date.epoch`), UTC."""
    return seconds / lanes.DAY
