"""The text of `nvidia-smi -q` as the XML of the same driver: labels turned into tags, nothing else.

Recordings of cards of which nobody has the XML (Tesla P40, H200) come as text. The tags are those of the recorded XML.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

_SECTIONS: Final = {
    "MIG Mode": "mig_mode", "PCI": "pci", "GPU Link Info": "pci_gpu_link_info", "PCIe Generation": "pcie_gen",
    "Link Width": "link_widths", "Clocks Event Reasons": "clocks_event_reasons", "FB Memory Usage": "fb_memory_usage",
    "Utilization": "utilization", "ECC Mode": "ecc_mode", "ECC Errors": "ecc_errors", "Volatile": "volatile",
    "Aggregate": "aggregate", "Single Bit": "single_bit", "Double Bit": "double_bit", "Retired Pages": "retired_pages",
    "Remapped Rows": "remapped_rows", "Temperature": "temperature", "GPU Power Readings": "gpu_power_readings",
    "Clocks": "clocks", "Processes": "processes",
}  # fmt: skip
_LEAVES: Final = {
    ("", "Product Name"): "product_name", ("", "Product Brand"): "product_brand", ("", "Serial Number"): "serial",
    ("", "GPU UUID"): "uuid", ("", "VBIOS Version"): "vbios_version", ("", "Fan Speed"): "fan_speed",
    ("", "Performance State"): "performance_state", ("pci", "Bus Id"): "pci_bus_id",
    ("", "Remapped Rows"): "remapped_rows",
    ("pci", "Replays Since Reset"): "replay_counter", ("pcie_gen", "Max"): "max_link_gen",
    ("pcie_gen", "Current"): "current_link_gen", ("link_widths", "Max"): "max_link_width",
    ("link_widths", "Current"): "current_link_width",
    ("clocks_event_reasons", "Idle"): "clocks_event_reason_gpu_idle",
    ("clocks_event_reasons", "Applications Clocks Setting"): "clocks_event_reason_applications_clocks_setting",
    ("clocks_event_reasons", "SW Power Cap"): "clocks_event_reason_sw_power_cap",
    ("clocks_event_reasons", "HW Slowdown"): "clocks_event_reason_hw_slowdown",
    ("clocks_event_reasons", "HW Thermal Slowdown"): "clocks_event_reason_hw_thermal_slowdown",
    ("clocks_event_reasons", "HW Power Brake Slowdown"): "clocks_event_reason_hw_power_brake_slowdown",
    ("clocks_event_reasons", "Sync Boost"): "clocks_event_reason_sync_boost",
    ("clocks_event_reasons", "SW Thermal Slowdown"): "clocks_event_reason_sw_thermal_slowdown",
    ("clocks_event_reasons", "Display Clock Setting"): "clocks_event_reason_display_clocks_setting",
    ("fb_memory_usage", "Total"): "total", ("fb_memory_usage", "Reserved"): "reserved",
    ("fb_memory_usage", "Used"): "used", ("fb_memory_usage", "Free"): "free",
    ("utilization", "GPU"): "gpu_util", ("utilization", "Gpu"): "gpu_util", ("utilization", "Memory"): "memory_util",
    ("utilization", "Encoder"): "encoder_util", ("utilization", "Decoder"): "decoder_util",
    ("single_bit", "Total"): "total", ("double_bit", "Total"): "total",
    ("retired_pages", "Pending Page Blacklist"): "pending_blacklist",
    ("remapped_rows", "Correctable Error"): "remapped_row_corr",
    ("remapped_rows", "Uncorrectable Error"): "remapped_row_unc", ("remapped_rows", "Pending"): "remapped_row_pending",
    ("remapped_rows", "Remapping Failure Occurred"): "remapped_row_failure",
    ("temperature", "GPU Current Temp"): "gpu_temp", ("temperature", "Memory Current Temp"): "memory_temp",
    ("temperature", "GPU Shutdown Temp"): "gpu_temp_max_threshold",
    ("temperature", "GPU Slowdown Temp"): "gpu_temp_slow_threshold",
    ("gpu_power_readings", "Power Draw"): "power_draw",
    ("gpu_power_readings", "Average Power Draw"): "average_power_draw",
    ("gpu_power_readings", "Instantaneous Power Draw"): "instant_power_draw",
    ("gpu_power_readings", "Current Power Limit"): "current_power_limit",
    ("gpu_power_readings", "Requested Power Limit"): "requested_power_limit",
    ("clocks", "Graphics"): "graphics_clock", ("clocks", "SM"): "sm_clock", ("clocks", "Memory"): "mem_clock",
}  # fmt: skip
_SRAM: Final = {
    "SRAM Correctable": "sram_correctable", "SRAM Uncorrectable Parity": "sram_uncorrectable_parity",
    "SRAM Uncorrectable SEC-DED": "sram_uncorrectable_secded", "DRAM Correctable": "dram_correctable",
    "DRAM Uncorrectable": "dram_uncorrectable",
}  # fmt: skip
_RETIRED: Final = {
    "Single Bit ECC": "multiple_single_bit_retirement",
    "Double Bit ECC": "double_bit_retirement",
}


def as_xml(text: str) -> bytes:
    """`-q` of any number of GPUs -> a document. What has no tag above is left out."""
    root = Element("nvidia_smi_log")
    open_sections: list[tuple[int, str, Element]] = []
    for indent, label, value in _lines(text):
        while open_sections and open_sections[-1][0] >= indent:
            open_sections.pop()
        if indent == 0:
            open_sections = _top(root, label, value)
        elif open_sections:
            _, section, parent = open_sections[-1]
            if value is None:
                tag = _SECTIONS.get(label)
                child = Element("ignored") if tag is None else SubElement(parent, tag)
                open_sections.append((indent, tag or "ignored", child))
            else:
                _leaf(section, parent, label, value)
    return tostring(root)


def _lines(text: str) -> Iterator[tuple[int, str, str | None]]:
    """Indent, label, value; no value opens a section."""
    for line in text.splitlines():
        if not line.strip() or line.startswith("="):
            continue
        label, colon, value = line.partition(" : ")
        yield len(line) - len(line.lstrip()), label.strip(), value.strip() if colon else None


def _top(root: Element, label: str, value: str | None) -> list[tuple[int, str, Element]]:
    if label.startswith("GPU ") and value is None:
        return [(0, "", SubElement(root, "gpu", id=label.removeprefix("GPU ")))]
    header = {"Driver Version": "driver_version", "Attached GPUs": "attached_gpus"}.get(label)
    if header is not None:
        SubElement(root, header).text = value
    return []


def _leaf(section: str, parent: Element, label: str, value: str) -> None:
    if section == "retired_pages" and label in _RETIRED:
        SubElement(SubElement(parent, _RETIRED[label]), "retired_count").text = value
        return
    tag = _SRAM.get(label) if section in ("volatile", "aggregate") else _LEAVES.get((section, label))
    if tag is not None:
        SubElement(parent, tag).text = value
