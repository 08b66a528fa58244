"""Dashboard "Host": one host, its GPUs, what it was doing. The first twelve panels are the operators' runbook's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import units

from grafana import panels, style
from grafana.frame import HOST_UID, among, card_url, event_annotations, page, postgres_variable
from grafana.panels import HIDDEN, AnyPanel, Overrides, cell, fixed, link, rows, series
from grafana.resolution import FROM, PER_GPU, TO, Level, increases, read, with_gaps
from grafana.selection import GPU_NAME, GPUS, HOST, ON_HOST, on_host
from services.contract.clocks_event import THROTTLING

CURRENT: Final = "v.age < INTERVAL '5 minutes'"
"""Older than that, a value is not current any more (v_fleet_health_summary counts the GPU as silent)."""
LATEST: Final = f"""FROM v_latest_gpu_metrics v JOIN gpus g USING (gpu_id)
WHERE v.hostname IN (${{host:sqlstring}}) AND {among("v.gpu_id::text", "gpu")}"""
NAME_NOW: Final = GPU_NAME.format(at="g")
BY_STATUS: Final[Overrides] = {f"/^{tag}\\b/i": fixed(colour) for tag, colour in style.STATUS_COLOURS.items()}
COARSE: Final = " Over six hours it is the average of minutes, over two days of hours, over sixty days of days."
LAST_WORD: Final = (
    " Over six hours a minute, over two days an hour, over sixty days a day counts under the status it ended with:"
    " of short runs, figures of so long a range are those of their neighbours too."
)
"""The aggregates keep the last tag and memo of a bucket, not a part for each."""


# --- SQL -------------------------------------------------------------------------------------------------------------


def sample(select: Callable[[Level], str]) -> str:
    """WITH: `sample` has what `select` takes of the samples of the GPUs chosen, at the level for the range."""
    return f"WITH {ON_HOST}, sample AS (\n{read(select, on_host)}\n)\n"


def by_gpu(value: Callable[[Level], str], name: str = "gpu.name") -> str:
    """A series for each GPU (or for each `name`), with gaps where it was silent."""

    def select(level: Level) -> str:
        return f"m.{level.time} AS time, {name} AS metric, {value(level)} AS value, INTERVAL '{level.gap}' AS gap"

    return sample(select) + with_gaps(("value",), "metric")


def average(column: str) -> str:
    return by_gpu(lambda level: level.average(column))


def peaks(column: str) -> str:
    """The highest of each bucket, where the range is read from buckets; of rows the value itself is shown."""

    def select(level: Level) -> str:
        value = "NULL::smallint" if level.raw else level.highest(column)
        return f"m.{level.time} AS time, gpu.name || ' peak' AS metric, {value} AS value, INTERVAL '{level.gap}' AS gap"

    levels = read(select, on_host, PER_GPU, skip_rows=True)
    return f"WITH {ON_HOST}, sample AS (\n{levels}\n)\n" + with_gaps(("value",), "metric")


def tag(level: Level) -> str:
    return f"coalesce({level.last('status_tag')}, '{style.UNTAGGED}')"


def temperatures(level: Level) -> str:
    """What temperature figures over the range are made of."""
    x = "gpu_temp"
    return (
        f"m.{level.time} AS time, gpu.name, {tag(level)} AS tag, {level.last('status_memo')} AS memo, "
        f"{level.average(x)} AS value, {level.lowest(x)} AS low, {level.highest(x)} AS high, "
        f"{level.total(x)} AS total, {level.count(x)} AS n, {level.samples} AS samples, "
        f"{level.total('power_usage')} AS watts, {level.count('power_usage')} AS watts_n"
    )


MEAN: Final = "sum(total) / nullif(sum(n), 0)::float8"
MEAN_WATTS: Final = "sum(watts) / nullif(sum(watts_n), 0)::float8"


# --- the runbook's twelve --------------------------------------------------------------------------------------------


def now_and_range() -> list[AnyPanel]:
    """Six numbers."""
    celsius, hot = units.Celsius, style.TEMPERATURE
    current = (
        # One time for all: tiles are in the order of the rows, which Grafana wants in order of time.
        f"SELECT max(v.time) OVER () AS time, {NAME_NOW} AS metric, CASE WHEN {CURRENT} THEN v.gpu_temp END AS value "
        f"{LATEST} ORDER BY 1, g.gpu_index, g.instance_id NULLS FIRST"
    )
    status = f"SELECT string_agg(DISTINCT upper(v.status_tag), ', ') AS status {LATEST} AND {CURRENT}"
    boards = f"""SELECT string_agg(CASE WHEN n > 1 THEN n || ' x ' ELSE '' END || model, ', ' ORDER BY model) AS gpu
