"""Thin builders over Grafana's foundation SDK: a kind of panel each, with what all panels of this project share.

What they share: title, description and unit are required; NULL and nothing read "No value"; lines are not drawn over
gaps; the data source is a variable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from grafana_foundation_sdk.builders import barchart, common, dashboard, piechart, prometheus, stat, statetimeline
from grafana_foundation_sdk.builders import table as table_builder
from grafana_foundation_sdk.builders import timeseries as timeseries_builder
from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import piechart as pie
from grafana_foundation_sdk.models import statetimeline as statetimeline_models

from grafana import style
from grafana.queries import POSTGRES, PROMETHEUS, Query, Sql
from grafana.style import Thresholds

Panel = TypeVar(
    "Panel",
    stat.Panel,
    timeseries_builder.Panel,
    table_builder.Panel,
    statetimeline.Panel,
    barchart.Panel,
    piechart.Panel,
)
AnyPanel = cog.Builder[models.Panel]
Properties = Mapping[str, object]
Overrides = Mapping[str, Properties]
"""Regular expression on a field's name -> property -> value."""


# --- what panels share -----------------------------------------------------------------------------------------------


def _common(panel: Panel, title: str, description: str, unit: str, queries: Query | Sequence[Query]) -> Panel:
    targets = [queries] if isinstance(queries, (Sql, prometheus.Dataquery)) else queries
    source = POSTGRES if isinstance(targets[0], Sql) else PROMETHEUS
    panel.title(title).description(description).unit(unit).datasource(source).no_value(style.NO_VALUE)
    if unit == style.COUNT:
        panel.decimals(0)
    if unit in style.WHOLE:
        panel.min(0).max(style.WHOLE[unit])
    for target in targets:
        panel.with_target(target)
    return panel


def thresholds(of: Thresholds) -> dashboard.ThresholdsConfig:
    steps = [models.Threshold(value=None, color=of.base)]
    steps += [models.Threshold(value=value, color=colour) for value, colour in of.steps]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def override(panel: Panel, overrides: Overrides) -> Panel:
    for regexp, properties in overrides.items():
        values = [models.DynamicConfigValue(id_val=name, value=value) for name, value in properties.items()]
        panel.override_by_regexp(regexp, values)
    return panel


def fixed(colour: str) -> Properties:
    return {"color": {"mode": "fixed", "fixedColor": colour}}


def steps(of: Thresholds) -> Properties:
    """Thresholds of one field, where others of its panel have others."""
    return {"thresholds": thresholds(of).build()}


def cell(of: Thresholds, unit: str) -> Properties:
    """A table's column, its cells coloured by thresholds."""
    background = options.TableColoredBackgroundCellOptions(mode=options.TableCellBackgroundDisplayMode.BASIC)
    return {"unit": unit, "custom.cellOptions": background, "mappings": [unknown("transparent")], **steps(of)}


def link(title: str, url: str) -> Properties:
    return {"links": [{"title": title, "url": url, "targetBlank": False}]}


SILENCE: Final = 300_000
"""ms; nulls between two values are a gap only when so long: the five minutes of `resolution`. Of several series in one
answer Grafana makes a table over time, in which a series has nulls wherever another has a sample and it has none: GPUs
read by two exporters would be drawn as points."""
SECONDS: Final = "time:YYYY-MM-DD HH:mm:ss"
"""Unit of moments in tables. Grafana's own has milliseconds where there are any, of which a column cuts off half."""
WIDTHS: Final[Overrides] = {
    "/^(time|from|to|until|since)$/": {"custom.width": 165, "unit": SECONDS},
    "/^(cluster|rack|GPUs|hosts|silent|status|before|XID|severity|unit|index)$/": {"custom.width": 85},
    "/^GPU$/": {"custom.width": 110},  # "GPU 3 MIG 12"
    "/^(host|driver)$/": {"custom.width": 130},
    "/^PCI$/": {"custom.width": 150},
    "/^UUID$/": {"custom.width": 320},
    "/^model$/": {"custom.width": 200},
}
"""Pixels of columns that tables of several dashboards have; the others share what is left."""
NARROWEST: Final = 95
"""Pixels of a column: nine digits and a unit, of which none may be cut off. Grafana's own 150 pushes the sixth column
of a table out of half a page."""

