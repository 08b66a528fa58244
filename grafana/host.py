"""Dashboard "Host": one host, its GPUs, what it was doing. The first twelve panels are the operators' runbook's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.builders import common, timeseries
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import units

from grafana import panels, style, throttle
from grafana.frame import HOST_UID, event_annotations, page, postgres_variable
from grafana.gaps import bands, blank
from grafana.host_now import boards, gpus, status_now, temperatures_now
from grafana.host_runs import runs, status_changes
from grafana.panels import AnyPanel, Overrides, fixed
from grafana.presence import same_host
from grafana.queries import rows, series
from grafana.samples import LAST_WORD, MEAN, average, average_and_peak, by_gpu, grown, tagged, temperatures
from grafana.selection import GPUS, HOST

BY_STATUS: Final[Overrides] = {
    f"/^{tag}\\b/i": fixed(colour) for tag, colour in {**style.STATUS_COLOURS, style.UNTAGGED: style.GREY}.items()
}
PEAKS: Final[Overrides] = {"/ peak$/": {"custom.lineStyle": {"fill": "dash", "dash": [2, 4]}}}
PEAK: Final = " There the peak is drawn beside it."
COARSE: Final = " Over six hours it is the average of minutes, over two days of hours, over sixty days of days."
BY_USAGE: Final = " Over six hours it is the average of minutes, over two days of hours, over a year of days."


# --- the runbook's twelve --------------------------------------------------------------------------------------------


def now_and_range() -> list[AnyPanel]:
    """Six numbers."""
    celsius, hot = units.Celsius, style.TEMPERATURE
    over = temperatures()
    return [
        temperatures_now().span(12),
        status_now(),
        panels.number(
            "Max Temp", "Highest GPU temperature within the time range.",
            celsius, rows(over + "SELECT max(high) AS max FROM sample"), of=hot),
        panels.number(
            "Avg Temp", "Mean GPU temperature within the time range, of all samples of the GPUs chosen.",
            celsius, rows(over + f"SELECT {MEAN} AS avg FROM sample"), of=hot).decimals(1),
        boards().height(3).span(16),
        panels.number(
            "Total Samples", "Samples within the time range: one for each GPU and scrape.",
            style.COUNT, rows(over + "SELECT coalesce(sum(samples), 0)::bigint AS samples FROM sample"),
        ).height(3).span(8),
    ]  # fmt: skip


def beside(*calcs: str) -> common.VizLegendOptions:
    """A legend right of the lines: below them eight GPUs and their peaks would have three rows."""
    shown = common.VizLegendOptions().show_legend(True).placement(options.LegendPlacement.RIGHT)
    return shown.display_mode(options.LegendDisplayMode.TABLE).calcs(list(calcs))


def temperature() -> AnyPanel:
    panel = panels.lines(
        "GPU Temperature", "GPU temperature, with lines at 75 and 85 C." + COARSE + PEAK,
        units.Celsius, series(average_and_peak("gpu_temp")), of=style.TEMPERATURE).span(24).height(12)  # fmt: skip
    return panels.override(panel.legend(beside("min", "mean", "max", "lastNotNull")), PEAKS)


def status_timeline() -> AnyPanel:
    host = f"""{tagged("of_gpus").rstrip()}, sample AS (
SELECT time, max(until) AS until, max(nullif(tag, '{style.UNTAGGED}')) AS status, gap FROM of_gpus GROUP BY time, gap
)
"""
    return blank(panels.states(
        "Status Timeline",
        "What the operator said the host was doing (`gpumon status`). Blank: nothing was said, or no sample."
        + LAST_WORD,
        rows(host + bands("status")), panels.statuses()).height(5))  # fmt: skip


def by_status() -> list[AnyPanel]:
    samples = tagged()
    points = samples + "SELECT time, tag || ' ' || name AS metric, value FROM sample ORDER BY 1"
    spread = f"""{samples}SELECT tag AS status,
    min(low) AS "Min", round(({MEAN})::numeric, 1)::float8 AS "Avg", max(high) AS "Max"
