"""What the collector remembers of its targets, over a clean stop: so that counters and XIDs go on where they were."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Final

import msgspec

from services.ops.regular_file import read_regular

log = logging.getLogger("collector.state")

_NAME: Final = "state.json"
_MAX_BYTES: Final = 256 * 1024 * 1024
"""A GPU takes about 500 bytes: half a million of them."""


def save(directory: Path, targets: dict[str, dict[str, Any]]) -> None:
    """Atomic and synced: source -> checkpoint. A failure costs the memory, not the stop: it is logged."""
    path = directory / _NAME
    temporary = directory / f"{_NAME}.new"
    try:
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode({"format": 1, "targets": targets}))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        log.error("cannot save what is known of the targets", extra={"file": str(path), "error": error.strerror})


def take(directory: Path) -> dict[str, dict[str, Any]]:
    """What the last clean stop saved, once: after a crash the next start must not believe something older."""
    path = directory / _NAME
    try:
        data = read_regular(path, _MAX_BYTES)
        path.unlink()
        saved = msgspec.json.decode(data)["targets"]
        return {str(source): dict(state) for source, state in saved.items()}
    except FileNotFoundError:
        return {}
    except (OSError, RecursionError, msgspec.MsgspecError, LookupError, TypeError, ValueError, AttributeError) as error:
        extra = {"file": str(path), "reason": str(error)}
        log.warning("what was known of the targets cannot be read: starting afresh", extra=extra)
        return {}
