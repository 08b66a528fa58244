"""`gpumon doctor` with programs of the test's own on the PATH: bundle, masking, time limit, exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from services.settings import child_environment

PASSWORD = "correct-horse-battery"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    directory = tmp_path / "bin"
    directory.mkdir()
    return directory


def write(directory: Path, name: str, script: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def doctor(programs: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = child_environment(PATH=f"{programs}:{os.defpath}", **settings)
    command = [sys.executable, "-m", "services", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def test_the_bundle_holds_what_was_seen_and_no_password(programs: Path, tmp_path: Path) -> None:
    write(programs, "lspci", "echo '01:00.0 3D controller [0302]: NVIDIA Corporation GP102GL [10de:1b38]'")
    write(programs, "lsmod", "echo 'nouveau 1 0'")
    write(programs, "sensors", f"echo 'PGPASSWORD={PASSWORD}'; echo k10temp; echo 'plain {PASSWORD}'")
    out = tmp_path / "logs"
    done = doctor(programs, "--out", str(out), "--json", "--offline", PGPASSWORD=PASSWORD)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert "nouveau" in {finding["check"] for finding in report["findings"]}
    (bundle,) = out.glob("*.tar.gz")
    assert str(bundle) == report["bundle"]
    assert bundle.stat().st_mode & 0o077 == 0
    with tarfile.open(bundle) as archive:
        texts = {Path(m.name).name: archive.extractfile(m).read().decode() for m in archive}  # type: ignore[union-attr]
    assert "k10temp" in texts["sensors.txt"]
    assert "nouveau" in texts["summary.txt"]
    assert not [name for name, text in texts.items() if PASSWORD in text]
    assert PASSWORD not in done.stdout + done.stderr


def test_a_program_that_hangs_costs_its_time_limit_and_nothing_else(programs: Path, tmp_path: Path) -> None:
    write(programs, "nvidia-smi", "sleep 600 & sleep 600")
    done = doctor(programs, "--no-bundle", "--offline", "--json", "--timeout", "1")
    checks = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert "no answer within 1 s" in checks["nvidia_smi_hangs"]["what"]
    left = subprocess.run(["pgrep", "-f", str(programs / "nvidia-smi")], capture_output=True, check=False)
    assert left.returncode == 1, "the program must not be left behind"


def test_what_does_not_answer_is_named_with_advice(programs: Path) -> None:
    done = doctor(
        programs, "--no-bundle", KAFKA_BOOTSTRAP="127.0.0.1:1", TIMESCALE_DSN=f"postgresql://u:{PASSWORD}@127.0.0.1:1/d"
    )
    assert done.returncode == 1
    assert "Kafka at 127.0.0.1:1" in done.stdout
    assert "TimescaleDB at 127.0.0.1:1/d" in done.stdout
    assert PASSWORD not in done.stdout + done.stderr


def test_an_unwritable_place_is_said_and_the_report_still_shown(programs: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = doctor(programs, "--out", str(file / "x"), "--offline")
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "probes" in done.stdout


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_under_sudo_the_bundle_belongs_to_who_asked(programs: Path, tmp_path: Path) -> None:
    doctor(programs, "--out", str(tmp_path), "--offline", SUDO_UID="65534", SUDO_GID="65534")
    (bundle,) = tmp_path.glob("*.tar.gz")
    assert (bundle.stat().st_uid, bundle.stat().st_gid) == (65534, 65534)
