"""What a test needs from the machine, and what happens where it is missing."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


class MissingPrerequisiteError(RuntimeError):
    """The machine lacks something that a test server needs; the message says what and how to get it."""


def missing(name: str, reason: str) -> NoReturn:
    """Skip with the reason; fail where `GPUMON_REQUIRE_<NAME>=1` says that this machine must have it (CI)."""
    variable = f"GPUMON_REQUIRE_{name.upper()}"
    if os.environ.get(variable) == "1":  # noqa: TID251 - the tests' own switch, no setting of the product
        pytest.fail(f"{reason} ({variable}=1 demands it)", pytrace=False)
    pytest.skip(reason)
