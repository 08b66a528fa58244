"""Live readings: what is seen, and what is said when nothing can be."""

from __future__ import annotations

import threading

import pytest

from services.contract.sentinels import Missing
from services.exporter.reading import Device, Lost, Reading, SourceError, Sweep, Trouble
from services.host.live import Eye, LiveError, Look, Monitor, SourceEye, default_exporter, is_mock, read_at
from services.host.series import Sample
from services.host.telemetry import Gpu
from services.settings import load

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
    (b"DCGM_FI_DEV_GPU_TEMP 1\n", 1763790005.0),
])  # fmt: skip
def test_when_an_exporter_read(body: bytes, expected: float) -> None:
    assert read_at(body, 1763790005.0) == expected


@pytest.mark.parametrize("told", ["1e300", "-1e300", "NaN", "+Inf", "0", "1763786400", "1763793610", "yesterday"])
def test_a_time_that_is_none(told: str) -> None:
    """An hour from now at most; and never an error of another kind, whatever is said."""
    with pytest.raises(ValueError, match=r"."):
        read_at(f"gpumon_exporter_reading_timestamp_seconds {told}\n".encode(), 1763790005.0)


def test_an_exporter_that_simulates_says_so() -> None:
    assert is_mock(b'x 1\ngpumon_exporter_info{version="0.3.0",source="mock"} 1\n')
    assert not is_mock(b'gpumon_exporter_info{version="0.3.0",source="nvml"} 1\nother{source="mock"} 1\n')


@pytest.mark.parametrize(("host", "url"), [
    ("127.0.0.1", "http://127.0.0.1:9411/metrics"), ("0.0.0.0", "http://127.0.0.1:9411/metrics"),
    ("", "http://127.0.0.1:9411/metrics"), ("::", "http://[::1]:9411/metrics"), ("gpu-7", "http://gpu-7:9411/metrics"),
])  # fmt: skip
def test_the_exporter_of_this_host_is_where_it_was_told_to_listen(host: str, url: str) -> None:
    assert default_exporter(load(exporter_host=host, exporter_port=9411)) == url


class FakeEye:
    name = "fake"

    def __init__(self, *looks: list[Look] | Exception) -> None:
        self.left = list(looks)
        self.done = threading.Event()
        self.closed = 0

    def look(self) -> list[Look]:
        if not self.left:
            self.done.set()
            raise LiveError("no more")
        answer = self.left.pop(0)
        if isinstance(answer, Exception):
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


def test_an_error_nobody_expected_does_not_end_the_watch() -> None:
    """A thread that died would leave the limit unwatched without a word."""
    eye = FakeEye([look(1, 40)], OverflowError("timestamp out of range"), [look(2, 41)])
    assert len(watched(eye).telemetry().series["GPU-1"]) == 2

    class Broken(FakeEye):
        def close(self) -> None:
            self.done.set()
            raise OSError("closed twice")

    monitor = Monitor(lambda: Broken(OverflowError("timestamp out of range")), interval=0.001)
    monitor.start(5.0)
    assert monitor.state().problem == "OverflowError: timestamp out of range"
    monitor.stop()


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
