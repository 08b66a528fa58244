"""docs/plot.md and docs/top.md say what the code does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from services.__main__ import build_parser
from services.plot.select import SHORT_NAMES

DOCS = Path(__file__).parents[3] / "docs"


def commands(name: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (DOCS / f"{name}.md").read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [re.split(r"\s+[#|]", line)[0] for line in lines]


def test_every_short_name_is_documented_with_its_column() -> None:
    text = (DOCS / "plot.md").read_text()
    for name, column in SHORT_NAMES.items():
        line = next(line for line in text.splitlines() if line.startswith("|") and f"`{name}`" in line)
        assert f"`{column}`" in line


@pytest.mark.parametrize("command", [*commands("plot"), *commands("top")])
def test_every_command_is_understood(command: str) -> None:
    program, role, *flags = shlex.split(command)
    assert program == "gpumon"
    build_parser(role).parse_args([role, *flags])


def test_the_pictures_are_there_and_small() -> None:
    for picture in re.findall(r"\]\((images/[^)]+)\)", (DOCS / "plot.md").read_text()):
        assert 10_000 < (DOCS / picture).stat().st_size < 150_000
