"""The picture's artists: lines, bands, gaps, shades, limits, lanes; labels that fit and do not overlap."""

from __future__ import annotations

import datetime as dt
import io
import itertools
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.dates import num2date
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from services.plot import lanes, style
from services.plot.data import Gpu
from services.plot.draw import default_title, figure, foot
from tests.unit.plot.pictures import P40, POWER, START, T4, held, picture, run, series

UTC = dt.UTC
NAN = float("nan")


def drawn(of: Figure) -> list[Axes]:
    return of.axes


def words(axes: Axes) -> list[str]:
    return [t.get_text() for t in axes.texts if t.get_text()]


def lines(axes: Axes) -> list[list[float]]:
    """Data lines, without the limits that reach from edge to edge."""
    return [list(line.get_ydata()) for line in axes.lines if len(line.get_xdata()) != 2 or line.get_linestyle() == "-"]  # type: ignore[arg-type]  # arrays


def test_a_line_shows_the_values_at_their_times() -> None:
    (panel,) = drawn(figure(picture(series([40.0, 60.0, 80.0])), zone=UTC))
    (line,) = [each for each in panel.lines if each.get_label() == "0 Tesla P40"]
    assert list(np.asarray(line.get_ydata())) == [40.0, 60.0, 80.0]
    first = num2date(float(np.asarray(line.get_xdata())[0]))  # type: ignore[no-untyped-call]  # matplotlib.dates has no types
    assert abs(first.timestamp() - START) < 1e-3
    assert panel.get_ylabel() == "GPU temperature, °C"


def test_values_are_shown_in_the_unit_people_read() -> None:
    from services.plot.select import metric

    (panel,) = drawn(figure(picture(series([1024.0, 2048.0], metric=metric("memory"))), zone=UTC))
    assert lines(panel)[0] == [1.0, 2.0]
    assert panel.get_ylabel() == "Memory used, GiB"


def test_a_gap_breaks_line_and_band() -> None:
    times = START + np.array([0.0, 10, 20, 200, 210, 220])
    values = np.array([50.0, 51, 52, 53, 54, 55])
    line = series(list(values), times=times, low=values - 1, high=values + 1)
    (panel,) = drawn(figure(picture(line, bucket=10.0), zone=UTC))
    assert np.isnan(lines(panel)[0]).sum() == 1
    (band,) = panel.collections
    assert len(band.get_paths()) == 2


def test_a_point_alone_is_seen() -> None:
    (panel,) = drawn(figure(picture(series([NAN, 50.0, NAN, 51.0, 52.0])), zone=UTC))
    dots = [line for line in panel.lines if line.get_marker() == "."]
    assert [list(np.asarray(dot.get_ydata())) for dot in dots] == [[50.0]]


def test_metrics_are_panels_on_one_time_axis() -> None:
    of = figure(picture(series([40.0, 50.0]), series([100.0, 200.0], metric=POWER)), zone=UTC)
    temp, power = drawn(of)
    assert temp.get_xlim() == power.get_xlim()
    assert temp.get_position().y0 > power.get_position().y1
    assert (temp.get_xlabel(), power.get_xlabel()) == ("", "local time (UTC+00:00)")
    assert power.get_ylabel() == "Power draw, W"


def test_several_gpus_have_colours_of_their_own_and_a_legend() -> None:
    of = figure(picture(series([40.0, 41.0]), series([50.0, 51.0], gpu=T4)), zone=UTC)
    (panel,) = drawn(of)
    colours = {line.get_label(): line.get_color() for line in panel.lines}
    assert colours["0 Tesla P40"] != colours["1 Tesla T4"]
    assert [t.get_text() for t in of.legends[0].get_texts()] == ["0 Tesla P40", "1 Tesla T4"]
    assert figure(picture(), zone=UTC).legends == []


def test_with_several_hosts_the_legend_names_them() -> None:
    other = replace(T4, hostname="attic-02")
    of = figure(picture(series([40.0, 41.0]), series([50.0, 51.0], gpu=other)), zone=UTC)
    assert [t.get_text() for t in of.legends[0].get_texts()] == ["attic-01 · 0 Tesla P40", "attic-02 · 1 Tesla T4"]


def test_sixteen_gpus_can_be_told_apart() -> None:
    looks = [style.line(n) for n in range(16)]
    assert len(set(looks)) == 16


@pytest.mark.parametrize(
    ("top", "said"),
    [
        (45.0, []),
        (62.0, ["warm 75 °C"]),
        (72.0, ["warm 75 °C", "hot 85 °C"]),
        (80.0, ["warm 75 °C", "hot 85 °C", "slowdown 92 °C"]),
    ],
)
def test_thresholds_are_drawn_where_they_are_near(top: float, said: list[str]) -> None:
    (panel,) = drawn(figure(picture(series([30.0, top])), zone=UTC))
    assert words(panel) == said
    assert panel.get_ylim()[1] >= max([top, *(float(w.split()[-2]) for w in said)])


