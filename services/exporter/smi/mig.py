"""The MIG devices of a GPU in nvidia-smi's XML, as readings of their own. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final
from xml.etree.ElementTree import Element

from services.contract.catalogue import BY_COLUMN
from services.contract.sentinels import Missing
from services.exporter.reading import Number, Process, Reading
from services.exporter.smi.values import number

_MEMORY: Final = {"fb_total": "total", "fb_free": "free", "fb_used": "used", "fb_reserved": "reserved"}
_OF_THE_GPU: Final = ("gpu_util", "mem_copy_util", "enc_util", "dec_util")
"""No utilisation by instance: NVML refuses it while MIG is on, and so dcgm-exporter has none."""
_COMPUTE: Final = re.compile("^[0-9]+c[.]")
Told = Sequence[tuple[int | None, Process]]
"""Processes with the GPU instance each runs on."""


def instances(
    gpu: Element, whole: Reading, profiles: Mapping[tuple[str, int], str], processes: Told | None
) -> tuple[Reading, list[Reading], set[tuple[str, int]]]:
    """The GPU itself, its GPU instances by id, and the MIG devices there are: (UUID, number) as `profiles` has them.

    Several compute instances may share a GPU instance: they are one row, whose memory they share.
    """
    found: dict[int, Reading] = {}
    numbers: set[tuple[str, int]] = set()
    for device in gpu.findall("mig_devices/mig_device"):
        instance, index = (_integer(device, tag) for tag in ("gpu_instance_id", "index"))
        if instance is None:
            continue
        key = (whole.device.uuid, -1 if index is None else index)
        numbers.add(key)
        profile = profiles.get(key)
        found.setdefault(instance, _instance(device, whole, instance, profile and _COMPUTE.sub("", profile)))
    if processes is not None:
        found = {own: replace(row, processes=_on(processes, own)) for own, row in found.items()}
        whole = replace(whole, processes=tuple(p for own, p in processes if own not in found))
    return whole, [found[instance] for instance in sorted(found)], numbers


def _on(processes: Told, instance: int) -> tuple[Process, ...]:
    return tuple(process for own, process in processes if own == instance)


def _integer(device: Element, tag: str) -> int | None:
    text = (device.findtext(tag) or "").strip()
    return int(text) if re.fullmatch("[0-9]{1,4}", text) else None


def _instance(device: Element, whole: Reading, instance: int, profile: str | None) -> Reading:
    values: dict[str, Number] = {}
    missing: dict[str, Missing] = dict.fromkeys(_OF_THE_GPU, Missing.UNSUPPORTED)
    for column, tag in _MEMORY.items():
        text = device.findtext(f"fb_memory_usage/{tag}")
        if text is None:
            continue
        cell = number(BY_COLUMN[column], text)
        if isinstance(cell, Missing):
            missing[column] = cell
        else:
            values[column] = cell
    return Reading(replace(whole.device, instance_id=instance, instance_profile=profile), values, missing)


def profiles(listing: str) -> dict[tuple[str, int], str]:
    """From `nvidia-smi -L`: `  MIG 1g.5gb  Device  0: (UUID: MIG-...)` under `GPU 0: NVIDIA A100 (UUID: GPU-...)`."""
    found: dict[tuple[str, int], str] = {}
    uuid = ""
    for line in listing.splitlines():
        if gpu := re.match(r"GPU\s+[0-9]+:.*\(UUID: (GPU-[^)\s]+)\)", line):
            uuid = gpu[1]
        elif mig := re.match(r"\s+MIG\s+(\S+)\s+Device\s+([0-9]+):", line):
            found[uuid, int(mig[2])] = mig[1]
    return found
