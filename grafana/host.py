"""Dashboard "Host": one host, its GPUs, what it was doing. The first twelve panels are the operators' runbook's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import units

from grafana import panels, style
from grafana.frame import HOST_UID, among, card_url, event_annotations, page, postgres_variable
from grafana.gaps import bands
from grafana.panels import HIDDEN, AnyPanel, Overrides, cell, fixed, link
from grafana.queries import rows, series
from grafana.resolution import FROM, SILENT, TO
from grafana.samples import MEAN, MEAN_WATTS, average, by_gpu, grown, peaks, tagged, temperatures
from grafana.selection import GPU_NAME, GPUS, HOST, told_apart
from services.contract.clocks_event import THROTTLING

CURRENT: Final = f"v.age < INTERVAL '{SILENT}'"
LATEST: Final = f"""FROM v_latest_gpu_metrics v JOIN gpus g USING (gpu_id)
WHERE v.hostname IN (${{host:sqlstring}}) AND {among("v.gpu_id::text", "gpu")}"""
NAME_NOW: Final = GPU_NAME.format(at="g")
BY_STATUS: Final[Overrides] = {f"/^{tag}\\b/i": fixed(colour) for tag, colour in style.STATUS_COLOURS.items()}
COARSE: Final = " Over six hours it is the average of minutes, over two days of hours, over sixty days of days."
BY_USAGE: Final = " Over six hours it is the average of minutes, over two days of hours, over a year of days."
LAST_WORD: Final = (
    " Over six hours exact to the minute, which counts under the status it ended with; over two days a status that"
    " comes back within an hour is one with its first time in it; over a year to the day."
)


# --- the runbook's twelve --------------------------------------------------------------------------------------------


def now_and_range() -> list[AnyPanel]:
    """Six numbers."""
    celsius, hot = units.Celsius, style.TEMPERATURE
    current = (
        # One time for all: tiles are in the order of the rows, which Grafana wants in order of time.
        f"SELECT max(time) OVER () AS time, {told_apart('name', 'gpu_id', 'gpu_uuid')} AS metric, value FROM ("
        f"SELECT v.time, {NAME_NOW} AS name, g.gpu_id, g.gpu_uuid, g.gpu_index, g.instance_id, "
        f"CASE WHEN {CURRENT} THEN v.gpu_temp END AS value {LATEST}) newest "
        "ORDER BY 1, gpu_index, instance_id NULLS FIRST, 2"
    )
    status = f"SELECT string_agg(DISTINCT upper(v.status_tag), ', ') AS status {LATEST} AND {CURRENT}"
    boards = f"""SELECT string_agg(CASE WHEN n > 1 THEN n || ' x ' ELSE '' END || model, ', ' ORDER BY model) AS gpu
FROM (SELECT coalesce(v.model, 'unknown model') AS model, count(*) AS n {LATEST} GROUP BY 1) boards"""
    over = temperatures()
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
    host = f"""{tagged("of_gpus").rstrip()}, sample AS (
SELECT time, max(until) AS until, max(nullif(tag, '{style.UNTAGGED}')) AS status, gap FROM of_gpus GROUP BY time, gap
)
"""
    return panels.states(
        "Status Timeline",
        "What the operator said the host was doing (`gpumon status`). Blank: nothing was said, or no sample."
        + LAST_WORD,
        rows(host + bands("status")), panels.statuses())  # fmt: skip


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
            units.Celsius, series(points)).span(8), BY_STATUS),
        panels.override(panels.categories(
            "Temperature Distribution by Status",
            "Lowest, mean and highest GPU temperature of each status tag." + LAST_WORD,
            units.Celsius, rows(spread), "status"),
            {"/^Min$/": fixed(style.BLUE), "/^Avg$/": fixed(style.YELLOW), "/^Max$/": fixed(style.RED)}),
        panels.override(panels.donut(
            "Samples by Status", "How many samples each status tag has within the time range." + LAST_WORD,
            style.COUNT, rows(share), name="status", value="samples"), BY_STATUS),
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
    values = {"temperature": "gpu_temp", "memory temperature": "memory_temp", "power": "power_usage",
              "utilisation": "gpu_util", "memory": "memory_percent"}  # fmt: skip
    now = ", ".join(f'CASE WHEN {CURRENT} THEN v.{column} END AS "{name}"' for name, column in values.items())
    sql = f"""SELECT {NAME_NOW} AS "GPU", v.model, {now}, extract(epoch FROM v.age)::float8 AS age, v.pod,
    v.driver_version AS driver, v.pci_bus_id AS "PCI", v.gpu_uuid AS "UUID", v.gpu_id, v.hostname
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
        "GPUs of this host",
        "Newest sample of each GPU, without values where it is older than five minutes; a click on its name shows all.",
        rows(sql),
    )
    return [panels.override(panel.span(24), columns)]


def _line(title: str, description: str, column: str) -> timeseries.Panel:
    return panels.lines(title, description + COARSE, style.unit(column), series(average(column)))


def power() -> list[AnyPanel]:
    energy = grown("total_energy_consumption") + "SELECT time, metric, value / 3.6e9 AS value FROM sample ORDER BY 1, 2"
    return [
        _line("Power", "Power draw of the board.", "power_usage").span(10),
        _line("Power limit", "Limit in force; where the draw meets it, clocks go down.", "power_limit").span(8),
        panels.number(
            "Energy", "Energy used within the time range, from the GPU's own counter, of times without samples too. "
            "Volta and newer have one. No value: none, or it restarted unseen.",
            units.KiloWattHour, series(energy)).height(8).span(6).decimals(2),
    ]  # fmt: skip


def clocks() -> list[AnyPanel]:
    return [
        _line("SM clock", "Clock of the streaming multiprocessors.", "sm_clock"),
        _line("Memory clock", "Clock of the memory.", "mem_clock"),
    ]


def throttling() -> list[AnyPanel]:
    return [
        panels.apart(panels.states(
            "Throttling",
            "Why the clocks were held back, from the bits of clocks_event_reasons; of buckets, every bit that was set. "
            "Idle, a clock somebody set and sync boost are not shown: they are nobody's trouble.",
            series(by_gpu(lambda level: f"{level.bits('clocks_event_reasons')} & {THROTTLING}", blank=True)),
            throttle_map())),
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
    sql = f"""{tagged().rstrip()}, runs AS (
    SELECT *, {numbered.format("")} - {numbered.format(", tag, memo")} AS run FROM sample
)
SELECT tag AS status, memo, name AS "GPU", min(time) AS "from", max(until) AS "to",
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
        "is a row again." + LAST_WORD,
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
