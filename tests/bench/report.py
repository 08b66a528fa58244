"""What a benchmark hands back, and how it is shown: a table for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `met` is None where there is no goal."""

    bench: str
    name: str
    value: float
    unit: str
    goal: str = ""
    met: bool | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    quick: bool
    """A tenth of the data: for trying the benchmark itself, not for quoting."""
    dsn: str | None
    """A native TimescaleDB (TIMESCALE_DSN); None uses the embedded one."""
    bootstrap: str | None
    """An existing Kafka (KAFKA_BOOTSTRAP); None starts one of our own."""


def machine() -> dict[str, object]:
    """Where it was measured: figures of different machines do not compare."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def table(figures: list[Figure]) -> str:
    """Aligned columns: bench, figure, value, goal, note."""
    rows = [("benchmark", "figure", "value", "goal", "note")]
    rows += [(f.bench, f.name, f"{f.value:,.4g} {f.unit}", _goal(f), f.note) for f in figures]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _goal(figure: Figure) -> str:
    if figure.met is None:
        return figure.goal
    return f"{figure.goal} {'met' if figure.met else 'NOT met'}"


def write(directory: Path, name: str, figures: list[Figure]) -> Path:
    """bench-results/<name>.json: machine and figures."""
    directory.mkdir(exist_ok=True)
    path = directory / f"{name}.json"
    document = {"machine": machine(), "figures": [dataclasses.asdict(f) for f in figures]}
    path.write_text(json.dumps(document, indent=2) + "\n")
    return path
