"""Files that hold what came out when it was right. `make golden` writes them anew; the diff is the review."""

from __future__ import annotations

import os
from pathlib import Path


def check_golden(path: Path, text: str) -> None:
    """Compare `text` with the file, or write it where GPUMON_UPDATE_GOLDEN is set."""
    if os.environ.get("GPUMON_UPDATE_GOLDEN"):  # noqa: TID251  # the tests' own switch, no setting of the product
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"differs from {path}; if that is right: make golden"
