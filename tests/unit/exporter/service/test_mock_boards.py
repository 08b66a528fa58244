"""Boards of the mock source in writing."""

from __future__ import annotations

import pytest

from mock_dcgm.models import MODELS
from services.exporter.mock_boards import MOST, boards
from services.exporter.mock_source import fleet


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("P40", (("P40", 1),)),
        ("P40=1", (("P40", 1),)),
        ("P40=1, H100=8", (("P40", 1), ("H100", 8))),
        ("T4,T4=2", (("T4", 1), ("T4", 2))),
    ],
)
def test_boards(text: str, expected: tuple[tuple[str, int], ...]) -> None:
    assert boards(text) == expected
    assert fleet("dock", boards(text)).gpus


@pytest.mark.parametrize("text", ["", "P40,", "p40=1", "P40=", "P40=-1", "P40=1=2", "P40=\u0663", "P40 H100"])
def test_what_is_no_board_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"unknown model|the count is a whole number"):
        boards(text)


def test_what_it_takes_the_simulator_builds() -> None:
    assert len(fleet("dock", boards(",".join(f"{model}=1" for model in MODELS))).gpus) == len(MODELS)
    assert len(fleet("dock", boards(f"P40={MOST}")).gpus) == MOST
    with pytest.raises(ValueError, match="33 GPUs"):
        boards(f"P40={MOST + 1}")
