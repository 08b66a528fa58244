"""`nvidia-smi -q -x` from plain data, in schema v11, v12 or v13.

Written by hand from how the driver lays its document out, and not from our parser's tables: a test that reads what this
writes would otherwise compare a mistake with itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

Value = int | float | str | None
"""A number in the catalogue's unit, None for `N/A`, or the very text of the cell."""

_IDLE_P40: Final[dict[str, Value]] = {
    "sm_clock": 544, "mem_clock": 405, "clocks_event_reasons": 1, "pstate": 8, "memory_temp": None, "gpu_temp": 31,
    "slowdown_temp": 92, "shutdown_temp": 95, "fan_speed": None, "power_usage": 9.87, "power_limit": 250.0,
    "pcie_replay_counter": 0, "pcie_max_link_gen": 3, "pcie_max_link_width": 16, "pcie_link_gen": 3,
    "pcie_link_width": 4, "gpu_util": 0, "mem_copy_util": 0, "enc_util": 0, "dec_util": 0, "fb_total": 24576,
    "fb_reserved": 0, "fb_used": 2, "fb_free": 24574, "ecc_sbe_vol_total": None, "ecc_dbe_vol_total": None,
    "ecc_sbe_agg_total": None, "ecc_dbe_agg_total": None, "retired_sbe": 0, "retired_dbe": 0, "retired_pending": 0,
    "uncorrectable_remapped_rows": None, "correctable_remapped_rows": None, "row_remap_failure": None,
    "row_remap_pending": None,
}  # fmt: skip
_BITS: Final = (
    "gpu_idle", "applications_clocks_setting", "sw_power_cap", "hw_slowdown", "sync_boost", "sw_thermal_slowdown",
    "hw_thermal_slowdown", "hw_power_brake_slowdown", "display_clocks_setting",
)  # fmt: skip


@dataclass(slots=True)
class MigState:
    """A GPU instance with one compute instance."""

    gpu_instance: int
    profile: str = ""
    """As `nvidia-smi -L` names it, for example `1g.5gb`; the XML does not."""
    values: dict[str, Value] = field(default_factory=dict)
    """`fb_total`, `fb_used`, `fb_free`, `fb_reserved`."""


@dataclass(slots=True)
class GpuState:
    """A GPU; what `values` does not name is as on an idle Tesla P40."""

    uuid: str = "GPU-0a40e0de-1111-4222-8333-444455556666"
    pci_bus_id: str = "00000000:06:00.0"
    model: str = "Tesla P40"
    brand: str = "Tesla"
    serial: str = "0420317000000"
    vbios: str = "86.02.23.00.01"
    values: dict[str, Value] = field(default_factory=dict)
    processes: list[tuple[int, str, str, int | None]] = field(default_factory=list)
    """pid, type, name, MiB."""
    mig: list[MigState] = field(default_factory=list)


def document(gpus: list[GpuState], driver: str = "535.129.03", schema: int = 12) -> bytes:
    """The whole document. Schema 11 tells neither the limits' distances nor `gpu_power_readings`."""
    body = "".join(_gpu(gpu, minor, schema) for minor, gpu in enumerate(gpus))
    return (
        f'<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v{schema}.dtd">\n<nvidia_smi_log>\n'
        f"<timestamp>Sat Nov 22 03:14:15 2025</timestamp>\n<driver_version>{driver}</driver_version>\n"
        f"<cuda_version>12.2</cuda_version>\n<attached_gpus>{len(gpus)}</attached_gpus>\n{body}</nvidia_smi_log>\n"
    ).encode()


def _gpu(gpu: GpuState, minor: int, schema: int) -> str:
    values = _IDLE_P40 | gpu.values
    parts = [
        _identity(gpu, minor),
        _pci(gpu, values),
        _tag("fan_speed", _cell(values["fan_speed"], "{} %")),
        _tag("performance_state", _cell(values["pstate"], "P{}")),
        _reasons(values["clocks_event_reasons"], "throttle" if schema < 12 else "event"),
        _memory(values),
        _tag("compute_mode", "Default"),
        _utilization(values),
        _ecc(values, schema),
        _pages(values),
        _rows(values),
        _temperature(values),
        _power(values, schema),
        _clocks(values),
        _tag("processes", "".join(map(_process, gpu.processes))),
    ]
    return f'<gpu id="{gpu.pci_bus_id}">\n' + "\n".join(parts) + "\n</gpu>\n"