@pytest.mark.parametrize("top", [30, 59, 60, 61, 75, 76, 77, 85, 90, 92, 93, 100])
def test_every_dashed_line_is_in_the_panel_and_named_beside_it(top: int) -> None:
    of = figure(picture(series([float(top - 1), float(top)])), zone=UTC)
    (panel,) = drawn(of)
    of.draw_without_rendering()
    dashed = [float(np.asarray(line.get_ydata())[0]) for line in panel.lines if line.get_linestyle() == "--"]
    named = [t for t in panel.texts if t.get_text()]
    assert [float(t.get_text().split()[-2]) for t in named] == sorted(dashed)
    for text, value in zip(named, sorted(dashed), strict=True):
        assert panel.get_ylim()[0] < value < panel.get_ylim()[1]
        extent = text.get_window_extent()
        assert 0 < extent.x0 < extent.x1 < of.bbox.x1, "not cut at the picture's edge"
        assert abs((extent.y0 + extent.y1) / 2 - panel.transData.transform((0, value))[1]) < 10, "beside its line"


def test_an_unknown_limit_is_not_drawn() -> None:
    bare = Gpu(1, "GPU-1", "attic-01", 0, "Tesla P40")
    (panel,) = drawn(figure(picture(series([70.0, 81.0], gpu=bare)), zone=UTC))
    assert words(panel) == ["warm 75 °C", "hot 85 °C"]
    (panel,) = drawn(figure(picture(series([80.0, 81.0], gpu=bare, metric=POWER)), zone=UTC))
    assert words(panel) == []


def test_runs_are_shaded_and_named_above() -> None:
    runs = (run(0, 300, "idle", "baseline"), run(300, 600), run(600, 900, None, None))
    of = figure(picture(series([50.0] * 100), runs=runs), zone=UTC)
    lane, panel = drawn(of)
    assert words(lane) == ["idle", "baseline", "bench", "gpu-burn"]
    shades = [p for p in panel.patches if isinstance(p, Rectangle)]
    assert len(shades) == 3
    assert len({shade.get_facecolor() for shade in shades}) == 3
    assert lane.get_xlim() == panel.get_xlim()


def test_with_several_hosts_each_has_a_row_and_panels_are_not_shaded() -> None:
    other = replace(T4, hostname="attic-02")
    runs = (run(0, 100), run(0, 100, "prod", "x", host="attic-02"))
    of = figure(picture(series([40.0] * 11), series([50.0] * 11, gpu=other), runs=runs), zone=UTC)
    lane, panel = drawn(of)
    assert [t.get_text() for t in lane.get_yticklabels()] == ["attic-01", "attic-02"]
    assert not panel.patches


def _inside(axes: Axes) -> None:
    """Each run's words lie in its box."""
    boxes = [p.get_window_extent() for p in axes.patches]
    texts: list[Text] = [t for t in axes.texts if t.get_text()]
    for text in texts:
        extent = text.get_window_extent()
        assert any(b.x0 <= extent.x0 and extent.x1 <= b.x1 for b in boxes), text.get_text()


def test_labels_are_cut_to_their_runs() -> None:
    long = "a memo that says very much about what was done on this evening and why it took so long"
    runs = tuple(run(300 * i, 300 * (i + 1), f"tag-{i}", long) for i in range(6))
    runs += tuple(run(1800 + 20 * i, 1820 + 20 * i, "bench", long) for i in range(10))
    of = figure(picture(series([50.0] * 200), runs=runs), zone=UTC)
    lane = of.axes[0]
    of.draw_without_rendering()
    _inside(lane)
    assert any(t.endswith("…") for t in words(lane))
    assert not any(long == t for t in words(lane))


DOLLARS = "costs $5 to $10"
BROKEN = "50% $x$ and $\\frac{1$"
"""As mathematics: text that is changed, and text that cannot be read."""


