"""Live readings: what is seen, and what is said when nothing can be."""

from __future__ import annotations

import threading

import pytest

from services.contract.sentinels import Missing
from services.exporter.reading import Device, Lost, Reading, SourceError, Sweep, Trouble
from services.host.live import Eye, LiveError, Look, Monitor, SourceEye, read_at
from services.host.series import Sample
from services.host.telemetry import Gpu

P40 = Device("GPU-1", 0, "00000000:01:00.0", "Tesla P40")


class FakeSource:
    """Gives one sweep after another; an error is raised."""

    name = "nvml"

    def __init__(self, *sweeps: Sweep | SourceError) -> None:
        self._sweeps = list(sweeps)

    def read(self) -> Sweep:
        sweep = self._sweeps.pop(0)
        if isinstance(sweep, SourceError):
            raise sweep
        return sweep

    def close(self) -> None: ...


def reading(temp: int, device: Device = P40) -> Reading:
    values = {"gpu_temp": temp, "power_usage": 50.2, "slowdown_temp": 95}
    return Reading(device, values, {"memory_temp": Missing.UNSUPPORTED})


def test_what_a_source_reads() -> None:
    eye = SourceEye(FakeSource(Sweep("nvml", 100.0, (reading(40),))))
    assert eye.look() == [Look(Gpu("GPU-1", 0, "Tesla P40"), Sample(100.0, 40, 50.2), 95)]


def test_a_gpu_cut_into_instances_is_one_gpu() -> None:
    instance = Device("GPU-1", 0, P40.pci_bus_id, P40.model, 3, "1g.5gb")
    eye = SourceEye(FakeSource(Sweep("nvml", 100.0, (reading(41, instance), reading(40)))))
    assert [look.sample.temp for look in eye.look()] == [40]


def test_all_gpus_lost() -> None:
    eye = SourceEye(FakeSource(Sweep("nvml", 100.0, (), (Lost("GPU is lost", index=0),))))
    with pytest.raises(LiveError, match="nvml: GPU 0: GPU is lost"):
        eye.look()


def test_a_source_that_fails() -> None:
    eye = SourceEye(FakeSource(SourceError(Trouble.MISMATCH, "driver mismatch; reboot")))
    with pytest.raises(LiveError, match="nvml: driver mismatch; reboot"):
        eye.look()


@pytest.mark.parametrize(("body", "expected"), [
    (b"x 1\ngpumon_exporter_reading_timestamp_seconds 1763790000.123\ny 2\n", 1763790000.123),
    (b"gpumon_exporter_reading_timestamp_seconds 1.763790000e+09\n", 1763790000.0),
    (b"DCGM_FI_DEV_GPU_TEMP 1\n", 5.0),
])  # fmt: skip
def test_when_an_exporter_read(body: bytes, expected: float) -> None:
    assert read_at(body, 5.0) == expected


class FakeEye:
    name = "fake"

    def __init__(self, *looks: list[Look] | LiveError) -> None:
        self.left = list(looks)
        self.done = threading.Event()
        self.closed = 0

    def look(self) -> list[Look]:
        if not self.left:
            self.done.set()
            raise LiveError("no more")
        answer = self.left.pop(0)
        if isinstance(answer, LiveError):
            raise answer
        return answer

    def close(self) -> None:
        self.closed += 1


def look(time: float, temp: float, uuid: str = "GPU-1", index: int = 0) -> Look:
    return Look(Gpu(uuid, index), Sample(time, temp))


def watched(eye: FakeEye) -> Monitor:
    monitor = Monitor(lambda: eye, interval=0.001)
    monitor.start(5.0)
    assert eye.done.wait(5)
    monitor.stop()
    return monitor


def test_all_samples_are_kept_once() -> None:
    eye = FakeEye([look(1, 40)], [look(1, 40)], [look(2, 41)])
    monitor = watched(eye)
    assert monitor.telemetry().series == {"GPU-1": [Sample(1, 40), Sample(2, 41)]}
    assert monitor.temperatures("GPU-1", 1) == [41]
    assert monitor.state().problem == "no more"


def test_a_failure_is_told_and_the_next_reading_opens_again() -> None:
    eye = FakeEye([look(1, 40)], LiveError("gone"), [look(2, 41)])
    monitor = watched(eye)
    assert len(monitor.telemetry().series["GPU-1"]) == 2
    assert eye.closed >= 1
    assert monitor.state().readings == 2


def test_a_lost_gpu_is_no_longer_shown_but_its_samples_stay() -> None:
    eye = FakeEye([look(1, 40), look(1, 50, "GPU-2", 1)], [look(2, 41)])
    monitor = watched(eye)
    assert [look.gpu.uuid for look in monitor.state().looks] == ["GPU-1"]
    assert set(monitor.telemetry().series) == {"GPU-1", "GPU-2"}


def test_nothing_to_open() -> None:
    def no_eye() -> Eye:
        raise LiveError("no driver")

    monitor = Monitor(no_eye, interval=0.001)
    monitor.start(5.0)
    monitor.stop()
    assert monitor.state().age is None
    assert monitor.telemetry().problem == "no live readings: no driver"