FROM sample GROUP BY 1 ORDER BY 1"""
    share = samples + "SELECT tag AS status, sum(samples)::bigint AS samples FROM sample GROUP BY 1 ORDER BY 1"
    return [
        panels.override(panels.points(
            "Temperature by Status", "GPU temperature, coloured by what the host was doing." + BY_USAGE + LAST_WORD,
            units.Celsius, series(points)).height(10).legend(beside("mean")).span(8), BY_STATUS),
        panels.override(panels.categories(
            "Temperature Distribution by Status",
            "Lowest, mean and highest GPU temperature of each status tag." + LAST_WORD,
            units.Celsius, rows(spread), "status").height(10),
            {"/^Min$/": fixed(style.BLUE), "/^Avg$/": fixed(style.YELLOW), "/^Max$/": fixed(style.RED)}),
        panels.override(panels.donut(
            "Samples by Status", "How many samples each status tag has within the time range." + LAST_WORD,
            style.COUNT, rows(share), name="status", value="samples").height(10), BY_STATUS),
    ]  # fmt: skip


# --- beyond the twelve -----------------------------------------------------------------------------------------------


def _line(title: str, description: str, column: str, *, peak: bool = False, zero: bool = True) -> timeseries.Panel:
    """`zero`: the axis begins there, so that a step of 1 % is not drawn as a cliff."""
    of = average_and_peak if peak else average
    panel = panels.lines(title, description + COARSE + PEAK * peak, style.unit(column), series(of(column)))
    panel.height(10).legend(beside("min", "mean", "max"))
    return panels.override(panel.axis_soft_min(0) if zero else panel, PEAKS if peak else {})


def power() -> list[AnyPanel]:
    energy = grown("total_energy_consumption") + "SELECT time, metric, value / 3.6e9 AS value FROM sample ORDER BY 1, 2"
    return [
        _line("Power", "Power draw of the board.", "power_usage", peak=True),
        _line("Power limit", "Limit in force; where the draw meets it, clocks go down.", "power_limit"),
        panels.number(
            "Energy", "Energy used within the time range, from the GPU's own counter, of times without samples too. "
            "Volta and newer have one. No value: none, or it restarted unseen.",
            units.KiloWattHour, series(energy)).span(24).decimals(2),
    ]  # fmt: skip


def clocks() -> list[AnyPanel]:
    return [
        _line("SM clock", "Clock of the streaming multiprocessors.", "sm_clock", peak=True),
        _line("Memory clock", "Clock of the memory.", "mem_clock", peak=True),
    ]


def throttling() -> list[AnyPanel]:
    return [
        blank(panels.apart(panels.states(
            "Throttling",
            throttle.DESCRIPTION,
            series(by_gpu(throttle.held, blank=True)),
            throttle.mapping()).height(8))),
    ]  # fmt: skip


def memory_and_load() -> list[AnyPanel]:
    return [
        _line("Memory used", "Framebuffer in use.", "fb_used"),
        _line(
            "Memory temperature", "HBM only; boards without the sensor have no value.",
            "memory_temp", peak=True, zero=False),
        _line("GPU utilisation", "Share of time in which a kernel ran.", "gpu_util", peak=True),
        _line("Fan", "Of its full speed; boards cooled by the chassis have no value.", "fan_speed"),
    ]  # fmt: skip


def build() -> models.Dashboard:
    sections: Sequence[tuple[str, Sequence[AnyPanel]]] = [
        ("", [*now_and_range(), temperature(), status_timeline(), *by_status(), status_changes()]),
        ("Comparison of runs", [runs()]),
        ("GPUs", gpus()),
        ("Power", power()),
        ("Clocks", clocks()),
        ("Throttling", throttling()),
        ("Memory and load", memory_and_load()),
    ]
    chosen = "unnest(ARRAY[${host:sqlstring}]) chosen (host)"
    of_host = (
        "(e.gpu_id IN (SELECT gpu_id FROM gpus WHERE hostname IN (${host:sqlstring}))"
        f" OR EXISTS (SELECT FROM {chosen} WHERE {same_host('chosen.host', 'e.hostname')}))"
    )
    return page(
        HOST_UID,
        "One host: temperature, status and load of its GPUs.",
        variables=[postgres_variable(), HOST, GPUS],
        sections=sections,
        annotations=event_annotations(of_host),
    )