def _tag(name: str, content: str) -> str:
    return f"<{name}>{content}</{name}>"


def _cell(value: Value, form: str = "{}") -> str:
    if value is None:
        return "N/A"
    return value if isinstance(value, str) else form.format(value)


def _flag(value: Value) -> str:
    return ("No", "Yes")[value] if isinstance(value, int) else _cell(value)


def _identity(gpu: GpuState, minor: int) -> str:
    mode = "Enabled" if gpu.mig else "N/A"
    devices = "".join(_mig(index, mig) for index, mig in enumerate(gpu.mig)) or "None"
    return "\n".join(
        (
            _tag("product_name", gpu.model),
            _tag("product_brand", gpu.brand),
            _tag("persistence_mode", "Disabled"),
            _tag("mig_mode", _tag("current_mig", mode) + _tag("pending_mig", mode)),
            _tag("mig_devices", devices),
            _tag("serial", gpu.serial),
            _tag("uuid", gpu.uuid),
            _tag("minor_number", str(minor)),
            _tag("vbios_version", gpu.vbios),
        )
    )


def _mig(index: int, mig: MigState) -> str:
    ids = _tag("index", str(index)) + _tag("gpu_instance_id", str(mig.gpu_instance)) + _tag("compute_instance_id", "0")
    return _tag("mig_device", ids + _memory({"fb_total": 0, "fb_reserved": 0, "fb_used": 0, "fb_free": 0} | mig.values))


def _pci(gpu: GpuState, values: dict[str, Value]) -> str:
    gen = _tag("max_link_gen", _cell(values["pcie_max_link_gen"]))
    gen += _tag("current_link_gen", _cell(values["pcie_link_gen"]))
    width = _tag("max_link_width", _cell(values["pcie_max_link_width"], "{}x"))
    width += _tag("current_link_width", _cell(values["pcie_link_width"], "{}x"))
    link = _tag("pci_gpu_link_info", _tag("pcie_gen", gen) + _tag("link_widths", width))
    replays = _tag("replay_counter", _cell(values["pcie_replay_counter"]))
    return _tag("pci", _tag("pci_bus_id", gpu.pci_bus_id) + link + replays)


def _reasons(value: Value, kind: str) -> str:
    section = f"clocks_{kind}_reasons"
    if not isinstance(value, int):
        return _tag(section, _cell(value))
    texts = (("Not Active", "Active")[value >> bit & 1] for bit in range(len(_BITS)))
    return _tag(section, "".join(_tag(f"clocks_{kind}_reason_{n}", text) for n, text in zip(_BITS, texts, strict=True)))


def _memory(values: dict[str, Value]) -> str:
    names = ("total", "reserved", "used", "free")
    return _tag("fb_memory_usage", "".join(_tag(n, _cell(values[f"fb_{n}"], "{} MiB")) for n in names))


def _utilization(values: dict[str, Value]) -> str:
    names = (("gpu", "gpu_util"), ("memory", "mem_copy_util"), ("encoder", "enc_util"), ("decoder", "dec_util"))
    return _tag("utilization", "".join(_tag(f"{n}_util", _cell(values[column], "{} %")) for n, column in names))


def _ecc(values: dict[str, Value], schema: int) -> str:
    """Pascal keeps its single and double bits in every schema; here: whoever has neither total is a Pascal."""
    eras = (("volatile", "vol"), ("aggregate", "agg"))
    if values["ecc_sbe_vol_total"] is None and values["ecc_sbe_agg_total"] is None:
        place = _tag("device_memory", "N/A") + _tag("total", "N/A")
        old = "".join(_tag(era, _tag("single_bit", place) + _tag("double_bit", place)) for era, _ in eras)
        return _tag("ecc_errors", old)
    return _tag("ecc_errors", "".join(_tag(era, _parts(values, short, schema)) for era, short in eras))


