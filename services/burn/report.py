"""What the run showed, for people and for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from services.burn.drive import Outcome, Result
from services.host.telemetry import Gpu, Telemetry, Wanted, best, from_database, from_spool, own_hostnames
from services.host.thermal import STEADY_TOLERANCE, STEADY_WINDOW, Summary, Throttled, summarise
from services.ops.clock import Clock
from services.settings import Settings

BEFORE: Final = 120.0
"""Seconds of samples looked at before the load: the temperature at its start."""
AFTER: Final = 60.0
"""Seconds behind it: the sample that closes the last interval."""
PATIENCE: Final = 5.0
"""Seconds, on top of the collector's interval, in which a sample comes through the pipeline to the database."""


@dataclass(frozen=True, slots=True)
class Report:
    origin: str | None
    """Where the samples come from; None: there are none."""
    notes: list[str]
    """Why not from elsewhere."""
    gpus: list[tuple[Gpu, Summary]]
    """By index."""


def report_of(
    settings: Settings, outcome: Outcome, live: Telemetry, clock: Clock, wait: Callable[[float], None] | None
) -> Report:
    """`wait` sleeps some seconds; None: do not wait for late samples."""
    if outcome.begin is None or outcome.end is None:
        return Report(None, ["the load was not started"], [])
    begin, end = outcome.begin, outcome.end
    uuids = tuple(live.gpus)
    wanted = Wanted(begin - BEFORE, end + AFTER, own_hostnames(settings), uuids)
    sources = (
        lambda: _settled(settings, wanted, end, clock, wait),
        lambda: from_spool(settings.spool_dir, settings.kafka_topic, wanted),
        lambda: live,
    )
    telemetry, notes = best(sources, begin, end)
    if telemetry is None:
        return Report(None, notes, [])
    gpus = [(gpu, summarise(telemetry.series[uuid], begin, end)) for uuid, gpu in telemetry.gpus.items()]
    return Report(telemetry.origin, notes, sorted(gpus, key=lambda pair: (pair[0].index is None, pair[0].index or 0)))


def _settled(
    settings: Settings, wanted: Wanted, end: float, clock: Clock, wait: Callable[[float], None] | None
) -> Telemetry:
    """From the database, once the sample behind `end` has come through the pipeline, or ought to have."""
    deadline = end + settings.interval + PATIENCE
    while True:
        found = from_database(settings, wanted)
        arrived = found.series and all(series[-1].time >= end for series in found.series.values())
        if found.problem or arrived or wait is None or clock.time() >= deadline:
            return found
        wait(1.0)


def as_dict(outcome: Outcome, report: Report, plan: dict[str, Any], log: str) -> dict[str, Any]:
    """For `--json` and the summary file. Times in seconds since the epoch, temperatures in C, energy in J."""
    findings = outcome.findings
    return {
        "result": outcome.result.value,
        "reason": outcome.reason or None,
        "begin": outcome.begin,
        "end": outcome.end,
        "phases": outcome.phases,
        "gpu_burn": {
            "verdicts": {str(number): verdict for number, verdict in findings.verdicts.items()},
            "errors": {str(number): count for number, count in findings.errors.items()},
        },
        "samples_from": report.origin,
        "notes": report.notes,
        "gpus": [{**asdict(gpu), **asdict(summary)} for gpu, summary in report.gpus],
        "plan": plan,
        "log": log,
    }


def text(outcome: Outcome, report: Report, width: int | None = None) -> str:
    """For people, and the log. `width`: columns of the terminal, for which the lines are broken between words and the
    table, where it is wider, is a block per GPU; None: as wide as it comes."""
    rows = table(report.gpus)
    if width is None:
        return "\n".join(_lines(outcome, report, rows))
    if max(map(len, rows)) > width:
        rows = [line for gpu, summary in report.gpus for line in block(gpu, summary, width)]
    return "\n".join(part for line in _lines(outcome, report, rows) for part in _broken(line, width))