@pytest.mark.parametrize("said", [DOLLARS, BROKEN, "$", "_^{}\\undefined $$", "50$ and 60$", "%(start)s {0}", "<svg>&"])
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_words_are_drawn_as_they_are(said: str, kind: str) -> None:
    there = [replace(gpu, hostname=f"{said}{i}", model=said) for i, gpu in enumerate((P40, T4))]
    runs = tuple(run(300 * i, 300 * (i + 1), f"{said}{i}", said, gpu.hostname) for i, gpu in enumerate(there))
    runs += tuple(run(600 + 20 * i, 620 + 20 * i, said, said, there[0].hostname) for i in range(10))
    of = figure(
        picture(*(series([50.0] * 200, gpu=gpu) for gpu in there), runs=runs,
                throttled=tuple(held(0, 100, gpu=gpu) for gpu in there)),
        said, UTC,
    )  # fmt: skip
    of.savefig(io.BytesIO(), format=kind)
    texts = [text for text in of.findobj(Text) if isinstance(text, Text)]
    assert not any(text.get_parse_math() for text in texts)
    assert of.texts[0].get_text() == said
    assert {f"{said}{i} · {i} {said}" for i in (0, 1)} <= {text.get_text() for text in texts}


def test_dollars_are_in_the_file() -> None:
    of = figure(picture(series([50.0] * 200), runs=(run(0, 2000, "bench", DOLLARS),)), zone=UTC)
    file = io.BytesIO()
    of.savefig(file, format="svg")
    assert DOLLARS.encode() in file.getvalue()


def test_to_cut_a_very_long_memo_few_measurements_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = 0
    measure = Text.get_window_extent

    def counted(self: Text, *args: Any, **more: Any) -> Any:
        nonlocal measured
        measured += 1
        return measure(self, *args, **more)

    of = picture(series([50.0] * 200), runs=tuple(run(200 * i, 200 * i + 200, "bench", "x" * 1024) for i in range(10)))
    monkeypatch.setattr(lanes, "LONGEST", 200)
    axes = figure(of, zone=UTC).axes[0]
    assert all(5 < len(memo) <= 201 for memo in words(axes)[1::2])
    axes = figure(of, zone=UTC).axes[0]
    texts = [t for t in axes.texts if t.get_gid() == "run"]
    texts[1].set_text("x" * 200)
    monkeypatch.setattr(Text, "get_window_extent", counted)
    lanes.fit_labels(axes)
    assert measured <= 2 * len(texts) + 10


@pytest.mark.parametrize("letters", [1, 4, 5, 6, 7, 40, 200])
@pytest.mark.parametrize("length", [10, 40, 100, 400, 2000])
def test_as_many_letters_are_shown_as_fit(letters: int, length: float) -> None:
    of = figure(picture(series([50.0] * 200), runs=(run(0, length, None, "m" * letters),)), zone=UTC)
    (box,) = (p.get_window_extent() for p in of.axes[0].patches)
    _, memo = (t for t in of.axes[0].texts if t.get_gid() == "run")
    shown = memo.get_text()
    if shown == "m" * letters:
        return
    assert shown == "" or (shown.endswith("…") and len(shown) > 5)
    assert memo.get_window_extent().width <= box.width
    memo.set_text("m" * max(len(shown), 5) + "…")
    assert memo.get_window_extent().width > box.width - 6 - 1, "one more has no room"


def test_a_tag_without_room_is_explained_in_a_legend() -> None:
    runs = tuple(run(20 * i, 20 * i + 20, ("idle", "bench", "prod")[i % 3], None) for i in range(100))
    (legend,) = figure(picture(series([50.0] * 200), runs=runs), zone=UTC).legends
    assert [t.get_text() for t in legend.get_texts()] == ["idle", "bench", "prod"]


def test_a_legend_explains_any_tag_in_few_letters() -> None:
    runs = tuple(run(20 * i, 20 * i + 20, ("_hidden", "x" * 1024)[i % 2], None) for i in range(100))
    (legend,) = figure(picture(series([50.0] * 200), runs=runs), zone=UTC).legends
    assert [t.get_text() for t in legend.get_texts()] == ["_hidden", "x" * 39 + "…"]


def test_a_long_memo_alone_is_shown_whole_where_there_is_room() -> None:
    of = figure(
        picture(series([50.0] * 200), runs=(run(0, 2000, "bench", "gpu-burn (max workload), fan=25%"),)), zone=UTC
    )
    assert words(of.axes[0]) == ["bench", "gpu-burn (max workload), fan=25%"]


def test_names_of_near_limits_do_not_overlap() -> None:
    gpus = [replace(P40, gpu_id=i, slowdown_temp=float(90 + i)) for i in range(4)]
    of = figure(picture(*(series([50.0, 90.0], gpu=gpu) for gpu in gpus)), zone=UTC)
    of.draw_without_rendering()
    extents = sorted((t.get_window_extent() for t in of.axes[0].texts if t.get_text()), key=lambda e: e.y0)
    assert len(extents) == 6
    for below, above in itertools.pairwise(extents):
        assert below.y1 <= above.y0 + 1


