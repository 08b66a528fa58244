"""GPUs on the PCI bus, from a sysfs that is a directory of the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.exporter.nvml.pci import PciBus, PciWatch, canonical
from tests.support.fake_nvml import pci_tree, unplug

ADDRESS = "00000000:C1:00.0"


def test_gpus_with_and_without_display(tmp_path: Path) -> None:
    pci_tree(tmp_path, ["00000000:01:00.0"], pci_class="0x030000")
    bus = pci_tree(tmp_path, [ADDRESS])
    assert PciWatch(bus).look() == PciBus(frozenset({"00000000:01:00.0", ADDRESS}))


def test_everything_else_is_not_a_gpu(tmp_path: Path) -> None:
    pci_tree(tmp_path, ["00000000:01:00.1"], driver="snd_hda_intel", pci_class="0x040300")
    bus = pci_tree(tmp_path, ["00000000:02:00.0"], pci_class="0x068000")  # NVSwitch
    other = pci_tree(tmp_path, ["00000000:03:00.0"], driver="amdgpu") / "0000:03:00.0"
    (other / "vendor").write_text("0x1002\n")
    (bus / "0000:04:00.0").mkdir()
    (bus / "0000:05:00.0").mkdir()
    (bus / "0000:05:00.0" / "vendor").write_text("nonsense")
    assert PciWatch(bus).look() == PciBus(frozenset())


def test_what_is_known_is_not_read_again(tmp_path: Path) -> None:
    bus = pci_tree(tmp_path, [ADDRESS])
    watch = PciWatch(bus)
    watch.look()
    (bus / "0000:c1:00.0" / "vendor").unlink()
    assert watch.look().gpus == {ADDRESS}
    (bus / "0000:c1:00.0" / "vendor").touch()
    unplug(bus, ADDRESS)
    assert watch.look().gpus == frozenset()
    pci_tree(tmp_path, [ADDRESS], pci_class="0x040300")  # another device in its place
    assert watch.look().gpus == frozenset()


def test_a_driver_that_comes_and_goes(tmp_path: Path) -> None:
    bus = pci_tree(tmp_path, [ADDRESS])
    watch = PciWatch(bus)
    (bus / "0000:c1:00.0" / "driver").unlink()
    assert watch.look() == PciBus(frozenset(), frozenset({ADDRESS}))
    (bus / "0000:c1:00.0" / "driver").symlink_to(tmp_path / "drivers/nvidia")
    assert watch.look() == PciBus(frozenset({ADDRESS}))


def test_no_sysfs(tmp_path: Path) -> None:
    assert PciWatch(tmp_path / "nothing").look() == PciBus(frozenset())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("0000:c1:00.0", ADDRESS), ("00000000:C1:00.0", ADDRESS), (" 00000000:c1:00.0\n", ADDRESS),
        ("10000:e1:00.0", "00010000:E1:00.0"), ("odd", "ODD"),
    ],
)  # fmt: skip
def test_addresses_as_dcgm_writes_them(given: str, expected: str) -> None:
    assert canonical(given) == expected
