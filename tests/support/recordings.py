"""Recordings of real machines, which are not part of the project: the variable says where they lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "GPUMON_RECORDINGS_ROOT"


def recording(name: str) -> Path:
    """The file or folder `name` of the recordings; the test is skipped, with the reason, where it is not there."""
    root = os.environ.get(VARIABLE)  # noqa: TID251 - the tests' own switch, no setting of the product
    if not root:
        pytest.skip(f"recordings are not part of the project: set {VARIABLE} to their folder")
    path = Path(root) / name
    if not path.exists():
        pytest.skip(f"{VARIABLE} has no {name}")
    return path