def _parts(values: dict[str, Value], short: str, schema: int) -> str:
    """The total split so that each part carries some of it."""
    single, double = values[f"ecc_sbe_{short}_total"], values[f"ecc_dbe_{short}_total"]
    names = ["sram_correctable", "dram_correctable"], ["sram_uncorrectable", "dram_uncorrectable"]
    if schema >= 13:
        names[1][:1] = ["sram_uncorrectable_parity", "sram_uncorrectable_secded"]
    return _split(single, names[0]) + _split(double, names[1])


def _split(total: Value, names: list[str]) -> str:
    if not isinstance(total, int):
        return "".join(_tag(name, _cell(total)) for name in names)
    shares = [total // len(names)] * len(names)
    shares[-1] += total - sum(shares)
    return "".join(_tag(name, str(share)) for name, share in zip(names, shares, strict=True))


def _pages(values: dict[str, Value]) -> str:
    def retired(tag: str, column: str) -> str:
        return _tag(tag, _tag("retired_count", _cell(values[column])) + _tag("retired_pagelist", ""))

    pending = _flag(values["retired_pending"])
    return _tag(
        "retired_pages",
        retired("multiple_single_bit_retirement", "retired_sbe")
        + retired("double_bit_retirement", "retired_dbe")
        + _tag("pending_blacklist", pending)
        + _tag("pending_retirement", pending),
    )


def _rows(values: dict[str, Value]) -> str:
    if values["correctable_remapped_rows"] is None:
        return _tag("remapped_rows", "N/A")
    return _tag(
        "remapped_rows",
        _tag("remapped_row_corr", _cell(values["correctable_remapped_rows"]))
        + _tag("remapped_row_unc", _cell(values["uncorrectable_remapped_rows"]))
        + _tag("remapped_row_pending", _flag(values["row_remap_pending"]))
        + _tag("remapped_row_failure", _flag(values["row_remap_failure"])),
    )


def _temperature(values: dict[str, Value]) -> str:
    """Without thresholds where there are none, as on Hopper (which tells distances to them)."""
    names = (("gpu_temp_max_threshold", "shutdown_temp"), ("gpu_temp_slow_threshold", "slowdown_temp"))
    limits = "".join(_tag(n, _cell(values[column], "{} C")) for n, column in names if values[column] is not None)
    own = _tag("gpu_temp", _cell(values["gpu_temp"], "{} C"))
    return _tag("temperature", own + limits + _tag("memory_temp", _cell(values["memory_temp"], "{} C")))


def _power(values: dict[str, Value], schema: int) -> str:
    draw, limit = (_cell(values[column], "{:.2f} W") for column in ("power_usage", "power_limit"))
    if schema < 12:
        limits = _tag("power_limit", limit) + _tag("enforced_power_limit", limit)
        return _tag("power_readings", _tag("power_draw", draw) + limits)
    # The enforced limit differs from the requested one where another limiter is lower: here always, to be told apart.
    limits = _tag("current_power_limit", "99.00 W") + _tag("requested_power_limit", limit)
    if schema == 12:
        return _tag("gpu_power_readings", _tag("power_draw", draw) + limits)
    # Likewise: what is averaged and what is instantaneous are never the same number here.
    instant = draw if values["power_usage"] is None or isinstance(values["power_usage"], str) else "1.00 W"
    draws = _tag("average_power_draw", draw) + _tag("instant_power_draw", instant)
    return _tag("gpu_power_readings", draws + limits)


def _clocks(values: dict[str, Value]) -> str:
    sm, memory = (_cell(values[column], "{} MHz") for column in ("sm_clock", "mem_clock"))
    own = (("graphics_clock", sm), ("sm_clock", sm), ("mem_clock", memory), ("video_clock", "544 MHz"))
    return _tag("clocks", "".join(_tag(name, text) for name, text in own))


def _process(process: tuple[int, str, str, int | None]) -> str:
    pid, kind, name, memory = process
    return _tag(
        "process_info",
        _tag("gpu_instance_id", "N/A")
        + _tag("pid", str(pid))
        + _tag("type", kind)
        + _tag("process_name", name)
        + _tag("used_memory", _cell(memory, "{} MiB")),
    )
