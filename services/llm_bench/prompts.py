"""What the models are asked: coding tasks of different kinds, each answerable in a few hundred tokens."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

PROMPTS: Final = MappingProxyType(
    {
        "write-lru": (
            "Write a Python class LruCache with get(key) and put(key, value) in O(1) and a capacity given at "
            "construction. Do not use functools or OrderedDict. Add type hints and a docstring with the complexity."
        ),
        "fix-bug": (
            "This function should return the longest run of equal values in a list, but it is wrong for some inputs. "
            "Find every mistake, explain each in one sentence, and give the corrected function.\n\n"
            "def longest_run(values):\n"
            "    best, length = 0, 1\n"
            "    for i in range(len(values)):\n"
            "        if values[i] == values[i + 1]:\n"
            "            length += 1\n"
            "        else:\n"
            "            length = 0\n"
            "        best = max(best, length)\n"
            "    return best\n"
        ),
        "sql": (
            "A PostgreSQL table readings(time timestamptz, gpu text, temp_c real) has a row per GPU every ten seconds. "
            "Write one query that gives, for each GPU and hour of the last day, the share of time above 80 degrees, "
            "counting only gaps of less than a minute. Explain which index it needs and why."
        ),
        "tests": (
            "Write pytest tests for a function parse_duration(text) that turns '1h30m', '45s' and '2d' into seconds "
            "and raises ValueError for anything else. Cover edge cases in one parametrised test each for valid and "
            "invalid input. Give the implementation as well."
        ),
    }
)
"""Prompt id -> text."""


def prompt(prompt_id: str, run: int) -> str:
    """The text for one run. Its first line differs from run to run: Ollama keeps what it has read of the last prompt,
    and a repeat with the same beginning would measure that memory instead of the reading."""
    return f"Attempt {run}.\n{PROMPTS[prompt_id]}"