HIDDEN: Final[Properties] = {"custom.hidden": True}
"""A column of a table that only links use."""


def text_map(texts: Mapping[str, tuple[str, str]]) -> models.ValueMapping:
    """Value -> (text, colour)."""
    return models.ValueMap(
        options={
            value: models.ValueMappingResult(text=text, color=colour, index=index)
            for index, (value, (text, colour)) in enumerate(texts.items())
        }
    )


def unknown(colour: str = style.GREY, text: str = style.NO_VALUE) -> models.SpecialValueMap:
    """NULL. Left to itself, Grafana gives it the colour of the lowest threshold, which is that of a good value."""
    result = models.ValueMappingResult(text=text, color=colour, index=0)
    match = models.SpecialValueMatch.NULL_AND_NAN
    return models.SpecialValueMap(options=models.DashboardSpecialValueMapOptions(match=match, result=result))


def statuses(*, upper: bool = False) -> models.ValueMapping:
    """The advised tags in their colours."""
    return text_map({
        (tag.upper() if upper else tag): (tag.upper(), colour) for tag, colour in style.STATUS_COLOURS.items()
    })  # fmt: skip


def severity() -> Properties:
    """A column with the severity of an XID."""
    colours = text_map({"critical": ("critical", style.RED), "warning": ("warning", style.ORANGE)})
    return {"mappings": [colours], "custom.cellOptions": {"type": "color-text"}}


# --- kinds of panels -------------------------------------------------------------------------------------------------


def number(
    title: str,
    description: str,
    unit: str,
    query: Query | Sequence[Query],
    *,
    of: Thresholds = style.PLAIN,
    text: bool = False,
) -> stat.Panel:
    """A big number (or, with `text`, a big word) for each series or column."""
    fields = "/.*/" if text else ""
    reduce = common.ReduceDataOptions().calcs(["lastNotNull"]).fields(fields).values(False)
    panel = _common(stat.Panel(), title, description, unit, query).reduce_options(reduce).height(4).span(4)
    panel.color_mode(options.BigValueColorMode.VALUE).graph_mode(options.BigValueGraphMode.NONE)
    return panel.thresholds(thresholds(of)).color_scheme(_by_thresholds()).mappings([unknown()])


def _by_thresholds() -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS)


def _palette() -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC)


def _legend(*calcs: str) -> common.VizLegendOptions:
    shown = common.VizLegendOptions().show_legend(True).placement(options.LegendPlacement.BOTTOM)
    mode = options.LegendDisplayMode.TABLE if calcs else options.LegendDisplayMode.LIST
    return shown.display_mode(mode).calcs(list(calcs))


def _all_values() -> common.VizTooltipOptions:
    return common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI).sort(options.SortOrder.DESCENDING)


def lines(
    title: str,
    description: str,
    unit: str,
    query: Query | Sequence[Query],
    *,
    of: Thresholds | None = None,
    calcs: Sequence[str] = ("mean", "lastNotNull"),
) -> timeseries_builder.Panel:
    """Lines over time; with `of`, its lines are drawn where it has any.

    `calcs`: figures in the legend. "min" and "max" only where no series is an average of buckets, or its name says so:
    the highest average of an hour is no maximum.
    """
    panel = _common(timeseries_builder.Panel(), title, description, unit, query).height(8).span(12)
    panel.line_width(1).fill_opacity(0).show_points(options.VisibilityMode.AUTO).span_nulls(SILENCE)
    panel.color_scheme(_palette()).legend(_legend(*calcs)).tooltip(_all_values())
    if of is not None:
        drawn = Thresholds(base="transparent", steps=of.lines or of.steps)
        line = common.GraphThresholdsStyleConfig().mode(options.GraphThresholdsStyleMode.DASHED)
        panel.thresholds(thresholds(drawn)).thresholds_style(line)
    return panel


def points(title: str, description: str, unit: str, query: Query) -> timeseries_builder.Panel:
    """Single points over time, without lines."""
    panel = lines(title, description, unit, query).draw_style(options.GraphDrawStyle.POINTS)
    return panel.point_size(4).show_points(options.VisibilityMode.ALWAYS)


