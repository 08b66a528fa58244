"""What an exposition says, read the plain way: a second reader, written without looking at the collector's.

One line after the other, a regular expression for its parts, `Decimal` for its value. It shares only the catalogue with
the product: which name belongs to which column, and the column's valid range.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from services.contract.catalogue import BY_DCGM_NAME, Kind, Metric

LINE = re.compile(r'\s*([a-zA-Z_:][\w:]*)\s*(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?\s*(\S+)')
LABEL = re.compile(r'(\w+)\s*=\s*"((?:[^"\\]|\\.)*)"')
ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
UUID_LABELS = ("UUID", "uuid", "gpu_uuid")

NO_VALUE = {
    2147483632: "failed", 2147483633: "failed", 2147483634: "unsupported", 2147483635: "permission",
    9223372036854775792: "failed", 9223372036854775793: "failed",
    9223372036854775794: "unsupported", 9223372036854775795: "permission",
    140737488355328: "failed", 140737488355329: "failed", 140737488355330: "unsupported", 140737488355331: "permission",
}  # fmt: skip
"""DCGM's blank values for 32 and 64 bit integers and for doubles, and what each says (dcgm_structs.h)."""

IDENTITY = {
    "device": ("device",),
    "model": ("modelName", "model_name"),
    "hostname": ("Hostname", "hostname"),
    "pci_bus_id": ("pci_bus_id",),
    "instance_profile": ("GPU_I_PROFILE",),
    "driver_version": ("DCGM_FI_DRIVER_VERSION", "DCGM_FI_SYSTEM_DRIVER_VERSION"),
    "vbios_version": ("DCGM_FI_DEV_VBIOS_VERSION",),
    "serial": ("DCGM_FI_DEV_SERIAL", "DCGM_FI_DEV_BOARD_SERIAL"),
    "brand": ("DCGM_FI_DEV_BRAND", "DCGM_FI_DEV_GPU_BRAND"),
    "nvml_version": ("DCGM_FI_NVML_VERSION", "DCGM_FI_SYSTEM_NVML_VERSION"),
}
"""Column of `gpus` -> labels that say it."""
TENANT = {
    "pod": ("exported_pod", "pod", "pod_name"),
    "namespace": ("exported_namespace", "namespace", "pod_namespace"),
    "container": ("exported_container", "container", "container_name"),
}
UNDERSTOOD = {
    *UUID_LABELS, "gpu", "GPU_I_ID", "err_code", "err_msg",
    *(label for labels in IDENTITY.values() for label in labels),
}  # fmt: skip
"""Labels with a place of their own; all others are kept in `extra.labels`."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line."""

    name: str
    labels: dict[str, str]
    text: str
    """Its value as it stands there."""

    @property
    def metric(self) -> Metric | None:
        return BY_DCGM_NAME.get(self.name) or BY_DCGM_NAME.get(self.name.removesuffix("_total"))

    @property
    def tenant(self) -> tuple[str | None, str | None, str | None]:
        pod, namespace, container = (
            next((self.labels[label] for label in labels if self.labels.get(label)), None) for labels in TENANT.values()
        )
        return pod, namespace, container


@dataclass(slots=True)
class Device:
    """A GPU or a MIG instance, and all lines about it."""

    uuid: str
    instance: int | None
    series: list[Series] = field(default_factory=list)

    def by_metric(self) -> dict[str, list[Series]]:
        """Column -> its lines; several where pods share a GPU."""
        found: defaultdict[str, list[Series]] = defaultdict(list)
        for series in self.series:
            if series.metric is not None:
                found[series.metric.column].append(series)
        return dict(found)

    def unknown(self) -> Iterator[Series]:
        """Lines of DCGM that have no column."""
        for series in self.series:
            of_counter = BY_DCGM_NAME.get(series.name.removesuffix("_created"))
            if series.metric is None and of_counter is None and series.name.startswith("DCGM_"):
                yield series

    def identity(self) -> dict[str, Any]:
        """Column of `gpus` -> what the labels say; None where they say nothing."""
        said: dict[str, Any] = {
            column: next((s.labels[label] for s in self.series for label in labels if s.labels.get(label)), None)
            for column, labels in IDENTITY.items()
        }
        index = next((s.labels["gpu"] for s in self.series if s.labels.get("gpu", "").isdigit()), None)
        return said | {"gpu_index": None if index is None else int(index)}

    def tenants(self) -> set[tuple[str | None, str | None, str | None]]:
        return {s.tenant for s in self.series if s.metric is not None and any(s.tenant)}

    def other_labels(self) -> dict[str, str]:
        """Labels of catalogue metrics without a place of their own."""
        found: dict[str, str] = {}
        for series in self.series:
            spoken = {next((n for n in labels if series.labels.get(n)), "") for labels in TENANT.values()}
            if series.metric is not None:
                found |= {n: v for n, v in series.labels.items() if v and n not in UNDERSTOOD | spoken}
                if not series.labels.get("gpu", "0").isdigit():
                    found["gpu"] = series.labels["gpu"]  # not an index
        return found


def read(text: str) -> tuple[dict[tuple[str, int | None], Device], int]:
    """Every device of an exposition, and how many lines belong to none."""
    devices: dict[tuple[str, int | None], Device] = {}
    others = 0
    for line in text.splitlines():
        if not line.strip() or line.strip().startswith("#"):
            continue
        found = LINE.match(line)
        if found is None:
            raise AssertionError(f"not a sample: {line!r}")
        labels = {name: unescape(value) for name, value in LABEL.findall(found[2] or "")}
        uuid = next((labels[name] for name in UUID_LABELS if labels.get(name)), None)
        if uuid is None:
            others += 1
            continue
        instance = int(labels["GPU_I_ID"]) if labels.get("GPU_I_ID") else None
        device = devices.setdefault((uuid, instance), Device(uuid, instance))
        device.series.append(Series(found[1], labels, found[3]))
    return devices, others


def unescape(value: str) -> str:
    return re.sub(r"\\.", lambda found: ESCAPES.get(found[0], found[0]), value)


@dataclass(frozen=True, slots=True)
class Expected:
    """What the column of a line must hold."""

    value: Decimal | None
    missing: str | None = None
    """Why there is none."""
    kept: bool = False
    """The number stands in `extra.metrics` instead: it is none the column could hold."""


def expected(metric: Metric, text: str) -> Expected:
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise AssertionError(f"not a number: {text!r}") from None
    if not number.is_finite():
        return Expected(None, "failed")
    if number in NO_VALUE:
        return Expected(None, NO_VALUE[int(number)])
    in_range = Decimal(metric.low) <= number <= Decimal(metric.high)
    if not in_range or (metric.sql.is_integer and number != number.to_integral_value()):
        return Expected(None, "failed", kept=True)
    return Expected(number)


def is_property(metric: Metric) -> bool:
    return metric.kind is Kind.PROPERTY
