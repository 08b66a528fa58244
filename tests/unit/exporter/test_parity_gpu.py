"""On a real GPU: what NVML says lies between what nvidia-smi says just before and just after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import pytest

from services.contract.catalogue import BY_COLUMN, METRICS
from services.exporter.nvml.source import NvmlSource
from services.exporter.reading import Device, Number, Reading, Sweep
from services.exporter.smi.source import SmiSource
from tests.support.prerequisites import need_gpu

TOLERANCE: Final[Mapping[str, float]] = MappingProxyType(
    {
        "gpu_temp": 1,  # C; the sensor moves by one between two readings
        "memory_temp": 1,
        "power_usage": 5,  # W; NVML averages over a second, the bracket is about as long
        "sm_clock": 15,  # MHz; one step of the clock
        "fan_speed": 2,  # %
        "gpu_util": 5,  # %
        "mem_copy_util": 5,
        "fb_used": 16,  # MiB; nvidia-smi's own context comes and goes
        "fb_free": 16,
        "fb_total": 1,  # newer drivers' nvidia-smi rounds to MiB, DCGM cuts, and so do we
        "fb_reserved": 1,
    }
)
"""How far outside of the bracket a value that moves by itself may lie. All others: not at all."""
ATTEMPTS: Final = 5
"""A clock or a utilisation may jump inside of one bracket; what is wrong is wrong in all of them."""
_OWN_LABELS: Final = frozenset({"DCGM_FI_NVML_VERSION"})
"""nvidia-smi's XML has no such element."""


def outside(before: Reading, nvml: Reading, after: Reading) -> dict[str, tuple[Number, Number, Number]]:
    """Columns all three have, whose NVML value is not in the bracket: (before, NVML, after)."""
    found = {}
    for column in before.values.keys() & nvml.values.keys() & after.values.keys():
        low, high = sorted((before.values[column], after.values[column]))
        room = TOLERANCE.get(column, 0.0 if BY_COLUMN[column].sql.is_integer else 0.005)  # nvidia-smi: two decimals
        if not low - room <= nvml.values[column] <= high + room:
            found[column] = (before.values[column], nvml.values[column], after.values[column])
    return found


def by_device(sweep: Sweep) -> dict[tuple[str, int | None], Reading]:
    return {(reading.device.uuid, reading.device.instance_id): reading for reading in sweep.readings}


@pytest.fixture
def sources() -> Iterator[tuple[SmiSource, NvmlSource]]:
    smi = SmiSource(need_gpu())
    nvml = NvmlSource()
    yield smi, nvml
    smi.close()
    nvml.close()


@pytest.mark.gpu
def test_values(sources: tuple[SmiSource, NvmlSource]) -> None:
    smi, nvml = sources
    wrong: dict[tuple[str, int | None], dict[str, tuple[Number, Number, Number]]] = {}
    for attempt in range(ATTEMPTS):
        before, between, after = by_device(smi.read()), by_device(nvml.read()), by_device(smi.read())
        assert before.keys() == between.keys() == after.keys()
        now = {device: outside(before[device], between[device], after[device]) for device in between}
        wrong = now if attempt == 0 else {d: {c: now[d][c] for c in wrong[d] if c in now[d]} for d in now}
        if not any(wrong.values()):
            return
    assert not any(wrong.values()), f"outside of all {ATTEMPTS} brackets (nvidia-smi, NVML, nvidia-smi): {wrong}"


@pytest.mark.gpu
def test_identity_and_what_is_missing(sources: tuple[SmiSource, NvmlSource]) -> None:
    smi, nvml = sources
    told, ours = by_device(smi.read()), by_device(nvml.read())
    for device, reading in ours.items():
        other = told[device]
        assert identity(reading.device) == identity(other.device)
        gaps = other.values.keys() & reading.missing.keys()
        assert not gaps, f"nvidia-smi has values where NVML says {[(c, reading.missing[c]) for c in sorted(gaps)]}"


def identity(device: Device) -> tuple[object, ...]:
    labels = {name: value for name, value in device.labels.items() if name not in _OWN_LABELS}
    return (device.uuid, device.index, device.pci_bus_id, device.model, device.instance_profile, labels)


# The comparison itself, which no machine without a GPU would otherwise ever run.

DEVICE = Device("GPU-1", 0, "00000000:01:00.0", "NVIDIA H200")


def reading(**values: Number) -> Reading:
    return Reading(DEVICE, values, {})


@pytest.mark.parametrize(
    ("before", "nvml", "after", "agree"),
    [
        ({"gpu_temp": 41}, {"gpu_temp": 44}, {"gpu_temp": 43}, True),
        ({"gpu_temp": 41}, {"gpu_temp": 45}, {"gpu_temp": 43}, False),
        ({"fb_total": 24576}, {"fb_total": 24574}, {"fb_total": 24576}, False),
        ({"power_limit": 250.0}, {"power_limit": 250.004}, {"power_limit": 250.0}, True),
        ({"power_limit": 250.0}, {"power_limit": 250_000.0}, {"power_limit": 250.0}, False),
        ({"ecc_sbe_vol_total": 3}, {"ecc_sbe_vol_total": 4}, {"ecc_sbe_vol_total": 4}, True),
        ({}, {"total_energy_consumption": 4}, {}, True),
    ],
)
def test_the_comparison(
    before: dict[str, Number], nvml: dict[str, Number], after: dict[str, Number], agree: bool
) -> None:
    assert (outside(reading(**before), reading(**nvml), reading(**after)) == {}) is agree


def test_tolerances_are_of_columns_that_there_are() -> None:
    assert TOLERANCE.keys() <= {m.column for m in METRICS if m.smi is not None and m.nvml is not None}
