"""dcgm-exporter's counters file: which metrics are served, under which type and HELP, and which fields become labels.

Three columns, comma-separated: field, type, help. `#` begins a comment line. Types are `gauge`, `counter` and `label`.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.contract.catalogue import BY_DCGM_NAME, LABEL_FIELDS, METRICS, Metric
from services.ops.regular_file import read_regular

MAX_BYTES: Final = 1024 * 1024
"""Of the file. One with every field and a long help text for each has some ten kilobytes."""
_MAX_PROBLEMS: Final = 20
"""Wrong lines that are named: a file of another kind is wrong in each."""
XID_COUNT: Final = "DCGM_EXP_XID_ERRORS_COUNT"
CLOCK_COUNT: Final = "DCGM_EXP_CLOCK_EVENTS_COUNT"
_WINDOWED: Final = (XID_COUNT, CLOCK_COUNT)
"""Metrics that dcgm-exporter makes itself: how often something happened within a window."""
_DEFAULT_LABELS: Final = ("DCGM_FI_DRIVER_VERSION",)
"""As in dcgm-exporter's default counters file. Others would multiply label text for nothing: `gpumon_gpu_info` has
them."""


class CountersFileError(Exception):
    """The counters file cannot be used; the message names file, lines and what is known."""


@dataclass(frozen=True, slots=True)
class Counter:
    """A metric as it is served."""

    metric: Metric
    name: str
    """As the file writes it: the name of either DCGM release."""
    type: str
    help: str


@dataclass(frozen=True, slots=True)
class Windowed:
    """A count within a window as it is served."""

    name: str
    type: str
    help: str


@dataclass(frozen=True, slots=True)
class Selection:
    """What is served, in this order."""

    counters: tuple[Counter, ...]
    labels: tuple[str, ...]
    """DCGM label fields that stand on every DCGM series."""
    windowed: tuple[Windowed, ...] = ()


def everything() -> Selection:
    """The whole catalogue, dcgm-exporter's default counters first."""
    ordered = sorted(METRICS, key=lambda m: not m.default)
    return Selection(tuple(Counter(m, m.dcgm, m.exposition_type, m.help) for m in ordered), _DEFAULT_LABELS)


def load(path: Path) -> Selection:
    """Raises CountersFileError with every wrong line."""
    try:
        content = read_regular(path, MAX_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise CountersFileError(f"counters file {path}: {reason}") from None
    selection, problems = _read(content)
    if not problems and not (selection.counters or selection.windowed):
        problems = ["it names no metric: every line is empty, a comment or a label"]
    if problems:
        known = ", ".join([*(m.dcgm for m in METRICS), *_WINDOWED, *LABEL_FIELDS])
        unknown = any("unknown field" in problem for problem in problems)
        tail = f"\nknown fields: {known}" if unknown else ""
        if len(problems) > _MAX_PROBLEMS:
            problems[_MAX_PROBLEMS:] = [f"and {len(problems) - _MAX_PROBLEMS} more wrong lines"]
        raise CountersFileError("\n".join(f"counters file {path}: {problem}" for problem in problems) + tail)
    return selection


def _read(content: str) -> tuple[Selection, list[str]]:
    counters: list[Counter] = []
    labels: list[str] = []
    windowed: list[Windowed] = []
    problems: list[str] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(content.splitlines(), 1):
        try:
            row = [cell.strip() for cell in next(csv.reader(io.StringIO(line), skipinitialspace=True), [])]
        except csv.Error as error:  # a cell above 128 KiB
            problems.append(f"line {number}: {error}")
            continue
        if not any(row) or row[0].startswith("#"):
            continue
        problem = _problem(row) or (f"{row[0]} stands in line {seen[row[0]]} already" if row[0] in seen else None)
        if problem is not None:
            problems.append(f"line {number}: {problem}")
            continue
        name, kind, meaning = row
        seen[name] = number
        if kind == "label":
            labels.append(name)
        elif name in _WINDOWED:
            windowed.append(Windowed(name, kind, meaning))
        else:
            counters.append(Counter(BY_DCGM_NAME[name], name, kind, meaning))
    return Selection(tuple(counters), tuple(labels), tuple(windowed)), problems


def _problem(row: list[str]) -> str | None:
    """What is wrong with a line's cells; None when nothing is."""
    if len(row) != 3:
        return f"{len(row)} columns, expected three: field, type, help (a help text with a comma needs quotes)"
    name, kind, _ = row
    if kind not in ("gauge", "counter", "label"):
        return f"type {kind!r} of {name}; allowed are gauge, counter and label"
    if kind == "label" and name not in LABEL_FIELDS:
        return f"unknown field {name!r} of type label" if name not in BY_DCGM_NAME else f"{name} is no label field"
    if kind != "label" and name in LABEL_FIELDS:
        return f"{name} is text: its type is label"
    if kind != "label" and name not in BY_DCGM_NAME and name not in _WINDOWED:
        return f"unknown field {name!r}"
    return None
