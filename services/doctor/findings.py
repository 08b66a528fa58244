"""Evidence -> findings: what is wrong, what says so, what to do. Pure; one function per question."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from services.doctor.evidence import Evidence, Output

NOTHING = Output(problem="not asked")


class Severity(StrEnum):
    CRITICAL = "critical"
    """The GPU or the pipeline does not work."""
    WARNING = "warning"
    """It works, but slower, hotter or less safely than it should."""
    INFO = "info"
    """Worth knowing; also: could not be looked at."""


@dataclass(frozen=True, slots=True)
class Finding:
    severity: Severity
    check: str
    """Short name, stable: programs may look for it."""
    what: str
    do: str
    """What to do about it."""
    evidence: str = ""
    """The line that says so."""


Found = Iterator[Finding]


def of(evidence: Evidence, name: str) -> Output:
    return evidence.get(name, NOTHING)


def lines_with(output: Output, *needles: str) -> list[str]:
    """Lines that hold all of `needles`, whatever their case."""
    wanted = [needle.lower() for needle in needles]
    return [line.strip() for line in output.text.splitlines() if all(n in line.lower() for n in wanted)]


def first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def critical(check: str, what: str, do: str, evidence: str = "") -> Finding:
    return Finding(Severity.CRITICAL, check, what, do, evidence)


def warning(check: str, what: str, do: str, evidence: str = "") -> Finding:
    return Finding(Severity.WARNING, check, what, do, evidence)


def info(check: str, what: str, do: str, evidence: str = "") -> Finding:
    return Finding(Severity.INFO, check, what, do, evidence)