FROM (SELECT coalesce(v.model, 'unknown model') AS model, count(*) AS n {LATEST} GROUP BY 1) boards"""
    over = sample(temperatures)
    return [
        panels.number(
            "Current Temperature",
            "Newest GPU temperature of each GPU; none where it is older than five minutes.",
            celsius, series(current), of=hot),
        panels.number(
            "Current Status", "What the operator says the host is doing now (`gpumon status`).",
            "none", rows(status), text=True).mappings([panels.statuses(upper=True), panels.unknown()]),
        panels.number(
            "Max Temp", "Highest GPU temperature within the time range.",
            celsius, rows(over + "SELECT max(high) AS max FROM sample"), of=hot),
        panels.number(
            "Avg Temp", "Mean GPU temperature within the time range, of all samples of the GPUs chosen.",
            celsius, rows(over + f"SELECT {MEAN} AS avg FROM sample"), of=hot).decimals(1),
        panels.number("GPU", "Product name of the GPUs chosen.", "none", rows(boards), text=True),
        panels.number(
            "Total Samples", "Samples within the time range: one for each GPU and scrape.",
            style.COUNT, rows(over + "SELECT coalesce(sum(samples), 0)::bigint AS samples FROM sample")),
    ]  # fmt: skip


def temperature() -> AnyPanel:
    queries = [series(average("gpu_temp")), series(peaks("gpu_temp"), "B")]
    panel = panels.lines(
        "GPU Temperature",
        "GPU temperature, with lines at 75 and 85 C." + COARSE + " There the peak is drawn beside it.",
        units.Celsius, queries, of=style.TEMPERATURE).span(24)  # fmt: skip
    dashes: Overrides = {"/ peak$/": {"custom.lineStyle": {"fill": "dash", "dash": [2, 4]}}}
    return panels.override(panel, dashes)


def status_timeline() -> AnyPanel:
    def select(level: Level) -> str:
        return f"m.{level.time} AS time, {level.last('status_tag')} AS tag, INTERVAL '{level.gap}' AS gap"

    host = f"""WITH {ON_HOST}, of_gpus AS (
{read(select, on_host)}
), sample AS (SELECT time, max(tag) AS status, gap FROM of_gpus GROUP BY time, gap)
"""
    return panels.states(
        "Status Timeline",
        "What the operator said the host was doing (`gpumon status`). Blank: nothing was said, or no sample."
        + LAST_WORD,
        rows(host + with_gaps(("status",))), panels.statuses())  # fmt: skip


def by_status() -> list[AnyPanel]:
    tagged = sample(temperatures)
    points = tagged + "SELECT time, tag || ' ' || name AS metric, value FROM sample ORDER BY 1"
    spread = f"""{tagged}SELECT tag AS status,
    min(low) AS "Min", round(({MEAN})::numeric, 1)::float8 AS "Avg", max(high) AS "Max"