def test_throttling_has_a_row_a_gpu_red_for_heat_and_amber_for_power() -> None:
    of = figure(picture(series([80.0] * 100), throttled=(held(0, 100, 0x4), held(100, 200, 0x24))), zone=UTC)
    panel, lane = drawn(of)
    assert panel.get_position().y0 > lane.get_position().y0
    spans = {tuple(c.get_facecolor()[0][:3]) for c in lane.collections}  # type: ignore[index]  # an array of colours
    assert len(spans) == 2
    assert sorted(words(lane)) == ["by power cap", "throttled by heat"]
    assert [t.get_text() for t in lane.get_yticklabels()] == ["GPU 0"]


def test_a_throttled_second_in_a_week_is_still_seen() -> None:
    week = series([50.0] * 1000, step=604.8)
    of = figure(picture(week, throttled=(held(1000, 1001),)), zone=UTC)
    (collection,) = of.axes[-1].collections
    x = np.asarray(collection.get_paths()[0].vertices, dtype=float)[:, 0]
    assert (x.max() - x.min()) * 86_400 > 300


def test_many_throttled_gpus_share_a_row() -> None:
    gpus = [replace(P40, gpu_id=i, index=i) for i in range(5)]
    of = figure(
        picture(*(series([80.0, 81.0], gpu=g) for g in gpus), throttled=tuple(held(0, 5, gpu=g) for g in gpus)),
        zone=UTC,
    )
    assert [t.get_text() for t in of.axes[-1].get_yticklabels()] == ["any GPU"]


def test_the_foot_says_range_source_and_points_in_the_zone() -> None:
    tokyo = ZoneInfo("Asia/Tokyo")
    of = picture(series([50.0] * 100))
    assert foot(of, tokyo).startswith("2026-01-04 09:00 to 2026-01-04 09:16")
    assert "from gpu_metrics, every row" in foot(of, tokyo)
    of = replace(of, relation="gpu_metrics_1min", bucket=600.0, notes=("status: ...",))
    assert foot(of, tokyo).endswith("from gpu_metrics_1min, 10 min means, band: minimum to maximum  ·  status: ...")


def test_the_foot_of_a_short_range_says_seconds() -> None:
    assert foot(picture(series([50.0] * 4)), UTC).startswith("2026-01-04 00:00:00 to 2026-01-04 00:00:40  ·")


def test_the_axis_is_local_time_with_its_zone() -> None:
    of = figure(picture(series([50.0] * 360)), zone=ZoneInfo("Asia/Tokyo"))
    (panel,) = of.axes
    assert panel.get_xlabel() == "local time (JST, UTC+09:00)"
    assert "09:30" in [t.get_text() for t in panel.get_xticklabels()]


@pytest.mark.parametrize(
    ("seconds", "some"), [(20, "00:00:10"), (60, "00:00:30"), (240, "00:02:00"), (1500, "00:15"), (3600, "00:30")]
)
def test_the_ticks_of_a_short_range_are_times_of_day(seconds: int, some: str) -> None:
    (panel,) = figure(picture(series([50.0] * (seconds + 1), step=1.0)), zone=UTC).axes
    ticks = [t.get_text() for t in panel.get_xticklabels()]
    assert some in ticks
    assert len(set(ticks)) == len(ticks)
    assert all(len(tick.split(":")) >= 2 for tick in ticks if tick != "Jan 04"), ticks


def test_days_are_named_with_their_month() -> None:
    (panel,) = figure(picture(series([50.0] * 1000, step=604.8)), zone=UTC).axes
    assert "Jan 06" in [t.get_text() for t in panel.get_xticklabels()]


def test_the_axis_is_the_range_asked_for_but_not_mostly_emptiness() -> None:
    of = picture(series([50.0] * 360))
    half = replace(of, end=START + 7200)
    right = figure(half, zone=UTC).axes[0].get_xlim()[1] * 86_400
    assert right == pytest.approx(START + 7200, abs=60)
    sliver = replace(of, end=START + 86_400)
    right = figure(sliver, zone=UTC).axes[0].get_xlim()[1] * 86_400
    assert right == pytest.approx(START + 3600, abs=60)
    assert "data only 2026-01-04 00:00 to 2026-01-04 00:59" in foot(sliver, UTC)


def test_a_metric_without_values_says_so() -> None:
    of = figure(picture(series([50.0, 51.0]), series([NAN, NAN], metric=POWER)), zone=UTC)
    assert words(of.axes[1]) == ["no values"]


def test_titles() -> None:
    assert default_title(picture()) == "GPU temperature: attic-01, GPU 0 Tesla P40"
    both = picture(series([1.0, 2.0]), series([1.0, 2.0], gpu=T4), series([1.0, 2.0], metric=POWER))
    assert default_title(both) == "GPU temperature, power draw: attic-01"
    assert figure(picture(), "My title", UTC).texts[0].get_text() == "My title"
