"""XIDs from NVML's event set, on a stand-in for the library: GPUs that cannot, are lost, and come."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue
from typing import Any

import pynvml
import pytest

from services.exporter.xid import nvml_events
from services.exporter.xid.ledger import Origin
from services.exporter.xid.nvml_events import NvmlXidWatch
from services.ops.clock import SystemClock
from tests.support.fake_nvml import FakeGpu, FakeNvml
from tests.unit.exporter.xid.ledgers import LIMIT, ToldLedger

FIRST = FakeGpu(uuid="GPU-1", pci_bus_id="00000000:31:00.0")
SECOND = FakeGpu(uuid="GPU-2", pci_bus_id="00000000:4B:00.0")


class TellingWatch(NvmlXidWatch):
    """Tells a waiting test what the thread came to: the addresses listened to, or the reason."""

    def __init__(self, ledger: ToldLedger) -> None:
        super().__init__(ledger, SystemClock())
        self._told: Queue[tuple[str, ...] | str | None] = Queue()

    def _register(self, events: Any) -> None:
        super()._register(events)
        self._told.put(self.listening or self.reason)

    def _say(self, reason: str | None) -> None:
        super()._say(reason)
        if reason is not None and reason.startswith("NVML:"):
            self._told.put(reason)

    def next(self) -> tuple[str, ...] | str | None:
        return self._told.get(timeout=LIMIT)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WAIT_MS", 10), ("RETRY", 0.02), ("RETRY_LOST", 0.01)):
        monkeypatch.setattr(nvml_events, name, value)


@contextmanager
def watching(fake: FakeNvml) -> Iterator[tuple[TellingWatch, ToldLedger]]:
    ledger = ToldLedger()
    with fake.installed():
        watcher = TellingWatch(ledger)
        watcher.start()
        try:
            yield watcher, ledger
        finally:
            watcher.stop()


def test_an_xid_is_recorded_with_gpu_and_code() -> None:
    fake = FakeNvml(gpus=[FIRST, SECOND])
    with watching(fake) as (watcher, ledger):
        assert watcher.next() == ("00000000:31:00.0", "00000000:4B:00.0")
        fake.xid(SECOND, 79)
        xid = ledger.next()
        assert (xid.code, xid.pci_bus_id, xid.uuid, xid.origin) == (79, "00000000:4B:00.0", "GPU-2", Origin.NVML)
        assert (xid.pid, xid.process, xid.instance_id) == (None, None, None)
        assert watcher.reason is None
    assert fake.initialised == 0
    assert fake.calls["freed event sets"] >= 1


def test_a_gpu_without_events_is_named_and_the_others_are_heard() -> None:
    silent = FakeGpu(uuid="GPU-3", pci_bus_id="00000000:5E:00.0")
    silent.errors["nvmlDeviceGetSupportedEventTypes"] = pynvml.NVML_ERROR_NOT_SUPPORTED
    fake = FakeNvml(gpus=[FIRST, silent])
    with watching(fake) as (watcher, ledger):
        assert watcher.next() == ("00000000:31:00.0",)
        assert watcher.unsupported == {"00000000:5E:00.0": "registering for events: Not Supported"}
        fake.xid(FIRST, 31)
        assert ledger.next().code == 31


def test_no_gpu_has_events() -> None:
    silent = FakeGpu()
    silent.errors["nvmlDeviceRegisterEvents"] = pynvml.NVML_ERROR_NO_PERMISSION
    with watching(FakeNvml(gpus=[silent])) as (watcher, _):
        assert watcher.next() == "registering for events: Insufficient Permissions"


def test_a_lost_gpu_does_not_silence_the_others() -> None:
    fake = FakeNvml(gpus=[FakeGpu(uuid="GPU-9", pci_bus_id="00000000:01:00.0", lost=True), SECOND])
    with watching(fake) as (watcher, ledger):
        assert watcher.next() == ("00000000:4B:00.0",)
        fake.xid(SECOND, 48)
        assert ledger.next().code == 48


def test_the_wait_that_a_lost_gpu_ends_is_begun_again() -> None:
    fake = FakeNvml(gpus=[FIRST])
    with watching(fake) as (watcher, ledger):
        assert watcher.next() == ("00000000:31:00.0",)
        fake.errors["nvmlEventSetWait_v2"] = pynvml.NVML_ERROR_GPU_IS_LOST
        assert watcher.next() == "NVML: GPU is lost"
        del fake.errors["nvmlEventSetWait_v2"]
        while watcher.next() != ("00000000:31:00.0",) or watcher.reason is not None:
            pass
        fake.xid(FIRST, 31)
        assert ledger.next().code == 31


def test_without_a_driver_the_reason_is_kept_and_a_driver_that_comes_is_taken_up() -> None:
    fake = FakeNvml(gpus=[FIRST])
    fake.init_error = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    with watching(fake) as (watcher, _):
        assert watcher.next() == "NVML: Driver Not Loaded"
        fake.init_error = None
        while watcher.next() != ("00000000:31:00.0",):
            pass
        assert watcher.reason is None


def test_a_gpu_that_was_plugged_in_is_heard_after_release() -> None:
    fake = FakeNvml(gpus=[FIRST])
    with watching(fake) as (watcher, ledger):
        pynvml.nvmlInit()  # a source beside it
        assert watcher.next() == ("00000000:31:00.0",)
        fake.gpus.append(SECOND)
        with watcher.released() as is_released:
            assert is_released
            assert fake.initialised == 1
            pynvml.nvmlShutdown()
            pynvml.nvmlInit()
            assert pynvml.nvmlDeviceGetCount() == 2
        assert watcher.next() == ("00000000:31:00.0", "00000000:4B:00.0")
        fake.xid(SECOND, 31)
        assert ledger.next().uuid == "GPU-2"
        pynvml.nvmlShutdown()


def test_release_does_not_wait_for_ever_for_a_dead_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml_events, "RELEASE_LIMIT", 0.05)
    fake = FakeNvml(gpus=[FIRST])
    fake.hanging.add("nvmlEventSetWait_v2")
    with watching(fake) as (watcher, _):
        assert watcher.next() == ("00000000:31:00.0",)
        while not fake.calls["nvmlEventSetWait_v2"]:  # the thread is on its way there
            pass
        with watcher.released() as is_released:
            assert not is_released
        fake.release()


def test_no_gpu_at_all_is_waited_for() -> None:
    fake = FakeNvml()
    with watching(fake) as (watcher, _):
        assert watcher.next() == "NVML shows no GPU"
        fake.gpus.append(FIRST)
        while watcher.next() != ("00000000:31:00.0",):
            pass


def test_watch_starts_a_daemon() -> None:
    with FakeNvml(gpus=[FIRST]).installed():
        watcher = nvml_events.watch(ToldLedger())
        assert any(thread.name == "nvml-xid" and thread.daemon for thread in threading.enumerate())
        watcher.stop()
