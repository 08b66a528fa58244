"""The whole exporter, but for HTTP, over the fake NVML: XIDs heard, a lost GPU, a driver that hangs, hot-plug."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from services.exporter.exporter import Exporter
from services.exporter.options import add_arguments, options
from services.exporter.reading import Trouble
from services.settings import load
from tests.integration.exporter.process import WITHIN
from tests.support.fake_nvml import FakeGpu, FakeNvml
from tests.support.processes import wait_until

VALUES = {"gpu_temp": 71, "power_usage": 52.5, "fb_total": 24576, "fb_used": 54, "fb_free": 24521}


@contextmanager
def running(fake: FakeNvml, *flags: str) -> Iterator[Exporter]:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = load(exporter_source="nvml", exporter_interval=0.05, kernel_log="off", nvidia_smi="/no-such-nvidia-smi")
    with fake.installed():
        exporter = Exporter(options(parser.parse_args(flags), given))
        exporter.start(on_crash=lambda: None)
        try:
            wait_until(lambda: exporter.sampler.status().fresh, within=WITHIN, what="the first reading")
            yield exporter
        finally:
            fake.release()
            exporter.stop(within=WITHIN)
            assert exporter.sampler.crash is None


def text(exporter: Exporter) -> str:
    """What a scrape would answer."""
    status = exporter.sampler.status()
    tail = exporter.tail(status).encode()
    return (exporter.page.plain(tail) if status.fresh else tail).decode()


def until(exporter: Exporter, *parts: str) -> str:
    def there() -> bool:
        found = text(exporter)
        return all(part in found for part in parts)

    wait_until(there, within=WITHIN, what=" and ".join(parts))
    return text(exporter)


def two() -> FakeNvml:
    return FakeNvml(gpus=[FakeGpu(values=dict(VALUES)), FakeGpu(values=dict(VALUES))])


def test_values_and_info() -> None:
    with running(two()) as exporter:
        found = text(exporter)
        assert found.count("\nDCGM_FI_DEV_GPU_TEMP{") == 2
        assert found.count("\ngpumon_gpu_info{") == 2
        assert 'gpumon_exporter_info{version="' in found
        assert 'source="nvml"' in found


def test_xids_are_counted_and_zero_means_that_somebody_listens() -> None:
    fake = two()
    with running(fake) as exporter:
        until(exporter, "DCGM_FI_DEV_XID_ERRORS{")
        assert "gpumon_xid_errors_total" not in text(exporter)
        fake.xid(fake.gpus[1], 79)
        found = until(exporter, "gpumon_xid_errors_total{", 'xid="79"} 1\n')
        told = next(line for line in found.splitlines() if line.startswith("gpumon_xid_last"))
        assert 'gpu="1"' in told
        assert 'origin="nvml"' in told
        until(exporter, '"} 79\n')
        gauges = [line for line in text(exporter).splitlines() if line.startswith("DCGM_FI_DEV_XID_ERRORS{")]
        assert [line.rsplit(" ", 1)[1] for line in gauges] == ["0", "79"]


def test_a_lost_gpu_and_its_return() -> None:
    fake = two()
    with running(fake) as exporter:
        fake.gpus[1].lost = True
        found = until(exporter, 'gpumon_gpu_lost{gpu="1"', "gpumon_exporter_gpus_lost 1\n")
        assert found.count("\nDCGM_FI_DEV_GPU_TEMP{") <= 1
        assert exporter.sampler.status().fresh
        fake.gpus[1].lost = False
        until(exporter, "gpumon_exporter_gpus_lost 0\n", "gpumon_exporter_gpus 2\n")


def test_a_driver_that_hangs() -> None:
    fake = two()
    with running(fake, "--stale-after", "0.5") as exporter:
        fake.hanging.add("nvmlDeviceGetPowerUsage")

        def said() -> bool:
            return "nvml has not answered" in (exporter.sampler.status().problem or "")

        wait_until(said, within=WITHIN, what="the reason")
        found = until(exporter, "gpumon_exporter_up 0\n")
        assert "DCGM_" not in found
        assert exporter.sampler.status().failures[Trouble.HUNG] >= 1
        fake.hanging.clear()
        fake.release()
        until(exporter, "gpumon_exporter_up 1\n")
