"""The picture's artists: lines, bands, gaps, shades, limits, lanes; labels that fit and do not overlap."""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import replace
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.dates import num2date
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from services.plot import style
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
        (62.0, ["75 °C"]),
        (72.0, ["75 °C", "85 °C"]),
        (80.0, ["75 °C", "85 °C", "slowdown 92 °C"]),
    ],
)
def test_thresholds_are_drawn_where_they_are_near(top: float, said: list[str]) -> None:
    (panel,) = drawn(figure(picture(series([30.0, top])), zone=UTC))
    assert words(panel) == said
    assert panel.get_ylim()[1] >= max([top, *(float(w.split()[-2]) for w in said)])


def test_an_unknown_limit_is_not_drawn() -> None:
    bare = Gpu(1, "GPU-1", "attic-01", 0, "Tesla P40")
    (panel,) = drawn(figure(picture(series([80.0, 81.0], gpu=bare)), zone=UTC))
    assert words(panel) == ["75 °C", "85 °C"]
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


def test_a_tag_without_room_is_explained_in_a_legend() -> None:
    runs = tuple(run(20 * i, 20 * i + 20, ("idle", "bench", "prod")[i % 3], None) for i in range(100))
    (legend,) = figure(picture(series([50.0] * 200), runs=runs), zone=UTC).legends
    assert [t.get_text() for t in legend.get_texts()] == ["idle", "bench", "prod"]


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


def test_the_axis_is_local_time_with_its_zone() -> None:
    of = figure(picture(series([50.0] * 360)), zone=ZoneInfo("Asia/Tokyo"))
    (panel,) = of.axes
    assert panel.get_xlabel() == "local time (JST, UTC+09:00)"
    assert "09:30" in [t.get_text() for t in panel.get_xticklabels()]


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
