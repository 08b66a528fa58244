"""`gpumon sample`: the collector's own event from this host's GPUs, one line each, and a spool where nobody answers."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from services.collector import segment
from services.collector.spool import Spool
from services.contract.sentinels import Missing
from services.exporter.choose import NeitherError
from services.exporter.reading import Device, Lost, Reading, SourceError, Sweep, Trouble
from services.host import sample
from services.host.status import make, write
from services.settings import Settings, load

P40 = Device("GPU-p40", 0, "00000000:06:00.0", "Tesla P40")
NOBODY = {"PGHOST": "127.0.0.1", "PGPORT": "1", "DESTINATION": "timescaledb", "NODE_NAME": "x1-ai"}
"""Nothing listens on port 1: the database refuses at once."""


class OneP40:
    """A source double: one card, without memory temperature, and one that fell off the bus."""

    name = "double"
    failure: SourceError | None = None
    readings: tuple[Reading, ...] = (
        Reading(
            P40,
            {"gpu_temp": 31, "power_usage": 50.125, "fb_used": 120, "fb_total": 24576},
            {"memory_temp": Missing.UNSUPPORTED},
        ),
    )

    def read(self) -> Sweep:
        if self.failure is not None:
            raise self.failure
        return Sweep(self.name, 1_795_000_000.25, self.readings, (Lost("GPU is lost", index=1, model="Tesla P40"),))

    def close(self) -> None:
        pass


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> OneP40:
    double = OneP40()
    monkeypatch.setattr(sample, "open_source", lambda _settings: double)
    monkeypatch.chdir(tmp_path)
    for name, value in NOBODY.items():
        monkeypatch.setenv(name, value)
    return double


def gpumon_sample(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    sample.add_arguments(parser)
    return sample.run(parser.parse_args(arguments), load())


@pytest.mark.usefixtures("source")
def test_a_line_for_each_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "status.json", make("bench", "gpu-burn"))
    assert gpumon_sample("--dry-run") == 0
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "x1-ai GPU 0  Tesla P40  31 C  50.1 W  - %  120/24576 MiB  [bench gpu-burn]",
        "GPU 1  Tesla P40  LOST: GPU is lost",
    ]
    assert not (tmp_path / "spool").exists()


@pytest.mark.usefixtures("source")
def test_the_event_is_the_collectors(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER", "home")
    assert gpumon_sample("--dry-run", "--json") == 0
    [event] = json.loads(capsys.readouterr().out)["events"]
    assert event["time"] == "2026-11-18T11:06:40.250000Z"
    assert event["metrics"] == {"gpu_temp": 31, "power_usage": 50.125, "fb_used": 120}
    assert event["gpu"]["uuid"] == "GPU-p40"
    assert event["gpu"]["cluster"] == "home"
    assert event["gpu"]["missing"]["memory_temp"] == "unsupported"
    assert event["source"] == "sample"


@pytest.mark.usefixtures("source")
def test_where_nobody_answers_it_is_spooled_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpumon_sample() == 0
    told = capsys.readouterr()
    assert f"-> spool {tmp_path / 'spool'}" in told.out
    assert "warning: TimescaleDB did not take 1 event (database_unreachable: " in told.err
    assert gpumon_sample("--json") == 0
    delivery = json.loads(capsys.readouterr().out)["delivery"]
    assert (delivery["_spool_reason"], delivery["spooled"]) == ("database_unreachable", 1)
    heads = [segment.read_header(path.read_bytes())[0] for path in sorted((tmp_path / "spool").glob("*.spool"))]
    assert [head and head["_spool_reason"] for head in heads] == ["database_unreachable"] * 2


@pytest.mark.usefixtures("source")
def test_beside_a_collector_it_has_a_spool_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    collector = Spool(tmp_path / "spool", 2**20)
    beside = Spool(tmp_path / "spool" / "sample-1", 2**20)
    assert gpumon_sample("--json") == 0
    assert json.loads(capsys.readouterr().out)["delivery"]["spool"] == str(tmp_path / "spool" / "sample-2")
    assert (collector.records, beside.records) == (0, 0)
    collector.close()
    beside.close()


@pytest.mark.usefixtures("source")
def test_neither_sent_nor_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spool").write_text("a file where the directory should be")
    assert gpumon_sample() == 1
    assert "SPOOL_DIR=spool: cannot be written to" in capsys.readouterr().err


def test_a_source_that_cannot_be_read(source: OneP40, capsys: pytest.CaptureFixture[str]) -> None:
    source.failure = SourceError(Trouble.NO_DRIVER, "no NVIDIA driver is loaded: run `gpumon doctor`")
    assert gpumon_sample() == 1
    assert capsys.readouterr().err == "gpumon sample: no NVIDIA driver is loaded: run `gpumon doctor`\n"


def test_a_host_without_any_source_is_told_line_by_line(source: OneP40, capsys: pytest.CaptureFixture[str]) -> None:
    nvml, smi = (SourceError(Trouble.NO_DRIVER, f"{name} is not there: install it.") for name in ("x.so", "y"))
    source.failure = NeitherError(nvml, smi)
    assert gpumon_sample() == 1
    told = capsys.readouterr().err.splitlines()
    assert told[:3] == [
        "gpumon sample: no GPU can be read",
        "  NVML: x.so is not there: install it",
        "  nvidia-smi: y is not there: install it",
    ]
    assert "gpumon doctor" in told[3]
    assert "\n" not in str(source.failure), "one line for logs"


def test_no_gpu_left(source: OneP40, capsys: pytest.CaptureFixture[str]) -> None:
    source.readings = ()
    assert gpumon_sample() == 1
    assert "GPU 1: GPU is lost" in capsys.readouterr().err


@pytest.mark.usefixtures("source")
def test_an_exporter_that_does_not_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpumon_sample("--targets", "127.0.0.1:1") == 1
    assert "127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.usefixtures("source")
def test_a_target_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpumon_sample("--targets", "no-port") == 2
    assert "neither `host:port` nor a URL" in capsys.readouterr().err


def test_the_mock_is_a_source_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exposition = sample.read_host(Settings(exporter_source="mock", node_name="mock-1"))
    assert b'Hostname="mock-1"' in exposition.body
