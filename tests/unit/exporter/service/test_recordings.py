"""Recorded answers of dcgm-exporter: what we render from the same values is the same text.

The recordings are not part of the project: GPUMON_RECORDINGS_ROOT names their folder.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.contract.catalogue import BY_DCGM_NAME, LABEL_FIELDS
from services.exporter.counters_file import Counter, Selection
from services.exporter.reading import Device, Number, Reading, Sweep
from services.exporter.render import Renderer

ROOT = "GPUMON_RECORDINGS_ROOT"
FOLDER = "dcgm_exporter_metrics"
FEWEST_SERIES = 10
_SERIES = re.compile(r"^(\w+)\{(.*)\} (\S+)$", re.MULTILINE)
_PAIR = re.compile(r'(\w+)="([^"]*)"')
_HEADER = re.compile(r"^# (HELP|TYPE) (\w+) (.*)$", re.MULTILINE)
_IDENTITY = {"gpu", "UUID", "pci_bus_id", "device", "modelName", "GPU_I_PROFILE", "GPU_I_ID", "Hostname"}


@dataclass
class Recording:
    """What a recording says, read by patterns of the test's own."""

    devices: dict[tuple[str, str], tuple[Device, dict[str, Number]]] = field(default_factory=dict)
    attributes: dict[str, dict[str, str]] = field(default_factory=dict)
    counters: dict[str, Counter] = field(default_factory=dict)
    hostname: str = ""
    fields: set[str] = field(default_factory=set)
    identity: set[str] = field(default_factory=set)
    """Labels that the recording has of those that say whose a series is."""


def recordings() -> list[Path]:
    root = os.environ.get(ROOT)  # noqa: TID251  # the tests' own switch, no setting of the product
    return sorted((Path(root) / FOLDER).glob("*.prom")) if root else []


def understood(text: str) -> Recording:
    found = Recording()
    headers = {(kind, name): rest for kind, name, rest in _HEADER.findall(text)}
    for name, inner, value in _SERIES.findall(text):
        labels = dict(_PAIR.findall(inner))
        metric = BY_DCGM_NAME[name]
        kind = headers.get(("TYPE", name), metric.exposition_type)
        found.counters[name] = Counter(metric, name, kind, headers.get(("HELP", name), metric.help))
        found.hostname = labels["Hostname"]
        found.identity = labels.keys() & _IDENTITY
        fields = {label: labels[label] for label in labels if label in LABEL_FIELDS}
        found.fields |= fields.keys()
        key = (labels["UUID"], labels.get("GPU_I_ID", ""))
        instance = int(key[1]) if key[1] else None
        device = Device(
            labels["UUID"], int(labels["gpu"]), labels.get("pci_bus_id", "?"), labels.get("modelName", "?"),
            instance, labels.get("GPU_I_PROFILE"), fields,
        )  # fmt: skip
        found.attributes[labels["UUID"]] = {n: v for n, v in labels.items() if n not in _IDENTITY | fields.keys()}
        values = found.devices.setdefault(key, (device, {}))[1]
        values[metric.column] = int(value) if metric.sql.is_integer else float(value)
    return found


def rendered(recording: Recording) -> str:
    renderer = Renderer(
        selection=Selection(tuple(recording.counters.values()), tuple(recording.fields)),
        hostname=recording.hostname,
        attributes=lambda device: [found] if (found := recording.attributes[device.uuid]) else [],
    )
    readings = tuple(Reading(device, values, {}) for device, values in recording.devices.values())
    return renderer.render(Sweep("nvml", 0.0, readings))


def series(text: str) -> list[str]:
    return sorted(line for line in text.splitlines() if line.startswith("DCGM_"))


def without_unknown(text: str, recording: Recording) -> str:
    """An older dcgm-exporter had neither address nor model: ours always has, so they are taken out to compare."""
    for label in {"pci_bus_id", "modelName"} - recording.identity:
        text = text.replace(f'{label}="?",', "")
    return text


@pytest.mark.skipif(not recordings(), reason=f"no recordings: set {ROOT} to a folder with {FOLDER}/*.prom")
@pytest.mark.parametrize("path", recordings(), ids=lambda path: path.stem)
def test_the_same_values_give_the_same_text(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    recording = understood(text)
    ours = without_unknown(rendered(recording), recording)
    assert len(series(text)) >= FEWEST_SERIES
    assert series(ours) == series(text)
    theirs = {line for line in text.splitlines() if line.startswith("#")}
    if theirs:
        assert {line for line in ours.splitlines() if line.startswith("# ") and " DCGM_" in line} == theirs
