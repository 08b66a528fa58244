"""Label values in Prometheus' text format."""

from __future__ import annotations


def escape(value: str) -> str:
    """Backslash, quote and line feed, as the format wants them between quotes."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
