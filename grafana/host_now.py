"""What is so now at one host, whatever the time range: tiles of its GPUs and status, and the table of its GPUs."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import stat
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import units

from grafana import panels, style
from grafana.frame import among, card_url
from grafana.panels import HIDDEN, AnyPanel, Overrides, cell, link
from grafana.presence import DOWN_STATE, LOST_STATE, SAMPLE_NOW, STATES, inventory, presence
from grafana.queries import rows, series
from grafana.selection import GPU_NAME, told_apart

_HERE: Final = f"g.hostname IN (${{host:sqlstring}}) AND {among('g.gpu_id::text', 'gpu')}"
_NOW: Final = f"WITH {presence(_HERE)}\n"
_OF_NOW: Final = f"FROM inventory g JOIN presence p USING (gpu_id) {SAMPLE_NOW}"
_NAME: Final = GPU_NAME.format(at="g")
NO_VALUES: Final = "none where it is older than five minutes, or the GPU is lost or its exporter down since"


def temperatures_now() -> stat.Panel:
    # One time for all: tiles are in the order of the rows, which Grafana wants in order of time.
    sql = f"""{_NOW}SELECT coalesce(max(time) OVER (), now()) AS time,
    {told_apart("name", "gpu_id", "gpu_uuid")} AS metric, value
FROM (
    SELECT g.newest AS time, {_NAME} AS name, g.gpu_id, g.gpu_uuid, g.gpu_index, g.instance_id, v.gpu_temp AS value
    {_OF_NOW}
) newest ORDER BY 1, gpu_index, instance_id NULLS FIRST, 2"""
    return panels.number(
        "Current Temperature",
        f"Newest GPU temperature of each GPU; {NO_VALUES}.",
        units.Celsius, series(sql), of=style.TEMPERATURE)  # fmt: skip


def _told(state: str) -> str:
    """SQL: that all boards are in that state, or how many: "lost: 1 of 4"; else nothing. A board of which something
    reports, itself or an instance, is in none."""
    reports = "SELECT r.gpu_uuid FROM inventory r JOIN presence USING (gpu_id) WHERE state = 'reports'"
    of_state = f"p.state = '{state}' AND g.gpu_uuid NOT IN ({reports})"
    some, every = f"count(DISTINCT g.gpu_uuid) FILTER (WHERE {of_state})", "count(DISTINCT g.gpu_uuid)"
    return (
        f"CASE {some} WHEN 0 THEN NULL WHEN {every} THEN '{state}' ELSE '{state}: ' || {some} || ' of ' || {every} END"
    )


def status_now() -> stat.Panel:
    sql = f"""{_NOW}SELECT nullif(concat_ws(', ', string_agg(DISTINCT upper(v.status_tag), ', '),
    {_told(LOST_STATE)},
    {_told(DOWN_STATE)}), '') AS status
{_OF_NOW}"""
    return panels.number(
        "Current Status",
        "What the operator says the host is doing now (`gpumon status`), and whether GPUs are lost, or have no sample "
        "since the host's exporter is down.",
        "none", rows(sql), text=True).mappings([panels.statuses(upper=True), _alarm(), panels.unknown()])  # fmt: skip


def _alarm() -> models.ValueMapping:
    """A text that says that something is lost or down, in red, as it is."""
    result = models.ValueMappingResult(text="$1", color=style.RED, index=0)
    pattern = f"^(.*(?:{LOST_STATE}|{DOWN_STATE}).*)$"
    return models.RegexMap(options=models.DashboardRegexMapOptions(pattern=pattern, result=result))


def boards() -> stat.Panel:
    """Each board once, by its own row where it is also there in instances."""
    sql = f"""WITH {inventory(_HERE)}
SELECT string_agg(CASE WHEN n > 1 THEN n || ' x ' ELSE '' END || model, ', ' ORDER BY model)
    || CASE max(instances) WHEN 0 THEN '' WHEN 1 THEN ' + 1 MIG instance'
        ELSE ' + ' || max(instances) || ' MIG instances' END AS gpu
FROM (
    SELECT model, count(*) AS n, max(instances) AS instances FROM (
        SELECT DISTINCT ON (g.gpu_uuid) coalesce(g.model, 'unknown model') AS model,
            count(g.instance_id) OVER () AS instances
        FROM inventory g ORDER BY g.gpu_uuid, g.instance_id NULLS FIRST
    ) board GROUP BY model
) models"""
    return panels.number(
        "GPU",
        "Product name of the GPUs that are in the host now (of those chosen), and how many, lost ones too; not of a "
        "board that was replaced. MIG instances are parts of a board, not boards.",
        "none", rows(sql), text=True)  # fmt: skip


def gpus() -> list[AnyPanel]:
    values = {"temperature": "gpu_temp", "memory temperature": "memory_temp", "power": "power_usage",
              "utilisation": "gpu_util", "memory": "memory_percent"}  # fmt: skip
    now = ", ".join(f'v.{column} AS "{name}"' for name, column in values.items())
    sql = f"""{_NOW}SELECT {_NAME} AS "GPU", p.state, g.model, {now},
    extract(epoch FROM now() - g.newest)::float8 AS age, v.pod,
    g.driver_version AS driver, g.pci_bus_id AS "PCI", g.gpu_uuid AS "UUID", g.gpu_id, g.hostname
{_OF_NOW} ORDER BY g.gpu_index, g.instance_id NULLS FIRST, g.gpu_id"""
    url = card_url("${__data.fields.hostname:percentencode}", "${__data.fields.gpu_id}")
    coloured = {"type": "color-background", "mode": "basic"}
    columns: Overrides = {
        "/^state$/": {"mappings": [panels.text_map(STATES)], "custom.cellOptions": coloured, "custom.width": 120},
        "/temperature$/": cell(style.TEMPERATURE, units.Celsius),
        "/^temperature$/": {"custom.width": 110},
        "/^memory temperature$/": {"custom.width": 160},
        "/^power$/": {"unit": units.Watt},
        "/^utilisation$/": {"unit": units.Percent},
        "/^memory$/": cell(style.LOAD, units.Percent),
        "/^age$/": cell(style.FRESHNESS, units.Seconds),
        "/^GPU$/": link("GPU detail", url),
        "/^(gpu_id|hostname)$/": HIDDEN,
    }
    panel = panels.table(
        "GPUs of this host",
        f"What is in the host now, with its newest sample; values {NO_VALUES}. A click on a name shows all, and why a "
        "GPU does not report.",
        rows(sql),
    )
    return [panels.override(panel.span(24).height(10), columns)]