FROM sample GROUP BY 1 ORDER BY 1"""
    samples = tagged + "SELECT tag AS status, sum(samples)::bigint AS samples FROM sample GROUP BY 1 ORDER BY 1"
    return [
        panels.override(panels.points(
            "Temperature by Status", "GPU temperature, coloured by what the host was doing." + COARSE + LAST_WORD,
            units.Celsius, series(points)).span(8), BY_STATUS),
        panels.override(panels.categories(
            "Temperature Distribution by Status",
            "Lowest, mean and highest GPU temperature of each status tag." + LAST_WORD,
            units.Celsius, rows(spread), "status"),
            {"/^Min$/": fixed(style.BLUE), "/^Avg$/": fixed(style.YELLOW), "/^Max$/": fixed(style.RED)}),
        panels.override(panels.donut(
            "Samples by Status", "How many samples each status tag has within the time range." + LAST_WORD,
            style.COUNT, rows(samples)), BY_STATUS),
    ]  # fmt: skip


def status_changes() -> AnyPanel:
    # The last change before the range is the first row's "before"; after the newest, the tag holds until now.
    sql = f"""SELECT * FROM (
    SELECT e.time, lag(e.detail ->> 'tag') OVER w AS before, e.detail ->> 'tag' AS status, e.detail ->> 'memo' AS memo,
        extract(epoch FROM lead(e.time, 1, least(now(), {TO})) OVER w - e.time)::float8 AS lasted
    FROM gpu_events e WHERE e.kind = 'status' AND e.hostname IN (${{host:sqlstring}}) AND e.time <= {TO}
    WINDOW w AS (ORDER BY e.time)
) changes WHERE time >= {FROM} ORDER BY time DESC LIMIT 100"""
    panel = panels.table(
        "Recent Status Changes", "When the operator changed the status, to what, and how long it held.", rows(sql)
    )
    coloured = {"mappings": [panels.statuses()], "custom.cellOptions": {"type": "color-text"}}
    return panels.override(panel.span(24), {"/^lasted$/": {"unit": units.Seconds}, "/^(before|status)$/": coloured})


# --- beyond the twelve -----------------------------------------------------------------------------------------------


def gpus() -> list[AnyPanel]:
    sql = f"""SELECT {NAME_NOW} AS "GPU",
    v.model, v.gpu_uuid AS "UUID", v.pci_bus_id AS "PCI", v.driver_version AS driver,
    v.gpu_temp AS temperature, v.memory_temp AS "memory temperature", v.power_usage AS power, v.gpu_util AS utilisation,
    v.memory_percent AS memory, v.pod, extract(epoch FROM v.age)::float8 AS age, v.gpu_id, v.hostname
{LATEST} ORDER BY g.gpu_index, g.instance_id NULLS FIRST"""
    url = card_url("${__data.fields.hostname:percentencode}", "${__data.fields.gpu_id}")
    columns: Overrides = {
        "/temperature$/": cell(style.TEMPERATURE, units.Celsius),
        "/^power$/": {"unit": units.Watt},
        "/^utilisation$/": {"unit": units.Percent},
        "/^memory$/": cell(style.LOAD, units.Percent),
        "/^age$/": cell(style.FRESHNESS, units.Seconds),
        "/^GPU$/": link("GPU detail", url),
        "/^(gpu_id|hostname)$/": HIDDEN,
    }
    panel = panels.table(
        "GPUs of this host", "Newest sample of each GPU; a click on its name shows everything on it.", rows(sql)
    )
    return [panels.override(panel.span(24), columns)]


def _line(title: str, description: str, column: str) -> timeseries.Panel:
    return panels.lines(title, description + COARSE, style.unit(column), series(average(column)))


def power() -> list[AnyPanel]:
    energy = f"""WITH {ON_HOST}, sample AS (
{increases(["total_energy_consumption"], "gpu.name AS metric", on_host)}
)
SELECT max(time) AS time, metric, sum(total_energy_consumption) / 3.6e9 AS value FROM sample GROUP BY 2 ORDER BY 1, 2"""
    return [
        _line("Power", "Power draw of the board.", "power_usage").span(10),
        _line("Power limit", "Limit in force; where the draw meets it, clocks go down.", "power_limit").span(8),
        panels.number(
            "Energy", "Energy used within the time range, from the GPU's own counter; Volta and newer have one.",
            units.KiloWattHour, series(energy)).height(8).span(6).decimals(2),
    ]  # fmt: skip


def clocks() -> list[AnyPanel]:
    return [
        _line("SM clock", "Clock of the streaming multiprocessors.", "sm_clock"),
        _line("Memory clock", "Clock of the memory.", "mem_clock"),
    ]


def throttling() -> list[AnyPanel]:
    return [
        panels.states(
            "Throttling",
            "Why the clocks were held back, from the bits of clocks_event_reasons; of buckets, every bit that was set. "
            "Idle, a clock somebody set and sync boost are not shown: they are nobody's trouble.",
            series(by_gpu(lambda level: f"{level.bits('clocks_event_reasons')} & {THROTTLING}")),
            throttle_map()),
    ]  # fmt: skip


def throttle_map() -> models.ValueMapping:
    return panels.text_map({str(bits): state for bits, state in style.throttle_states().items()})


def memory_and_load() -> list[AnyPanel]:
    return [
        _line("Memory used", "Framebuffer in use.", "fb_used"),
        _line("Memory temperature", "HBM only; boards without the sensor have no value.", "memory_temp"),
        _line("GPU utilisation", "Share of time in which a kernel ran.", "gpu_util"),
        _line("Fan", "Of its full speed; boards cooled by the chassis have no value.", "fan_speed"),
    ]


def runs() -> list[AnyPanel]:
    # Islands: while the status stays, a row's number among all and among those of its status go up together.
    numbered = "row_number() OVER (PARTITION BY name{} ORDER BY time)"
    sql = f"""{sample(temperatures).rstrip()}, runs AS (
    SELECT *, {numbered.format("")} - {numbered.format(", tag, memo")} AS run FROM sample
)
SELECT tag AS status, memo, name AS "GPU", min(time) AS "from", max(time) AS "to",
    first(value, time) FILTER (WHERE value IS NOT NULL) AS "start temperature", max(high) AS "peak temperature",
    {MEAN} AS "average temperature", {MEAN_WATTS} AS "average power", sum(samples)::bigint AS samples