def _broken(line: str, width: int) -> list[str]:
    return textwrap.wrap(line, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def _lines(outcome: Outcome, report: Report, rows: list[str]) -> list[str]:
    lines = [f"result: {outcome.result}" + (f": {outcome.reason}" if outcome.reason else "")]
    lines += [f"  gpu_burn GPU {gpu}: {verdict}" for gpu, verdict in sorted(outcome.findings.verdicts.items())]
    lines += [f"  {note}" for note in report.notes]
    if report.origin is None:
        return [*lines, "  no samples: nothing can be said of temperatures and watts"]
    return [*lines, *rows, *unknowns(report.gpus), f"  samples: {report.origin}", *DEFINITIONS]


DEFINITIONS: Final = (
    f"  steady: mean of the last {STEADY_WINDOW:.0f} s under load, if near ({STEADY_TOLERANCE:g} C) the minute before",
    f"  time to steady: until within {STEADY_TOLERANCE:g} C of it; C/W: (steady - start) / mean power",
)
_COLUMNS: Final[tuple[tuple[str, Callable[[Summary], str]], ...]] = (
    ("start", lambda s: number(s.start, "C")),
    ("peak", lambda s: number(s.peak, "C")),
    ("steady", lambda s: number(s.steady, "C", 1)),
    ("to steady", lambda s: number(s.time_to_steady, "s")),
    ("throttled", lambda s: throttled_text(s.throttled)),
    ("mean", lambda s: number(s.mean_watts, "W", 1)),
    ("energy", lambda s: number(None if s.energy.joules is None else s.energy.joules / 3600, "Wh", 2)),
    ("C/W", lambda s: number(s.degrees_per_watt, "", 3)),
    ("samples", lambda s: str(s.samples)),
    ("gaps", lambda s: f"{s.gaps} ({s.gap_seconds:.0f} s)" if s.gaps else "0"),
)


def table(gpus: list[tuple[Gpu, Summary]]) -> list[str]:
    """A row per GPU."""
    rows = [["under load", *(name for name, _ in _COLUMNS)]]
    rows += [[_called(gpu), *(cell(s) for _, cell in _COLUMNS)] for gpu, s in gpus]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def block(gpu: Gpu, summary: Summary, width: int) -> list[str]:
    """The row of one GPU for a narrow terminal: the same values, each behind its name, none broken."""
    lines = [f"  {_called(gpu)}, under load"]
    for name, cell in _COLUMNS:
        part = f"{name} {cell(summary)}"
        if len(lines) > 1 and len(lines[-1]) + len(part) + 2 < width:
            lines[-1] += f", {part}"
        else:
            lines.append(f"    {part}")
    return lines


def _called(gpu: Gpu) -> str:
    return f"GPU {gpu.index} {gpu.model or ''}".strip()


def unknowns(gpus: list[tuple[Gpu, Summary]]) -> list[str]:
    """Why a value is unknown, each reason once."""
    whose: dict[tuple[str, str], list[str]] = {}
    for gpu, summary in gpus:
        for item in summary.unknown.items():
            whose.setdefault(item, []).append(str(gpu.index))
    return [
        f"  {name} unknown{'' if len(numbers) == len(gpus) else ' of GPU ' + ', '.join(numbers)}: {reason}"
        for (name, reason), numbers in whose.items()
    ]


def number(value: float | None, unit: str, digits: int = 0) -> str:
    return "unknown" if value is None else f"{value:.{digits}f} {unit}".rstrip()


def throttled_text(held: Throttled) -> str:
    """`40 s (power 38, thermal 2)`"""
    parts = [f"{name} {value:.0f}" for name, value in
             (("power", held.power), ("thermal", held.thermal), ("other", held.other)) if value]  # fmt: skip
    return number(held.any, "s") + (f" ({', '.join(parts)})" if parts else "")


EXIT_CODES: Final = {Result.COMPLETED: 0, Result.FAULTY: 1, Result.UNVERIFIED: 1, Result.FAILED: 1, Result.TOO_HOT: 1}
"""Of an interrupted run: 128 + the signal."""
