from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from mock_dcgm.faults import Kind
from mock_dcgm.fleet import Fleet, FleetError, FleetSpec, GpuSpec, HostSpec, build, load, spread
from mock_dcgm.layout import lay_out

FILE = """
seed: 7
hosts:
  - name: node-{index:02}
    count: 2
    gpus:
      - {model: A100, count: 3, profile: training, namespace: research, pod: "llm-{host}-{gpu}", container: train}
      - {model: A100, mig: [3g.40gb, 2g.20gb, 1g.10gb, 1g.10gb], profile: inference}
  - name: lone
    driver: 535.129.03
    gpus: [{model: P40, profile: idle}]
faults:
  - {kind: ecc_storm, host: node-00, gpu: 3, start: 60, duration: 120, value: 5}
"""


def read(tmp_path: Path, text: str) -> Fleet:
    path = tmp_path / "fleet.yaml"
    path.write_text(text)
    return build(load(path))


def test_a_file_names_hosts_boards_tenants_instances_and_faults(tmp_path: Path) -> None:
    fleet = read(tmp_path, FILE)
    assert [host.name for host in fleet.hosts] == ["node-00", "node-01", "lone"]
    assert [host.driver for host in fleet.hosts] == ["535.54.03", "535.54.03", "535.129.03"]
    assert fleet.hosts[1].gpus[2].pod == "llm-node-01-2"
    assert [(i.profile, i.id) for i in fleet.hosts[0].gpus[3].instances] == [
        ("3g.40gb", 1), ("2g.20gb", 3), ("1g.10gb", 7), ("1g.10gb", 8),
    ]  # fmt: skip
    assert [fault.kind for fault in fleet.faults] == [Kind.ECC_STORM]


def test_identities_follow_from_the_seed_alone(tmp_path: Path) -> None:
    first, again = read(tmp_path, FILE), read(tmp_path, FILE)
    assert first == again
    uuids = [gpu.uuid for gpu in first.gpus]
    assert len(set(uuids)) == len(uuids)
    assert all(re.fullmatch(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", uuid) for uuid in uuids)
    other = build(load(tmp_path / "fleet.yaml"), seed=8)
    assert not set(uuids) & {gpu.uuid for gpu in other.gpus}


def test_bus_ids_in_a_host_differ() -> None:
    fleet = build(FleetSpec((HostSpec("big", (GpuSpec("H100", 32),)),)))
    ids = [gpu.pci_bus_id for gpu in fleet.gpus]
    assert len(set(ids)) == 32
    assert all(re.fullmatch(r"00000000:[0-9A-F]{2}:00\.0", bus) for bus in ids)


def test_flags_spread_gpus_and_models() -> None:
    fleet = build(spread(20, 3, [("A100", 1), ("T4", 3)], "training", 0))
    assert [len(host.gpus) for host in fleet.hosts] == [7, 7, 6]
    assert Counter(gpu.model.key for gpu in fleet.gpus) == {"A100": 5, "T4": 15}
    assert fleet.gpus[0].namespace == "research"


def test_an_idle_gpu_belongs_to_nobody() -> None:
    fleet = build(spread(1, 1, [("A100", 1)], "idle", 0))
    assert (fleet.gpus[0].pod, fleet.gpus[0].namespace, fleet.gpus[0].container) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hosts: [{name: a, gpus: [{model: V100}]}]", "unknown model 'V100'; known are P40, T4"),
        ("hosts: [{name: a, gpus: [{model: T4, profile: lazy}]}]", "unknown profile 'lazy'"),
        ("hosts: [{name: a, gpus: [{model: T4, mig: [1g.5gb]}]}]", "this board has no MIG"),
        ("hosts: [{name: a, gpus: [{model: A100, mig: [4g.40gb, 4g.40gb]}]}]", "do not fit"),
        ("hosts: [{name: a, gpus: [{model: A100, mig: [3g.40gb, 3g.40gb, 1g.10gb]}]}]", "80 GB"),
        ("hosts: [{name: a, count: 2, gpus: [{model: T4}]}]", "appears twice"),
        ("hosts: [{name: 'a-{number}', gpus: [{model: T4}]}]", "placeholders are {index}"),
        ("hosts: [{name: a, gpus: [{model: T4, count: 33}]}]", "allowed are 1 to 32"),
        ("hosts: [{name: a, gpus: []}]", "has 0 GPUs"),
        ("hosts: []", "no hosts"),
        ("hosts: [{name: a, gpus: [{model: T4, colour: red}]}]", "`colour` - at `$.hosts[0].gpus[0]`"),
        ("hosts: [", "fleet file"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(FleetError, match=re.escape(words)):
        read(tmp_path, text)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=r"absent\.yaml"):
        load(tmp_path / "absent.yaml")


def test_more_hosts_than_gpus_is_refused() -> None:
    with pytest.raises(FleetError, match="every host needs a GPU"):
        spread(2, 3, [("T4", 1)], "idle", 0)


def test_layout_puts_instances_behind_their_gpu(tmp_path: Path) -> None:
    layout = lay_out(read(tmp_path, FILE))
    kinds = [e.instance.profile if e.instance else e.gpu.model.key for e in layout.entities[:8]]
    assert kinds == ["A100", "A100", "A100", "A100", "3g.40gb", "2g.20gb", "1g.10gb", "1g.10gb"]
    assert layout.hosts["node-01"] == slice(8, 16)
    assert layout.hosts["lone"] == slice(16, 17)
    assert layout.entity_gpus[:9].tolist() == [0, 1, 2, 3, 3, 3, 3, 3, 4]
    assert layout.unit_gpus[:8].tolist() == [0, 1, 2, 3, 3, 3, 3, 4]
    assert layout.unit_share[3:7].sum() == pytest.approx(1.0)


def test_more_models_than_gpus_is_refused() -> None:
    with pytest.raises(FleetError, match="9 GPUs, the fleet has 8: give --gpus 9"):
        spread(gpus=8, hosts=2, models=[("H100", 8), ("P40", 1)], profile="cycle", seed=0)
