"""What a GPU is and where it was."""

from __future__ import annotations

from typing import Final

from grafana import panels, style
from grafana.panels import AnyPanel, Overrides
from grafana.queries import rows
from grafana.selection import CARD
from services.contract.catalogue import PROPERTIES

CARD_ID: Final = "(SELECT gpu_id FROM gpu)"
ORDER: Final = (
    "model", "brand", "instance_profile", "hostname", "gpu_index", "pci_bus_id", "device", "rack", "datacenter",
    "cluster", "driver_version", "vbios_version", "nvml_version", "gpu_uuid", "instance_id", "serial", "gpu_id",
    "first_seen", "changed_at",
)  # fmt: skip
"""Columns of gpus as the inventory lists them: what it is, where, versions, identifiers, times."""


def inventory() -> list[AnyPanel]:
    order = ", ".join(f"'{name}'" for name in ORDER)
    is_what = f"""WITH {CARD}
SELECT property, value FROM (
    SELECT coalesce(array_position(ARRAY[{order}], key), {len(ORDER) + 1}) AS place, key AS property, value
    FROM gpu, jsonb_each_text(to_jsonb(gpu) - ARRAY['properties', 'missing', 'labels'])
    UNION ALL SELECT {len(ORDER) + 2}, 'label ' || l.key, l.value FROM gpu, jsonb_each_text(gpu.labels) l
) known WHERE value IS NOT NULL ORDER BY place, property"""
    known = ", ".join(f"('{m.column}', '{m.unit}', '{_quoted(m.help)}')" for m in PROPERTIES)
    limits = f"""WITH {CARD}
SELECT known.name AS property, (gpu.properties ->> known.name)::float8 AS value, known.unit, known.meaning
FROM gpu, (VALUES {known}) AS known (name, unit, meaning) WHERE gpu.properties ? known.name"""
    why = f"""WITH {CARD}
SELECT m.key AS metric, m.value AS reason FROM gpu, jsonb_each_text(gpu.missing) m ORDER BY m.value, m.key"""
    stays = f"""WITH {CARD}
SELECT h.valid_from AS "from", h.valid_to AS until, h.hostname AS host, h.rack, h.gpu_index AS index,
    h.pci_bus_id AS "PCI", h.driver_version AS driver, h.vbios_version AS "VBIOS"
FROM gpu_history h WHERE h.gpu_id = {CARD_ID} ORDER BY h.valid_from DESC"""
    reasons: Overrides = {
        "/^reason$/": {"mappings": [panels.text_map({
            "unsupported": ("no such value on this board", style.GREY),
            "permission": ("exporter may not read it", style.ORANGE),
            "failed": ("reading it failed", style.RED),
            "not_exposed": ("exporter is not asked for it", style.BLUE),
        })], "custom.cellOptions": {"type": "color-text"}},
    }  # fmt: skip
    return [
        panels.table("Inventory", "What the GPU is and where it is, as told last.", rows(is_what)).span(8).height(10),
        panels.table("Limits", "Limits and maxima of the device.", rows(limits)).span(8).height(10),
        panels.override(panels.table(
            "Why there is no value",
            "Metrics this GPU has no value of, and why. Absent, forbidden, failed and zero differ.",
            rows(why)).span(8).height(10), reasons),
        panels.table("Where it was", "Hosts, slots, drivers and firmware over time; the present stay has no end.",
                     rows(stays)).span(24).height(5),
    ]  # fmt: skip


def _quoted(text: str) -> str:
    return text.replace("'", "''")
