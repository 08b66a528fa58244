"""Sparklines: the documented line, gaps, flat lines, scales."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.andon.sparkline import BLOCKS, blocks, sparkline

NUMBERS = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False)


def test_the_documented_example() -> None:
    assert sparkline([45, 67, 82, 91, 88, 75, 60]) == "▃▅▆█▇▅▄"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([None, None], "  "),
        ([50, None, 100], "▃ █"),
        ([50, math.nan, 100], "▃ █"),
        ([0, 0, 0], "▁▁▁"),
        ([50, 50], "▃▃"),
        ([100], "▇"),
        ([0, 100], "▁█"),
        ([100, 400, 300, 200], "▁█▅▃"),
        ([-20, 0], "▁█"),
    ],
)
def test_gaps_flat_lines_and_scales(values: list[float | None], line: str) -> None:
    assert sparkline(values) == line


@given(st.lists(st.none() | NUMBERS))
def test_one_character_a_value_and_a_gap_where_there_is_none(values: list[float | None]) -> None:
    line = sparkline(values)
    assert len(line) == len(values)
    assert all((cell == " ") == (value is None) for cell, value in zip(line, values, strict=True))


@given(st.lists(NUMBERS, min_size=2))
def test_a_larger_value_is_never_lower(values: list[float]) -> None:
    heights = [BLOCKS.index(cell) for cell in sparkline(values)]
    in_order = [height for _, height in sorted(zip(values, heights, strict=True))]
    assert in_order == sorted(in_order)


def test_a_fixed_scale_does_not_depend_on_the_other_values() -> None:
    assert blocks([0, 12.5, 13, 50, 99, 100, 130, -5, None], 0, 100) == "▁▁▂▄███▁ "
    assert blocks([1, 2], 5, 5) == "▁▁"
