"""The units: right paths whatever they look like, nothing done twice, and what systemd itself says of them."""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
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


def units_of(home: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, str]:
    monkeypatch.setenv("HOME", str(home))
    assert install("--dir", str(home / "units"), *arguments) == 0
    return {path.name: path.read_text() for path in (home / "units").iterdir()}


def test_no_path_has_dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd refuses `..`, and leaves the setting out."""
    project = tmp_path / "project"
    (project / "sub").mkdir(parents=True)
    monkeypatch.chdir(project / "sub")
    monkeypatch.setenv("SPOOL_DIR", "../elsewhere/./spool")
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / ".." / "bin" / "python"))
    unit = units_of(tmp_path, monkeypatch, "--project", "..")[COLLECTOR]
    assert setting(unit, "WorkingDirectory") == [str(project)]
    assert setting(unit, "EnvironmentFile") == [f"-{project}/.env"]
    assert f"-{tmp_path}/elsewhere/spool" in setting(unit, "ReadWritePaths")
    assert setting(unit, "ExecStart") == [f"{tmp_path}/bin/python -m services collector"]
    assert (tmp_path / "elsewhere/spool").is_dir()


def test_dots_behind_a_link_lead_where_the_kernel_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/sub")
    unit = units_of(tmp_path, monkeypatch, "--project", str(tmp_path / "link" / ".."))[COLLECTOR]
    assert setting(unit, "WorkingDirectory") == [str((tmp_path / "real").resolve())]


def test_a_link_stays_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "release-7").mkdir()
    (tmp_path / "current").symlink_to("release-7")
    unit = units_of(tmp_path, monkeypatch, "--project", str(tmp_path / "current"))[COLLECTOR]
    assert setting(unit, "WorkingDirectory") == [str(tmp_path / "current")]


def test_a_spool_of_a_name_no_unit_file_can_hold_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPOOL_DIR", "spool\nExecStart=/bin/evil")
    assert install("--dir", str(tmp_path / "units"), "--project", str(tmp_path)) == 1
    assert "plainer name" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def user_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where systemd looks for the units of the user, whose home is `tmp_path`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".config/systemd/user"


def test_installed_twice_changes_nothing(tmp_path: Path, user_units: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--project", str(tmp_path))
    assert install(*arguments) == 0
    first = {path: path.stat().st_mtime_ns for path in user_units.iterdir()}
    assert {path.name for path in first} == {EXPORTER, COLLECTOR, FLUSH, TIMER}
    told = capsys.readouterr().out
    assert "systemctl --user daemon-reload" in told
    assert "loginctl enable-linger" in told
    assert install(*arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in user_units.iterdir()} == first
    assert capsys.readouterr().out.count("unchanged") == 4
    assert (tmp_path / "spool").is_dir(), "systemd lets the units write to what is there when they start"


def test_units_of_before_are_kept(tmp_path: Path) -> None:
    (tmp_path / COLLECTOR).write_text("[Service]\nExecStart=/old/bin/collect\n")
    assert install("--dir", str(tmp_path), "--project", str(tmp_path)) == 0
    assert "/old/bin/collect" in (tmp_path / f"{COLLECTOR}.bak").read_text()
    assert (tmp_path / COLLECTOR).read_text().startswith(MARK)


def test_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert install("--dry-run", "--dir", str(tmp_path / "units"), "--project", str(tmp_path)) == 0
    assert list(tmp_path.iterdir()) == []
    assert f"# ==> {tmp_path / 'units' / TIMER}" in capsys.readouterr().out


def test_a_directory_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert install("--dir", str(tmp_path), "--project", str(tmp_path / "none")) == 1
    assert "there is no such directory" in capsys.readouterr().err


@pytest.mark.usefixtures("user_units")
def test_elsewhere_they_are_to_be_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--dir", str(tmp_path / "units"), "--project", str(tmp_path))
    assert install(*arguments) == 0
    told = capsys.readouterr().out
    assert "written to look at; without --dir they go to ~/.config/systemd/user" in told
    assert "systemctl" not in told, "it would not find them there"
    assert install("--enable", *arguments) == 1
    assert "leave out --dir" in capsys.readouterr().err


@pytest.mark.usefixtures("user_units")
def test_enable_without_a_user_manager_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    assert install("--enable", "--project", str(tmp_path)) == 1
    assert "systemctl --user daemon-reload" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["plain", "blanks and é", "100%n"])
def test_systemd_finds_no_fault(tmp_path: Path, name: str) -> None:
    """`systemd-analyze verify` reads the files as systemd does: unknown keys, bad paths and missing programs."""
    directory = tmp_path / name
    directory.mkdir()
    (directory / "gpumon").write_text("#!/bin/sh\n")
    (directory / "gpumon").chmod(0o755)
    installation = Installation(
        (str(directory / "gpumon"),), directory, directory / "spool", systemd=install_units.systemd_version()
    )
    install_units.write(render(installation), tmp_path / "units")
    assert_no_fault(tmp_path)


def test_systemd_finds_no_fault_where_dots_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project" / "sub").mkdir(parents=True)
    (tmp_path / "project" / "gpumon").write_text("#!/bin/sh\n")
    (tmp_path / "project" / "gpumon").chmod(0o755)
    monkeypatch.chdir(tmp_path / "project" / "sub")
    monkeypatch.setenv("SPOOL_DIR", "../spool")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "project" / "sub" / ".." / "python"))
    units_of(tmp_path, monkeypatch, "--project", "..")
    assert_no_fault(tmp_path)


def assert_no_fault(tmp_path: Path) -> None:
    """Of the units in `tmp_path/units`."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    (tmp_path / "run").mkdir()
    paths = sorted(map(str, (tmp_path / "units").iterdir()))
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
