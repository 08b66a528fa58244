"""Every column the catalogue gives an NVML name is read, in its unit, whichever of NVML's ways a driver has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.contract.catalogue import BY_COLUMN, METRICS, Unit
from services.contract.sentinels import Missing
from services.exporter.nvml.calls import CALLS, FIELDS, Call
from services.exporter.nvml.gpm import GPM
from tests.support.fake_nvml import FakeGpu
from tests.unit.exporter.nvml.boxes import FULL_VALUES, P40_VALUES, hopper, only, opened, p40

NVML_COLUMNS = {m.column for m in METRICS if m.nvml is not None}
PROF = {m.column for m in METRICS if m.prof}
NEW_FUNCTIONS = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetMemoryInfo_v2")
"""Not in the library of driver 470."""


def calls() -> Iterator[Call]:
    """All of them, those that stand in for others included."""
    waiting = [*CALLS, *(field.instead for field in FIELDS)]
    while waiting:
        if (call := waiting.pop()) is not None:
            yield call
            waiting.append(call.instead)


def test_the_tables_and_the_catalogue_cover_each_other() -> None:
    assert {column for call in calls() for column in call.columns} | {field.column for field in FIELDS} == NVML_COLUMNS
    assert set(GPM) == PROF


@pytest.mark.parametrize("column", sorted(NVML_COLUMNS))
def test_the_function_the_catalogue_names_is_one_of_those_called(column: str) -> None:
    named = (BY_COLUMN[column].nvml or "").partition("(")[0].partition(".")[0]
    ways = {call.function for call in calls() if column in call.columns}
    ways |= {"nvmlDeviceGetFieldValues" for field in FIELDS if field.column == column}
    assert named in ways


def test_no_column_has_two_ways_at_once() -> None:
    first = [column for call in CALLS for column in call.columns] + [field.column for field in FIELDS]
    assert len(first) == len(set(first))


@pytest.mark.parametrize("fields", [True, False], ids=["field values", "one by one"])
def test_all_columns_in_the_catalogues_units(fields: bool) -> None:
    gpu = hopper(fields=fields)
    del gpu.values["memory_temp"]  # told by field value alone
    with opened(gpu) as (_, source):
        reading = only(source.read())
    expected = {column: FULL_VALUES[column] for column in NVML_COLUMNS - {"memory_temp"}}
    assert {column: reading.values[column] for column in expected} == pytest.approx(expected)
    for column, value in reading.values.items():
        assert isinstance(value, int if BY_COLUMN[column].sql.is_integer else float), column
    assert reading.missing == {"memory_temp": Missing.UNSUPPORTED}


@pytest.mark.parametrize("column", sorted(NVML_COLUMNS))
def test_each_value_lands_in_its_own_column(column: str) -> None:
    """One column changed: exactly that one changes in the reading. Catches swapped enumerators and struct members."""
    gpu = hopper(gpm=False)
    metric = BY_COLUMN[column]
    with opened(gpu) as (_, source):
        before = dict(only(source.read()).values)
    gpu.values[column] = other = 0 if metric.unit is Unit.FLAG else before[column] + 1
    with opened(gpu) as (_, source):
        after = only(source.read()).values
    assert {name for name in after if after[name] != before[name]} == {column}
    assert after[column] == pytest.approx(other)


def test_units() -> None:
    gpu = p40(native={"power_usage": 52_499, "fb_used": 55 * 2**20 - 1, "power_violation": 5_000_000_001})
    with opened(gpu) as (_, source):
        values = only(source.read()).values
    assert values["power_usage"] == 52.499
    assert values["fb_used"] == 54  # cut, as DCGM and nvidia-smi do
    assert values["power_violation"] == 5_000_000_001


def test_a_p40_lacks_what_a_p40_lacks() -> None:
    with opened(p40()) as (_, source):
        for _ in range(2):  # what was learnt at the first read says the same at the second
            reading = only(source.read())
            assert reading.values == P40_VALUES
            assert reading.missing == dict.fromkeys((NVML_COLUMNS | PROF) - set(P40_VALUES), Missing.UNSUPPORTED)
            assert {"memory_temp", "fan_speed", "sm_active"} <= set(reading.missing)


def test_an_old_drivers_library() -> None:
    """Before 510 and 535: other functions, and what is reserved is part of what is used."""
    gpu = p40(fields=False)
    gpu.values["fb_reserved"], gpu.values["fb_used"] = 150, 50
    with opened(gpu) as (fake, source):
        fake.absent.update(NEW_FUNCTIONS)
        reading = only(source.read())
    assert reading.values["fb_used"] == 200
    assert reading.missing["fb_reserved"] is Missing.UNSUPPORTED
    assert reading.values["clocks_event_reasons"] == 4


def test_a_new_drivers_library_that_dropped_what_was_deprecated() -> None:
    with opened(p40()) as (fake, source):
        fake.absent.add("nvmlDeviceGetTemperature")
        assert only(source.read()).values["gpu_temp"] == 69


def test_nvlink_errors_link_by_link_where_there_are_no_totals() -> None:
    gpu = hopper(gpm=False, fields=False)
    with opened(gpu) as (fake, source):
        values = only(source.read()).values
        assert fake.calls["nvmlDeviceGetNvLinkErrorCounter"] == 4 * 4  # four active links
    assert values["nvlink_replay_error_count"] == FULL_VALUES["nvlink_replay_error_count"]


def test_the_identity_of_a_gpu() -> None:
    with opened(p40(pci_bus_id="00000000:C1:00.0")) as (_, source):
        sweep = source.read()
    device = only(sweep).device
    assert (device.uuid, device.index, device.model) == ("GPU-40", 0, "Tesla P40")
    assert device.pci_bus_id == "00000000:C1:00.0"
    assert device.labels == {
        "DCGM_FI_DRIVER_VERSION": "535.129.03",
        "DCGM_FI_NVML_VERSION": "12.535.129.03",
        "DCGM_FI_DEV_VBIOS_VERSION": "86.02.23.00.01",
        "DCGM_FI_DEV_SERIAL": "0420317000000",
        "DCGM_FI_DEV_BRAND": "Tesla",
    }
    assert (sweep.source, sweep.time) == ("nvml", 1_763_790_000.0)


@pytest.mark.parametrize("serial", [None, "N/A", ""])
def test_a_card_without_serial_number_has_no_label_for_it(serial: str | None) -> None:
    with opened(FakeGpu(serial=serial)) as (_, source):
        assert set(only(source.read()).device.labels) == {"DCGM_FI_DRIVER_VERSION", "DCGM_FI_NVML_VERSION"}
