"""GPUs that come and go: NVML is initialised again when the PCI bus says so, and not all the time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pynvml
import pytest

from services.exporter.nvml.known import NO_DRIVER, NOT_LISTED, UNPLUGGED, UNSEEN
from services.exporter.nvml.source import RETRY_FIRST, RETRY_MAX, NvmlSource
from services.exporter.reading import Lost, SourceError, Trouble
from tests.support.fake_nvml import FakeNvml, pci_tree, unplug
from tests.unit.exporter.nvml.boxes import FakeClock, hopper, opened

FIRST, SECOND, THIRD = (f"00000000:0{number}:00.0" for number in (1, 2, 3))
MODEL = "NVIDIA H100 80GB HBM3"


def inits(fake: FakeNvml) -> int:
    return fake.calls["nvmlInitWithFlags"]


def test_a_gpu_that_is_plugged_in_is_read_at_the_next_sweep(tmp_path: Path) -> None:
    bus = pci_tree(tmp_path, [FIRST])
    with opened(hopper(0), pci=bus) as (fake, source):
        assert len(source.read().readings) == 1
        fake.gpus.append(hopper(1))
        pci_tree(tmp_path, [SECOND])
        sweep = source.read()
        assert [reading.device.uuid for reading in sweep.readings] == ["GPU-0", "GPU-1"]
        assert sweep.lost == ()
        for _ in range(5):
            source.read()
        assert inits(fake) == 2


def test_indices_move_when_a_gpu_is_plugged_in_before_another(tmp_path: Path) -> None:
    bus = pci_tree(tmp_path, [SECOND])
    with opened(hopper(1), pci=bus) as (fake, source):
        source.read()
        fake.gpus.append(hopper(0))
        pci_tree(tmp_path, [FIRST])
        readings = source.read().readings
        assert [(reading.device.index, reading.device.uuid) for reading in readings] == [(0, "GPU-0"), (1, "GPU-1")]


def test_a_gpu_that_is_unplugged_is_lost_and_the_rest_is_read(tmp_path: Path) -> None:
    bus, gpu = pci_tree(tmp_path, [FIRST, SECOND]), hopper(0)
    with opened(gpu, hopper(1), pci=bus) as (fake, source):
        source.read()
        fake.gpus.remove(gpu)
        unplug(bus, FIRST)
        for _ in range(3):
            sweep = source.read()
            assert [(reading.device.index, reading.device.uuid) for reading in sweep.readings] == [(0, "GPU-1")]
            assert sweep.lost == (Lost(UNPLUGGED, "GPU-0", None, FIRST, MODEL),)  # index 0 is another's now
        assert inits(fake) == 2
        fake.gpus.append(gpu)
        pci_tree(tmp_path, [FIRST])
        sweep = source.read()
        assert (len(sweep.readings), sweep.lost) == (2, ())


def test_a_gpu_in_another_slot_is_the_same_gpu(tmp_path: Path) -> None:
    bus, gpu = pci_tree(tmp_path, [FIRST]), hopper(0)
    with opened(gpu, pci=bus) as (_, source):
        source.read()
        unplug(bus, FIRST)
        gpu.lost = True
        source.read()
        gpu.lost, gpu.pci_bus_id = False, THIRD
        pci_tree(tmp_path, [THIRD])
        sweep = source.read()
        assert [reading.device.pci_bus_id for reading in sweep.readings] == [THIRD]
        assert sweep.lost == ()


def test_on_the_bus_and_not_in_nvml(tmp_path: Path) -> None:
    clock, bus = FakeClock(), pci_tree(tmp_path, [FIRST, SECOND])
    with opened(hopper(0), pci=bus, clock=clock) as (fake, source):
        source.read()
        sweep = source.read()
        assert len(sweep.readings) == 1
        assert sweep.lost == (Lost(UNSEEN, pci_bus_id=SECOND),)
        assert inits(fake) == 2


def test_attempts_become_rare(tmp_path: Path) -> None:
    clock, bus = FakeClock(), pci_tree(tmp_path, [FIRST, SECOND])
    with opened(hopper(0), pci=bus, clock=clock) as (fake, source):
        for _ in range(3600):
            source.read()
            clock.now += 1
        first = inits(fake)
        assert 8 <= first <= 15
        for _ in range(3600):
            source.read()
            clock.now += 1
        assert inits(fake) - first == 3600 // RETRY_MAX


def test_a_lost_gpu_is_tried_later_and_comes_back_when_nvml_is_initialised_again() -> None:
    clock, gpu = FakeClock(), hopper(1)
    with opened(hopper(0), gpu, clock=clock) as (fake, source):
        source.read()
        gpu.lost = True
        source.read()
        source.read()
        assert inits(fake) == 1  # not at once: the others would pay
        clock.now += RETRY_FIRST
        source.read()
        assert inits(fake) == 2


def test_a_gpu_without_a_driver_is_told(tmp_path: Path) -> None:
    bus = pci_tree(tmp_path, [FIRST])
    pci_tree(tmp_path, [SECOND], driver=None)
    with opened(hopper(0), pci=bus) as (fake, source):
        for _ in range(3):
            assert source.read().lost == (Lost(NO_DRIVER, pci_bus_id=SECOND),)
        assert inits(fake) == 1  # which would not help


@pytest.mark.parametrize("driver", ["vfio-pci", "nouveau"])
def test_a_gpu_of_another_driver_is_not_ours(tmp_path: Path, driver: str) -> None:
    bus = pci_tree(tmp_path, [FIRST])
    pci_tree(tmp_path, [SECOND], driver=driver)
    with opened(hopper(0), pci=bus) as (_, source):
        assert source.read().lost == source.read().lost == ()


def test_in_a_container_the_hosts_other_gpus_are_not_ours(tmp_path: Path) -> None:
    bus = pci_tree(tmp_path, [FIRST, SECOND])
    (tmp_path / "driver/nvidia/gpus" / "0000:01:00.0").mkdir(parents=True)
    with opened(hopper(0), pci=bus, proc=tmp_path) as (fake, source):
        assert source.read().lost == source.read().lost == ()
        assert inits(fake) == 1


def test_a_bus_that_cannot_be_seen_changes_nothing() -> None:
    with opened(hopper(0)) as (fake, source):
        for _ in range(3):
            sweep = source.read()
            assert (len(sweep.readings), sweep.lost) == (1, ())
        assert inits(fake) == 1


def test_a_gpu_that_nvml_stops_to_list() -> None:
    gpu = hopper(1)
    with opened(hopper(0), gpu) as (fake, source):
        source.read()
        fake.gpus.remove(gpu)
        source.close()
        assert source.read().lost == (Lost(NOT_LISTED, "GPU-1", 1, SECOND, MODEL),)


def test_the_address_of_a_gpu_that_was_never_read_is_known_from_its_place_on_the_bus(tmp_path: Path) -> None:
    bus = pci_tree(tmp_path, [FIRST, SECOND, THIRD])
    with opened(hopper(0), hopper(1, lost=True), hopper(2), pci=bus) as (_, source):
        assert source.read().lost == (Lost("GPU is lost", index=1, pci_bus_id=SECOND),)


def test_a_lost_gpu_is_not_told_twice(tmp_path: Path) -> None:
    """NVML counts one it cannot name, the bus has one it does not list, and another it never will."""
    bus = pci_tree(tmp_path, [FIRST, SECOND, THIRD])
    with opened(hopper(0), hopper(1, lost=True), pci=bus) as (_, source):
        lost = source.read().lost
    assert lost == (Lost("GPU is lost", index=1), Lost(UNSEEN, pci_bus_id=THIRD))


def test_the_last_gpu_unplugged(tmp_path: Path) -> None:
    bus, gpu = pci_tree(tmp_path, [FIRST]), hopper(0)
    with opened(gpu, pci=bus) as (fake, source):
        source.read()
        fake.gpus.clear()
        unplug(bus, FIRST)
        assert source.read().lost == (Lost(UNPLUGGED, "GPU-0", 0, FIRST, MODEL),)


def test_a_driver_that_cannot_be_initialised_again_is_an_error_until_it_can(tmp_path: Path) -> None:
    bus = pci_tree(tmp_path, [FIRST])
    with opened(hopper(0), pci=bus) as (fake, source):
        source.read()
        pci_tree(tmp_path, [SECOND])
        fake.init_error = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
        for _ in range(2):
            with pytest.raises(SourceError) as caught:
                source.read()
            assert caught.value.trouble is Trouble.NO_DRIVER
        fake.init_error = None
        assert len(source.read().readings) == 1


@pytest.mark.parametrize("lets_go", [True, False])
def test_others_that_hold_nvml_are_asked_to_let_go(tmp_path: Path, lets_go: bool) -> None:
    """NVML looks for GPUs only when nobody in the process holds it."""
    fake = FakeNvml([hopper(0)])

    @contextmanager
    def released() -> Iterator[bool]:
        if lets_go:
            pynvml.nvmlShutdown()
        yield lets_go
        if lets_go:
            pynvml.nvmlInit()

    with fake.installed():
        pynvml.nvmlInit()  # the other one
        source = NvmlSource(clock=FakeClock(), pci=pci_tree(tmp_path, [FIRST]), released=released)
        source.read()
        fake.gpus.append(hopper(1))
        pci_tree(tmp_path, [SECOND])
        sweep = source.read()
        assert len(sweep.readings) == 1 + lets_go
        assert inits(fake) == (4 if lets_go else 2)  # in vain, it would only cost the others their history
        assert sweep.lost == (() if lets_go else (Lost(UNSEEN, pci_bus_id=SECOND),))
        source.close()
        assert fake.initialised == 1