def bars(
    title: str,
    description: str,
    unit: str,
    query: Query,
    align: options.BarAlignment = options.BarAlignment.AFTER,
) -> timeseries_builder.Panel:
    """What happened in each bucket of time, stacked. Buckets of SQL are named by their begin; a point of Prometheus is
    about the time before it."""
    stacked = common.StackingConfig().mode(options.StackingMode.NORMAL).group("A")
    panel = lines(title, description, unit, query).draw_style(options.GraphDrawStyle.BARS).stacking(stacked)
    return panel.bar_alignment(align).bar_width_factor(0.95).fill_opacity(80).legend(_legend("sum")).min(0)


def areas(title: str, description: str, unit: str, query: Query) -> timeseries_builder.Panel:
    """Parts of a whole over time, stacked."""
    stacked = common.StackingConfig().mode(options.StackingMode.NORMAL).group("A")
    return lines(title, description, unit, query).stacking(stacked).fill_opacity(30).min(0)


def apart(panel: statetimeline.Panel) -> statetimeline.Panel:
    """Bands whose rows are at times of their own: nulls shorter than `SILENCE` are no gap."""
    return override(panel, {"/.*/": {"custom.spanNulls": SILENCE}})


class _WithoutPager(statetimeline.Panel):
    """Grafana draws a pager below a single band too, unless a page has 0 of them, which the SDK's builder refuses."""

    def build(self) -> models.Panel:
        built = super().build()
        if isinstance(built.options, statetimeline_models.Options):
            built.options.per_page = 0
        return built


def states(
    title: str, description: str, query: Query, mapping: models.ValueMapping | None, *, per_page: int = 0
) -> statetimeline.Panel:
    """Coloured bands over time. A NULL is a gap, so several series must have rows at the same times, or `apart()`.
    `per_page`: bands shown at once, where there may be many."""
    kind = statetimeline.Panel().per_page(per_page) if per_page else _WithoutPager()
    panel = _common(kind, title, description, "none", query).height(6).span(24)
    panel.merge_values(True).show_value(options.VisibilityMode.AUTO).row_height(0.9).fill_opacity(80).line_width(0)
    panel.legend(_legend()).tooltip(_all_values()).color_scheme(_palette())
    return panel if mapping is None else panel.mappings([mapping])


def table(title: str, description: str, query: Query | Sequence[Query], unit: str = "none") -> table_builder.Panel:
    """`unit` is that of the columns no override names."""
    panel = _common(table_builder.Panel(), title, description, unit, query).height(8).span(12)
    panel.show_header(True).cell_height(options.TableCellHeight.SM).thresholds(thresholds(style.PLAIN))
    return override(panel.min_width(NARROWEST), WIDTHS)


def categories(title: str, description: str, unit: str, query: Query, x: str) -> barchart.Panel:
    """Bars side by side for each value of column `x`."""
    panel = _common(barchart.Panel(), title, description, unit, query).height(8).span(8).x_field(x)
    panel.show_value(options.VisibilityMode.AUTO).stacking(options.StackingMode.NONE).color_scheme(_palette())
    return panel.legend(_legend()).tooltip(_all_values()).x_tick_label_max_length(40)  # 0, the SDK's own: "..." only


def donut(title: str, description: str, unit: str, query: Query, *, name: str, value: str) -> piechart.Panel:
    """Parts of a whole: one for each row, called by its column `name`, as large as its column `value`."""
    # Rows become fields: overrides, which give colours, go by the names of fields.
    mappings = [{"fieldName": name, "handlerKey": "field.name"}, {"fieldName": value, "handlerKey": "field.value"}]
    turned = models.DataTransformerConfig(id_val="rowsToFields", options={"mappings": mappings})
    reduced = common.ReduceDataOptions().values(False).calcs(["lastNotNull"]).fields("")
    legend = piechart.PieChartLegendOptions().show_legend(True).placement(options.LegendPlacement.RIGHT)
    legend.display_mode(options.LegendDisplayMode.TABLE).values(
        [pie.PieChartLegendValues.VALUE, pie.PieChartLegendValues.PERCENT]
    )
    panel = _common(piechart.Panel(), title, description, unit, query).height(8).span(8).reduce_options(reduced)
    panel.pie_type(pie.PieChartType.DONUT).legend(legend).color_scheme(_palette())
    return panel.with_transformation(turned)
