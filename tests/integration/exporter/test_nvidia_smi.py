"""The exporter on a program that answers as nvidia-smi does: values, hangs, losses, documents."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.integration.exporter.process import ExporterProcess
from tests.support.fake_smi import FakeSmi, fixture


def exporter(directory: Path, smi: FakeSmi, *flags: str, **environment: str) -> ExporterProcess:
    given = {"NVIDIA_SMI": smi.program} | environment
    return ExporterProcess(directory, "--source", "nvidia-smi", *flags, **given)


def test_a_p40_shows_what_it_has(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path)
    smi.set("temperature/gpu_temp", "83 C", gpu=0)
    with exporter(tmp_path, smi) as running:
        text = running.ready().get()[1]
        assert 'modelName="Tesla P40"' in text
        assert [line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith("DCGM_FI_DEV_GPU_TEMP{")] == [
            "83"
        ]
        assert "DCGM_FI_DEV_MEMORY_TEMP{" not in text
        assert 'field="DCGM_FI_DEV_MEMORY_TEMP",reason="unsupported"} 1' in text
        smi.set("temperature/gpu_temp", "84 C", gpu=0)
        running.until(lambda: "} 84\n" in running.get()[1], "the new temperature")


def test_a_lost_gpu_is_named_and_the_other_goes_on(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path, xml=fixture("h100-pair"))
    with exporter(tmp_path, smi) as running:
        text = running.ready().get()[1]
        lost = next(line for line in text.splitlines() if line.startswith('DCGM_FI_DEV_GPU_TEMP{gpu="1"'))
        uuid = lost.split('UUID="')[1].split('"')[0]
        smi.lose(gpu=1)
        running.until(lambda: "gpumon_gpu_lost{" in running.get()[1], "the loss")
        text = running.get()[1]
        told = next(line for line in text.splitlines() if line.startswith("gpumon_gpu_lost{"))
        assert f'UUID="{uuid}"' in told
        assert "GPU is lost" in told
        assert 'DCGM_FI_DEV_GPU_TEMP{gpu="0"' in text
        assert 'DCGM_FI_DEV_GPU_TEMP{gpu="1"' not in text
        assert running.get("/health") == (200, "OK")
        smi.heal()
        running.until(lambda: "gpumon_gpu_lost{" not in running.get()[1], "its return")


def test_a_hung_program_holds_up_no_scrape(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path)
    with exporter(tmp_path, smi, "--stale-after", "1", NVIDIA_SMI_TIMEOUT="60") as running:
        running.ready()
        smi.hang()
        running.until(lambda: running.get("/health")[0] == 503, "stale readings")
        assert "has not answered" in running.get("/health")[1] or "reading is" in running.get("/health")[1]
        text = running.get()[1]
        assert "DCGM_" not in text
        assert "gpumon_exporter_up 0\n" in text
        running.signal(signal.SIGTERM)
        assert running.ended() == 0


def test_trouble_passes(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path)
    smi.no_driver()
    with exporter(tmp_path, smi) as running:
        running.until(lambda: 'no_driver"} 0' not in running.get()[1], "a failure counted")
        assert running.get("/health")[0] == 503
        smi.heal()
        running.until(lambda: running.get("/health") == (200, "OK"), "recovery")
        assert "GPUs are read" in running.log


@pytest.mark.parametrize("how", ["garbage", "mismatch", "no_permission"])
def test_once_says_what_is_wrong(tmp_path: Path, how: str) -> None:
    smi = FakeSmi(tmp_path)
    getattr(smi, how)()
    with exporter(tmp_path, smi, "--once") as running:
        assert running.ended() == 1
        assert "gpumon exporter: " in running.log
        assert "Traceback" not in running.log


def test_documents_of_snapshot(tmp_path: Path) -> None:
    smi = FakeSmi(tmp_path, xml=fixture("h100-pair"))
    with exporter(tmp_path, smi, NODE_NAME="dock") as running:
        running.ready()
        running.until(lambda: "gpumon_snapshot_timestamp_seconds " in running.get()[1], "documents")
        body = json.loads(running.get("/snapshot")[1])
        assert body["hostname"] == "dock"
        assert len(body["documents"]) == 2
        document = body["documents"][0]
        assert document.keys() == {"gpu_uuid", "time", "hash", "content"}
        assert document["time"].endswith("Z")
        assert len(document["time"]) == len("2026-01-01T00:00:00.000Z")
        assert document["content"]["format"] == "nvidia-smi-xml"
        assert document["content"]["xml"].count("<gpu ") == 1
        assert document["gpu_uuid"] in document["content"]["xml"]
