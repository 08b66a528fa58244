from __future__ import annotations

import re
from pathlib import Path

from mock_dcgm.faults import Kind
from mock_dcgm.fleet import build, load
from mock_dcgm.models import MODELS
from mock_dcgm.simulator import Simulator
from mock_dcgm.workload import PROFILES

TEXT = (Path(__file__).parents[3] / "docs" / "mock.md").read_text()


def test_the_fleet_file_of_the_documentation_works(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(re.search(r"```yaml\n(.*?)```", TEXT, re.DOTALL)[1])  # type: ignore[index]  # it is there
    fleet = build(load(path))
    assert [host.name for host in fleet.hosts] == ["train-00", "train-01", "attic"]
    simulator = Simulator(fleet)
    simulator.step(100)
    assert simulator.snapshot.columns["ecc_sbe_vol_total"][3] > 50


def test_the_documentation_names_every_fault_profile_and_model() -> None:
    for name in (*Kind, *PROFILES):
        assert f"`{name}`" in TEXT, name
    table = next(line for line in TEXT.splitlines() if line.startswith("| | P40"))
    assert [cell.strip() for cell in table.split("|")[2:-1]] == list(MODELS)


def test_the_table_of_what_boards_lack_is_that_of_the_models() -> None:
    rows = {
        "profiling fields": "sm_active",
        "energy counter": "total_energy_consumption",
        "memory temperature": "memory_temp",
        "NVLink": "nvlink_bandwidth_total",
        "fan": "fan_speed",
    }
    for title, column in rows.items():
        line = next(line for line in TEXT.splitlines() if line.startswith(f"| {title}"))
        shown = [cell.strip() == "yes" for cell in line.split("|")[2:-1]]
        assert shown == [column not in model.lacks for model in MODELS.values()], title
