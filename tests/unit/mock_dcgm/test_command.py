"""`gpumon mock` as a command: flags, what it prints, what it writes, how it ends."""

from __future__ import annotations

import argparse
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from mock_dcgm import command_line, run
from mock_dcgm.fleet import FleetError
from services.settings import load


def parsed(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    return parser.parse_args(flags)


def shape(*flags: str) -> list[str]:
    """Each host's boards, for example `A100 A100`."""
    return [" ".join(gpu.model.key for gpu in host.gpus) for host in command_line.fleet(parsed(*flags)).hosts]


@pytest.mark.parametrize(
    ("flags", "hosts"),
    [
        ([], ["A100 A100 A100 A100"] * 2),
        (["--hosts", "1"], ["A100 A100 A100 A100"]),
        (["--hosts", "3", "--gpus-per-host", "1", "--model", "T4"], ["T4"] * 3),
        (["--gpus", "9"], ["A100 A100 A100 A100 A100", "A100 A100 A100 A100"]),
        (["--gpus", "4", "--hosts", "2", "--model", "P40", "--model", "H100"], ["P40 P40", "H100 H100"]),
        (["--model", "H100=2", "--model", "T4=1"], ["H100 H100 T4"]),
        (["--model", "H200=16"], [" ".join(["H200"] * 8)] * 2),
        (["--model", "A100=1", "--model", "T4=3", "--gpus", "8", "--hosts", "2"], ["A100 A100 T4 T4", "T4 T4 T4 T4"]),
    ],
)
def test_flags_describe_the_fleet(flags: list[str], hosts: list[str]) -> None:
    assert shape(*flags) == hosts


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--gpus", "8", "--gpus-per-host", "4"], "--gpus and --gpus-per-host"),
        (["--fleet", "x.yaml", "--gpus-per-host", "4"], "--gpus-per-host and --fleet"),
        (["--model", "T4=many"], "--model T4=many"),
        (["--model", "K80"], "unknown model 'K80'; known are P40"),
        (["--gpus", "0"], "0 GPUs on 0 hosts"),
        (["--hosts", "9", "--gpus", "8"], "every host needs a GPU"),
    ],
)
def test_wrong_flags_are_refused(flags: list[str], words: str) -> None:
    with pytest.raises(FleetError, match=re.escape(words)):
        shape(*flags)


def test_settings_are_the_defaults_and_flags_win() -> None:
    settings = load(mock_port=1234, poll_interval=3, mock_host="::1")
    plan = command_line.plan(parsed(), settings)
    assert (plan.host, plan.port, plan.interval, plan.speed) == ("::1", 1234, 3, 1)
    plan = command_line.plan(parsed("--port", "0", "--host", "h", "--interval", "0.5", "--speed", "60"), settings)
    assert (plan.host, plan.port, plan.interval, plan.speed) == ("h", 0, 0.5, 60)
    for flags in (("--speed", "-1"), ("--interval", "0")):
        with pytest.raises(FleetError, match="speed is 0 or more, the interval above 0"):
            command_line.plan(parsed(*flags), settings)


def test_once_prints_an_exposition(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run.run(parsed("--once", "--gpus", "1", "--model", "T4"), load()) == 0
    printed = capsysbinary.readouterr().out.decode()
    assert printed.startswith("# HELP DCGM_FI_DEV_SM_CLOCK")
    assert "DCGM_FI_PROF_SM_OCCUPANCY" not in printed
    run.run(parsed("--once", "--gpus", "1", "--model", "T4", "--metrics", "all"), load())
    assert "DCGM_FI_PROF_SM_OCCUPANCY" in capsysbinary.readouterr().out.decode()


def test_wrong_input_ends_with_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fleet.yaml").write_text("hosts: [{name: a, gpus: [{model: T4}]}]\nfaults: [{kind: dbe, host: b}]\n")
    for flags in (
        ["--model", "K80"],
        ["--fleet", str(tmp_path / "none.yaml")],
        ["--fleet", str(tmp_path / "fleet.yaml")],
        ["--replay", str(tmp_path / "none.prom")],
    ):
        assert run.run(parsed(*flags), load()) == 2
        error = capsys.readouterr().err
        assert error.startswith("gpumon mock: ")
        assert error.count("\n") == 1


def test_a_taken_port_ends_with_1_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run.run(parsed("--port", str(port), "--host", "127.0.0.1"), load()) == 1
        assert capsys.readouterr().err == (
            f"gpumon mock: port {port} on 127.0.0.1 is taken: stop what listens there, "
            "or choose another with --port or MOCK_PORT\n"
        )
        settings = load(ops_port=port)
        assert run.run(parsed("--port", "0", "--host", "127.0.0.1"), settings) == 1
        assert "OPS_PORT" in capsys.readouterr().err


def test_a_targets_file_that_cannot_be_written_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "no" / "targets.json"
    assert run.run(parsed("--port", "0", "--write-targets", str(path)), load()) == 1
    assert capsys.readouterr().err == f"gpumon mock: cannot write {path}: No such file or directory\n"


def test_targets_are_prometheus_file_sd(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    run.write_targets(path, "::1", 9400, ["a", "b"])
    assert json.loads(path.read_text()) == [
        {"targets": ["[::1]:9400"], "labels": {"__metrics_path__": "/hosts/a/metrics"}},
        {"targets": ["[::1]:9400"], "labels": {"__metrics_path__": "/hosts/b/metrics"}},
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == ["targets.json"]


@pytest.mark.parametrize("replayed", [False, True])
def test_the_command_serves_what_its_targets_file_names_and_stops_on_sigterm(tmp_path: Path, replayed: bool) -> None:
    targets, recording = tmp_path / "targets.json", tmp_path / "t4.prom"
    recording.write_text("DCGM_FI_DEV_GPU_TEMP 1\n")
    source = ["--replay", str(recording)] if replayed else ["--gpus", "4", "--hosts", "2", "--interval", "0.1"]
    command = [sys.executable, "-m", "services", "mock", "--port", "0", "--write-targets", str(targets), *source]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        line = next(line for line in process.stderr if "url=" in line)
        assert re.search(r"url=http://127\.0\.0\.1:\d+/metrics", line)
        groups = json.loads(targets.read_text())
        assert len(groups) == (1 if replayed else 2)
        for group in groups:
            with urllib.request.urlopen(f"http://{group['targets'][0]}{group['labels']['__metrics_path__']}") as answer:
                assert b"DCGM_FI_DEV_GPU_TEMP" in answer.read()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
