"""The narrow rows above and below the panels: what hosts were doing, when GPUs were held back; shades and names."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from services.plot import style
from services.plot.data import Gpu, Picture, Throttled, hosts

DAY: Final = 86_400.0
"""Seconds; matplotlib counts time in days."""
MOST_ROWS: Final = 4
"""GPUs with a row of their own for throttling; of more, one row shows any of them."""
_THINNEST: Final = 1 / 1200
"""Share of the time axis that a throttled second takes at least: about a pixel, or it would not be seen."""
_LINE_POINTS: Final = 11.0
"""Height of a line of text, points."""
_NAME: Final = 15
"""Letters that the margin at the left has room for."""
_RUN: Final = "run"
"""Marks boxes and words of runs among an axes' artists."""
_PADDING: Final = 6.0
"""Pixels."""
LONGEST: Final = 200
"""Letters of a memo or tag that are looked at: more than the whole width has room for."""
_SHORTEST: Final = 5
"""Letters of a memo that still say something."""


def status_rows(picture: Picture) -> list[str]:
    """Hosts that said what they did."""
    return [host for host in hosts(picture.gpus) if any(r.hostname == host for r in picture.runs)]


def throttled_rows(picture: Picture) -> list[tuple[str, list[Throttled]]]:
    """Names of rows and what is in them; none without throttling."""
    if not picture.throttled:
        return []
    held = [g for g in picture.gpus if any(t.gpu.gpu_id == g.gpu_id for t in picture.throttled)]
    if len(held) > MOST_ROWS:
        return [("any GPU", list(picture.throttled))]
    return [(_short(g, picture), [t for t in picture.throttled if t.gpu.gpu_id == g.gpu_id]) for g in held]


def _short(gpu: Gpu, picture: Picture) -> str:
    number = gpu.name.split()[0]
    return f"GPU {number}" if len(hosts(picture.gpus)) == 1 else f"{gpu.hostname} {number}"


def status(axes: Axes, picture: Picture) -> None:
    """A row per host; each run a box with its tag and memo. `fit_labels` cuts them once sizes are known."""
    rows = status_rows(picture)
    known = tags(picture)
    for run in picture.runs:
        y = rows.index(run.hostname)
        axes.add_patch(
            Rectangle(
                (run.start / DAY, y + 0.04), (run.end - run.start) / DAY, 0.92, gid=_RUN,
                facecolor=style.tag_colour(run.tag, known), edgecolor="white", linewidth=1.0,
            )
        )  # fmt: skip
        middle = (run.start + run.end) / 2 / DAY
        for height, words, weight in ((y + 0.29, run.tag, "bold"), (y + 0.71, run.memo, "normal")):
            axes.text(
                middle, height, cut(words or "", LONGEST), ha="center", va="center", fontsize=7.6, fontweight=weight,
                clip_on=True, gid=_RUN,
            )  # fmt: skip
    axes.set_ylim(len(rows), 0)
    _bare(axes, [host if len(rows) > 1 else "status" for host in rows])


def fit_labels(axes: Axes) -> None:
    """Cuts the words of each run to its box, or leaves them out. Needs final sizes."""
    boxes = [p for p in axes.patches if p.get_gid() == _RUN]
    texts = [t for t in axes.texts if t.get_gid() == _RUN]
    view = axes.get_window_extent()
    for box, tag, memo in zip(boxes, texts[::2], texts[1::2], strict=True):
        whole = box.get_window_extent()
        left, right = max(whole.x0, view.x0), min(whole.x1, view.x1)
        room = max(right - left - _PADDING, 0.0)
        middle = float(axes.transData.inverted().transform(((left + right) / 2, 0))[0])
        for text in (tag, memo):
            text.set_x(middle)
            _shorten(text, room)
        lone = tag if not memo.get_text() else memo if not tag.get_text() else None
        if lone is not None:
            lone.set_y((tag.get_position()[1] + memo.get_position()[1]) / 2)


