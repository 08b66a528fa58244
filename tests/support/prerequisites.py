"""What a test needs from the machine, and what happens where it is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
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


def need_gpu() -> str:
    """Path of nvidia-smi, on a machine with an NVIDIA GPU that it lists; else skip (`GPUMON_REQUIRE_GPU=1`: fail)."""
    program = shutil.which("nvidia-smi")
    if program is None:
        missing("gpu", "needs an NVIDIA GPU: there is no nvidia-smi here")
    try:
        answer = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        missing("gpu", "needs an NVIDIA GPU: nvidia-smi -L does not answer within a minute")
    if answer.returncode != 0 or "GPU 0:" not in answer.stdout:
        missing("gpu", f"needs an NVIDIA GPU: nvidia-smi says {(answer.stdout + answer.stderr).strip()[:200]!r}")
    return program