FROM runs WHERE memo IS NOT NULL GROUP BY 1, 2, 3, run ORDER BY 4 DESC, 3"""
    columns: Overrides = {
        "/temperature$/": {**cell(style.TEMPERATURE, units.Celsius), "decimals": 1},
        "/power$/": {"unit": units.Watt, "decimals": 0},
        "/^status$/": {"mappings": [panels.statuses()], "custom.cellOptions": {"type": "color-text"}},
    }
    panel = panels.table(
        "Runs by memo",
        'What was measured under each memo (`gpumon status bench "fan=25%"`): compare runs by it. A memo used again '
        "is a row again." + COARSE + LAST_WORD,
        rows(sql),
    )
    return [panels.override(panel.span(24).height(10), columns)]  # fmt: skip


def build() -> models.Dashboard:
    sections: Sequence[tuple[str, Sequence[AnyPanel]]] = [
        ("", [*now_and_range(), temperature(), status_timeline(), *by_status(), status_changes()]),
        ("GPUs", gpus()),
        ("Power", power()),
        ("Clocks", clocks()),
        ("Throttling", throttling()),
        ("Memory and load", memory_and_load()),
        ("Comparison of runs", runs()),
    ]
    host = "IN (${host:sqlstring})"
    of_host = f"(e.hostname {host} OR e.gpu_id IN (SELECT gpu_id FROM gpus WHERE hostname {host}))"
    return page(
        HOST_UID,
        "One host: temperature, status and load of its GPUs.",
        variables=[postgres_variable(), HOST, GPUS],
        sections=sections,
        annotations=event_annotations(of_host),
    )
