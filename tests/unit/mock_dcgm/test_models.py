from __future__ import annotations

import pytest

from mock_dcgm.models import MODELS, GpuModel
from services.contract.catalogue import BY_COLUMN, METRICS
from tests.unit.mock_dcgm.fleets import simulator_of

PROF = {m.column for m in METRICS if m.prof}
NVLINK = {m.column for m in METRICS if m.column.startswith("nvlink_")}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_limits_are_ordered_as_on_real_boards(model: GpuModel) -> None:
    assert model.power_idle < model.power_context < model.power_limit
    assert model.power_limit_min < model.power_limit <= model.power_peak
    assert model.max_operating_temp < model.slowdown_temp < model.shutdown_temp
    assert model.sm_clock_idle < model.sm_clock_max
    assert model.mem_clock_idle <= model.mem_clock_max
    assert model.memory_reserved < model.memory_total


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_what_a_board_lacks_is_named_by_catalogue_columns(model: GpuModel) -> None:
    assert model.lacks <= set(BY_COLUMN)
    assert (model.memory_temp is None) == ("memory_temp" in model.lacks)
    assert (model.nvlinks == 0) == (model.lacks >= NVLINK)
    remaps = {"uncorrectable_remapped_rows", "correctable_remapped_rows", "row_remap_failure", "row_remap_pending"}
    retires = {"retired_sbe", "retired_dbe", "retired_pending"}
    assert model.lacks & (remaps | retires) == (retires if model.row_remapping else remaps)


def test_a_pascal_card_has_no_profiling_no_energy_and_no_memory_sensor() -> None:
    assert MODELS["P40"].lacks >= PROF | NVLINK | {"memory_temp", "fan_speed", "total_energy_consumption"}


def test_every_metric_is_reported_by_a_model_or_lacked_by_all() -> None:
    simulator = simulator_of(*MODELS)
    simulator.step(10)
    lacked_by_all = frozenset.intersection(*(m.lacks for m in MODELS.values()))
    assert set(simulator.snapshot.columns) | lacked_by_all == set(BY_COLUMN)
    assert not set(simulator.snapshot.columns) & lacked_by_all


@pytest.mark.parametrize("profile", ["cycle", "training", "inference", "idle", "held", "bursty", "cluster"])
def test_values_are_in_their_range_and_of_their_type(profile: str) -> None:
    simulator = simulator_of(*MODELS, profile=profile, count=2)
    for snapshot in simulator.run(600, 10):
        for column, values in snapshot.columns.items():
            metric = BY_COLUMN[column]
            assert values.min() >= metric.low, column
            assert values.max() <= metric.high, column
            assert (values.dtype.kind == "i") == metric.sql.is_integer, column


def test_a_report_never_hands_out_its_own_state() -> None:
    simulator = simulator_of("A100")
    first = simulator.step(10)
    before = {name: values.copy() for name, values in first.columns.items()}
    simulator.step(100)
    assert all((first.columns[name] == values).all() for name, values in before.items())
