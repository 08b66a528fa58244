"""Flags over settings."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from services.exporter.options import Options, OptionsError, add_arguments, address, options
from services.settings import Settings, SettingsError, load


def parsed(*flags: str, **environment: Any) -> Options:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return options(parser.parse_args(flags), load(**environment))


def settings(*flags: str, **environment: Any) -> Settings:
    return parsed(*flags, **environment).settings


def test_without_flags_the_settings_hold() -> None:
    given = settings(exporter_port=9500, exporter_interval=2.0, exporter_source="mock", exporter_kubernetes=True)
    assert (given.exporter_port, given.exporter_interval, given.exporter_source) == (9500, 2.0, "mock")
    assert given.exporter_kubernetes
    assert given.exporter_host == "127.0.0.1"


def test_flags_in_dcgm_exporters_spelling() -> None:
    given = settings("-f", "/x.csv", "-a", ":9401", "-c", "2500", "-k", "--web-config-file", "/w.yml", exporter_port=1)
    assert given.exporter_collectors == Path("/x.csv")
    assert (given.exporter_host, given.exporter_port) == ("", 9401)
    assert given.exporter_interval == 2.5
    assert given.exporter_kubernetes
    assert given.web_config_file == Path("/w.yml")


def test_flags_of_our_own() -> None:
    given = settings(
        "--source", "nvml", "--interval", "3", "--stale-after", "30", "--prefix", "entrenar", "--processes"
    )
    assert (given.exporter_source, given.exporter_interval, given.exporter_stale_after) == ("nvml", 3.0, 30.0)
    assert (given.exporter_prefix, given.exporter_processes) == ("entrenar", True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":9400", ("", 9400)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[::1]:9400", ("::1", 9400)),
        ("gpu-7:0", ("gpu-7", 0)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert address(text) == expected


@pytest.mark.parametrize("text", ["9400", "host", "host:", ":x", ":70000", "::1:9400", ":-1", ""])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(OptionsError, match=r"expected \[HOST\]:PORT"):
        address(text)


def test_host_names() -> None:
    assert parsed("-n", node_name="x").hostname is None
    assert parsed(node_name="gpu-7").hostname == "gpu-7"
    assert parsed().hostname


def test_boards_of_the_mock() -> None:
    given = settings("--mock", "P40", "--mock", "H100=4", exporter_mock="T4=2")
    assert (given.exporter_source, given.exporter_mock) == ("mock", "P40,H100=4")
    assert settings("--source", "mock").exporter_mock == "A100=8"
    assert settings("--source", "mock", exporter_mock="T4=2").exporter_mock == "T4=2"
    assert settings(exporter_mock="T4=2").exporter_source == "auto", "boards alone do not choose the source"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mock", "P40", "--source", "nvml"], "--mock with --source nvml"),
        (["--mock", "P40=0"], "--mock: P40=0: the count"),
        (["--mock", "P40=x"], "--mock: P40=x: the count"),
        (["--mock", "X1"], "--mock: unknown model 'X1'"),
        (["--mock", "A100=30", "--mock", "P40=3"], "--mock: 33 GPUs; a simulated host has at most 32"),
    ],
)
def test_flags_that_do_not_go_together(flags: list[str], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        parsed(*flags)


@pytest.mark.parametrize(
    ("flags", "variable"),
    [
        (["--prefix", "1x"], "EXPORTER_PREFIX='1x'"),
        (["--interval", "0"], "EXPORTER_INTERVAL=0.0"),
        (["-c", "-5"], "INTERVAL"),
    ],
)
def test_values_that_a_setting_refuses(flags: list[str], variable: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        parsed(*flags)


def test_two_intervals_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("-c", "1000", "--interval", "1")
    assert "not allowed with" in capsys.readouterr().err
