"""`gpumon` itself: every role says what it is, and nothing is asked for without an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.__main__ import ROLES, build_parser, main


@pytest.mark.parametrize("role", ROLES, ids=lambda r: r.name)
def test_every_role_has_help_with_an_example_and_its_settings(role: object, capsys: pytest.CaptureFixture[str]) -> None:
    name = getattr(role, "name", "")
    with pytest.raises(SystemExit) as ended:
        build_parser(name).parse_args([name, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"example: gpumon {name}" in text
    assert "settings: " in text


def test_without_a_role_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "collector" in capsys.readouterr().err


def test_demo_refuses_a_data_directory_it_cannot_make(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.touch()
    assert main(["demo", "--data-dir", str(file / "x")]) == 1
    assert "--data-dir" in capsys.readouterr().err
