"""The units: right paths whatever they look like, nothing done twice, and what systemd itself says of them."""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from services.host import install_units
from services.host.install_units import COLLECTOR, EXPORTER, FLUSH, MARK, TIMER, Installation, UnitsError, render
from services.settings import load
from tests.support.golden import check_golden

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "deploy" / "systemd"
HOME = "/HOME-OF-THE-USER"


def example() -> Installation:
    directory = Path(HOME) / "gpu-health-monitor"
    return Installation((str(directory / ".venv/bin/gpumon"),), directory, directory / "spool")


def install(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    install_units.add_arguments(parser)
    return install_units.run(parser.parse_args(arguments), load())


def setting(unit: str, name: str) -> list[str]:
    return [line.partition("=")[2] for line in unit.splitlines() if line.startswith(f"{name}=")]


def test_the_examples_are_golden() -> None:
    for name, content in render(example()).items():
        check_golden(EXAMPLES / name, content.replace(HOME, "%h"))


def test_nothing_is_left_of_the_template() -> None:
    for to in (None, "kafka", "timescaledb"):
        for exporter in (True, False):
            units = render(Installation(("/x/gpumon",), Path("/p"), Path("/p/spool"), to=to, exporter=exporter))
            assert all("@" not in text.replace("@system", "") for text in units.values())
            assert (EXPORTER in units) is exporter
            assert ("Wants=" in units[COLLECTOR]) is exporter


def test_the_destination_is_where_it_was_asked_for() -> None:
    units = render(Installation(("/x/gpumon",), Path("/p"), Path("/p/spool"), to="timescaledb"))
    assert setting(units[COLLECTOR], "ExecStart") == ["/x/gpumon collector --to timescaledb"]
    assert setting(units[FLUSH], "ExecStart") == [
        "/x/gpumon spool flush --unless-running --timeout 240 --to timescaledb"
    ]


def test_the_environment_file_wins_over_the_default_target() -> None:
    unit = render(example())[COLLECTOR]
    assert unit.index("Environment=TARGETS=") < unit.index("EnvironmentFile=")


def test_back_off_only_where_systemd_knows_it() -> None:
    new, old = (
        render(Installation(("/x/gpumon",), Path("/p"), Path("/p/spool"), systemd=version))[COLLECTOR]
        for version in (254, 252)
    )
    assert "RestartSteps=5\n" in new
    assert "RestartSteps" not in old


def test_paths_with_blanks_and_percents() -> None:
    directory = Path("/srv/my lab 100% é")
    unit = render(Installation((str(directory / "gpumon"),), directory, directory / "spool"))[COLLECTOR]
    assert setting(unit, "WorkingDirectory") == ["/srv/my lab 100%% é"]
    [command] = setting(unit, "ExecStart")
    assert shlex.split(command.replace("%%", "%")) == [str(directory / "gpumon"), "collector"]


@pytest.mark.parametrize("path", ["/a\nExecStart=/bin/evil", "/a\tb", "/ends with a blank ", "/backslash\\", "/it's"])
def test_paths_no_unit_file_can_hold(path: str) -> None:
    with pytest.raises(UnitsError, match="plainer name"):
        render(Installation(("/x/gpumon",), Path(path), Path(path) / "spool"))


def test_installed_twice_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--dir", str(tmp_path / "units"), "--directory", str(tmp_path))
    assert install(*arguments) == 0
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "units").iterdir()}
    assert {path.name for path in first} == {EXPORTER, COLLECTOR, FLUSH, TIMER}
    told = capsys.readouterr().out
    assert "systemctl --user daemon-reload" in told
    assert "loginctl enable-linger" in told
    assert install(*arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "units").iterdir()} == first
    assert capsys.readouterr().out.count("unchanged") == 4
    assert (tmp_path / "spool").is_dir(), "systemd lets the units write to what is there when they start"


def test_units_of_before_are_kept(tmp_path: Path) -> None:
    (tmp_path / COLLECTOR).write_text("[Service]\nExecStart=/old/bin/collect\n")
    assert install("--dir", str(tmp_path), "--directory", str(tmp_path)) == 0
    assert "/old/bin/collect" in (tmp_path / f"{COLLECTOR}.bak").read_text()
    assert (tmp_path / COLLECTOR).read_text().startswith(MARK)


def test_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert install("--dry-run", "--dir", str(tmp_path / "units"), "--directory", str(tmp_path)) == 0
    assert list(tmp_path.iterdir()) == []
    assert f"# ==> {tmp_path / 'units' / TIMER}" in capsys.readouterr().out


def test_a_directory_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert install("--dir", str(tmp_path), "--directory", str(tmp_path / "none")) == 1
    assert "there is no such directory" in capsys.readouterr().err


def test_enable_without_a_user_manager_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    assert install("--enable", "--dir", str(tmp_path / "units"), "--directory", str(tmp_path)) == 1
    assert "systemctl --user daemon-reload" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["plain", "blanks and é", "100%n"])
def test_systemd_finds_no_fault(tmp_path: Path, name: str) -> None:
    """`systemd-analyze verify` reads the files as systemd does: unknown keys, bad paths and missing programs."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    directory = tmp_path / name
    directory.mkdir()
    (directory / "gpumon").write_text("#!/bin/sh\n")
    (directory / "gpumon").chmod(0o755)
    installation = Installation(
        (str(directory / "gpumon"),), directory, directory / "spool", systemd=install_units.systemd_version()
    )
    install_units.write(render(installation), tmp_path / "units")
    (tmp_path / "run").mkdir()
    paths = [str(tmp_path / "units" / unit) for unit in installation.names]
    done = subprocess.run(
        [program, "verify", "--user", "--man=no", *paths],
        env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path / "run"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "Failed to initialize manager" in done.stderr:
        pytest.skip(f"systemd-analyze cannot work here: {done.stderr.strip()}")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_wheel_carries_the_templates() -> None:
    """What setuptools takes as package data; building a wheel is CI's."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    kinds = {f"*{path.suffix}" for path in (ROOT / "services/host/units").iterdir() if path.suffix != ".py"}
    kinds.discard("*")
    assert kinds <= set(data)
    assert (ROOT / "services/host/units/__init__.py").is_file()
