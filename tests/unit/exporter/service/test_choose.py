"""Which source is taken, and what is said where none can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.exporter.choose import Hooks, open_source
from services.exporter.reading import SourceError, Trouble
from services.settings import Settings, load
from tests.support.fake_nvml import FakeGpu, FakeNvml
from tests.support.fake_smi import FakeSmi

VALUES = {"gpu_temp": 71, "power_usage": 52.5}


def settings(smi: str = "/no-such-nvidia-smi", source: str = "auto") -> Settings:
    return load(nvidia_smi=smi, exporter_source=source, node_name="dock")


def test_nvml_first(tmp_path: Path) -> None:
    fake = FakeNvml(gpus=[FakeGpu(values=dict(VALUES))])
    with fake.installed():
        source = open_source(settings(FakeSmi(tmp_path).program))
        assert source.name == "nvml"
        assert source.read().readings[0].values["gpu_temp"] == 71
        source.close()


def test_nvidia_smi_where_the_library_cannot_be_loaded(tmp_path: Path) -> None:
    fake = FakeNvml(gpus=[])
    fake.load_error = True
    with fake.installed():
        source = open_source(settings(FakeSmi(tmp_path).program))
        assert source.name == "nvidia-smi"
        sweep = source.read()
        assert sweep.source == "nvidia-smi"
        assert sweep.readings[0].device.model == "Tesla P40"
        source.close()


def test_neither_names_both_and_what_to_do() -> None:
    fake = FakeNvml(gpus=[])
    fake.load_error = True
    with fake.installed(), pytest.raises(SourceError) as raised:
        open_source(settings()).read()
    assert raised.value.trouble is Trouble.NO_DRIVER
    text = str(raised.value)
    assert text.startswith("NVML: ")
    assert "; nvidia-smi: " in text
    assert "/no-such-nvidia-smi" in text
    assert "gpumon doctor" in text


def test_what_is_asked_for_is_not_replaced(tmp_path: Path) -> None:
    fake = FakeNvml(gpus=[])
    fake.load_error = True
    with fake.installed(), pytest.raises(SourceError):
        open_source(settings(FakeSmi(tmp_path).program, "nvml")).read()


def test_documents_of_nvidia_smi_are_handed_on(tmp_path: Path) -> None:
    seen: list[bytes] = []
    source = open_source(settings(FakeSmi(tmp_path).program, "nvidia-smi"), hooks=Hooks(on_document=seen.append))
    source.read()
    assert b"<nvidia_smi_log>" in seen[0]


def test_mock() -> None:
    source = open_source(settings(source="mock"))
    assert source.name == "mock"
    assert [r.device.model for r in source.read().readings] == ["NVIDIA A100-SXM4-80GB"] * 8


def test_mock_of_the_boards_that_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPORTER_MOCK", "P40=1, H100=2")
    readings = open_source(settings(source="mock")).read().readings
    assert [(r.device.index, r.device.model) for r in readings] == [
        (0, "Tesla P40"), (1, "NVIDIA H100 80GB HBM3"), (2, "NVIDIA H100 80GB HBM3"),
    ]  # fmt: skip