def _shorten(text: Text, room: float) -> None:
    """Whole, or as much of it as fits with an ellipsis, or nothing where that would say nothing."""
    whole = text.get_text()

    def fits(length: int) -> bool:
        text.set_text(whole if length == len(whole) else f"{whole[:length].rstrip(' (·,')}…")
        return bool(text.get_window_extent().width <= room)

    if fits(len(whole)):
        return
    # The most letters that fit, by halves: to measure a text takes milliseconds.
    fit = bisect_left(range(_SHORTEST, len(whole)), True, key=lambda length: not fits(length)) + _SHORTEST - 1
    if fit < _SHORTEST or not fits(fit):
        text.set_text("")


def throttling(axes: Axes, picture: Picture) -> None:
    """A row per GPU; red: by temperature, amber: by power."""
    rows = throttled_rows(picture)
    least = (picture.extent[1] - picture.extent[0]) * _THINNEST
    for y, (_, held) in enumerate(rows):
        for heat, colour in ((False, style.POWER), (True, style.HEAT)):  # heat on top
            spans = [(t.start / DAY, max(t.end - t.start, least) / DAY) for t in held if t.by_heat is heat]
            if spans:
                axes.broken_barh(spans, (y + 0.14, 0.72), facecolors=colour, linewidth=0)
        axes.axhline(y, color=style.GRID, linewidth=0.7)
    axes.set_ylim(len(rows), 0)
    _bare(axes, [name for name, _ in rows])
    _explain(axes, [t.by_heat for _, held in rows for t in held])


def _explain(axes: Axes, kinds: Sequence[bool]) -> None:
    """What the colours mean, at the right edge where the panels name their limits."""
    words = [("throttled by heat", style.HEAT)] if True in kinds else []
    words += [("by power cap" if words else "throttled: power", style.POWER)] if False in kinds else []
    name_lines(axes, [(axes.get_ylim()[0] * (i + 1) / (len(words) + 1), w, c) for i, (w, c) in enumerate(words)])


def shade(axes: Axes, picture: Picture) -> None:
    """Runs of the one host behind a panel; with several hosts the rows above alone tell them apart."""
    if len(hosts(picture.gpus)) > 1:
        return
    known = tags(picture)
    for run in picture.runs:
        colour = style.tag_colour(run.tag, known)
        axes.axvspan(run.start / DAY, run.end / DAY, color=colour, alpha=0.55, linewidth=0, zorder=0)


def cut(text: str, most: int) -> str:
    """One line, its end in an ellipsis where it is longer than `most` letters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def tags(picture: Picture) -> list[str]:
    """Distinct, in order of their first run."""
    return list(dict.fromkeys(r.tag for r in picture.runs if r.tag))


def name_lines(axes: Axes, lines: Sequence[tuple[float, str, str]]) -> None:
    """Words beside the right edge at the height of each line, moved apart where they would overlap."""
    figure = axes.figure
    height = axes.get_position().height * figure.get_figure(root=True).get_size_inches()[1] * 72
    low, high = axes.get_ylim()
    step = (high - low) * _LINE_POINTS / height
    at: float | None = None
    for value, words, colour in sorted(lines, key=lambda line: (line[0] - low) / (high - low)):
        at = value if at is None else (max if step > 0 else min)(value, at + step)
        axes.annotate(
            words, (1, at), xycoords=("axes fraction", "data"), xytext=(5, 0), textcoords="offset points",
            va="center", ha="left", fontsize=7.8, color=colour, annotation_clip=False,
        )  # fmt: skip


def _bare(axes: Axes, names: list[str]) -> None:
    """No frame; names at the left, cut to the margin."""
    axes.set_yticks([y + 0.5 for y in range(len(names))], [cut(name, _NAME) for name in names])
    axes.tick_params(axis="y", length=0, labelsize=7.8)
    for spine in axes.spines.values():
        spine.set_visible(False)
