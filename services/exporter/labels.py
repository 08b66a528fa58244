"""Label parts of exposition lines, in dcgm-exporter's order and escaping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.contract.catalogue import LABEL_FIELDS
from services.contract.label import escape
from services.exporter.reading import Device, Lost

Pair = tuple[str, str]


def identity(device: Device, hostname: str | None) -> list[Pair]:
    """Which GPU or MIG instance: `gpu,UUID,pci_bus_id,device,modelName[,GPU_I_PROFILE,GPU_I_ID][,Hostname]`."""
    pairs = [
        ("gpu", str(device.index)),
        ("UUID", device.uuid),
        ("pci_bus_id", device.pci_bus_id),
        ("device", f"nvidia{device.index}"),
        ("modelName", device.model),
    ]
    if device.instance_id is not None:
        pairs += [("GPU_I_PROFILE", device.instance_profile or ""), ("GPU_I_ID", str(device.instance_id))]
    return pairs + host(hostname)


def lost_identity(lost: Lost, hostname: str | None) -> list[Pair]:
    """What is known of a GPU that cannot be read; what is not known has no label."""
    known = {
        "gpu": None if lost.index is None else str(lost.index),
        "UUID": lost.uuid,
        "pci_bus_id": lost.pci_bus_id,
        "modelName": lost.model,
    }
    return [(name, value) for name, value in known.items() if value is not None] + host(hostname)


def host(hostname: str | None) -> list[Pair]:
    return [] if hostname is None else [("Hostname", hostname)]


def chosen_fields(device: Device, names: Iterable[str]) -> list[Pair]:
    """The label fields of a counters file that the device has, sorted by name; by whichever release's name."""
    told = {LABEL_FIELDS[field]: value for field, value in device.labels.items() if field in LABEL_FIELDS}
    return [(name, told[LABEL_FIELDS[name]]) for name in sorted(names) if LABEL_FIELDS[name] in told]


def attributes(labels: Mapping[str, str]) -> list[Pair]:
    """Kubernetes and HPC attributes, sorted by name."""
    return sorted(labels.items())


def text(pairs: Iterable[Pair]) -> str:
    """`a="b",c="d"`, escaped."""
    return ",".join(f'{name}="{escape(value)}"' for name, value in pairs)
