"""The commands and queries of a runbook, as a reader would run them.

A fenced block of `bash` or `sql` is a step. A comment right above it may say how the test treats it:

    <!-- not run: REASON -->               the reader's machine is needed; the reason is for the reader of the source
    <!-- run with: OLD=NEW ... -->         words replaced (durations); `@-1h` and `@now` stand for times
    <!-- background until: TEXT -->        runs on beside the others once it has printed TEXT
    <!-- exit code may be N: REASON -->
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"^```(\w*)\s*$")
_DIRECTIVE = re.compile(r"^<!-- (not run|run with|background until|exit code may be (\d+)): (.+?) -->$")
LANGUAGES = frozenset({"bash", "sql"})


class RunbookError(Exception):
    """A block or comment that is not written as it should be."""


@dataclass(frozen=True, slots=True)
class Step:
    line: int
    language: str
    text: str
    not_run: str | None = None
    replacements: tuple[tuple[str, str], ...] = ()
    until: str | None = None
    exit_code: int = 0
    """Besides 0."""

    def script(self, now: dt.datetime) -> str:
        """The text with its replacements. Raises RunbookError where one has nothing to replace."""
        text = self.text
        for old, new in self.replacements:
            changed = re.sub(rf"(?<![\w-]){re.escape(old)}(?!\w)", _moment(new, now), text)
            if changed == text:
                raise RunbookError(f"line {self.line}: nothing to replace: {old}")
            text = changed
        return text


def _moment(word: str, now: dt.datetime) -> str:
    if word == "@now":
        return now.isoformat(timespec="seconds")
    hours = re.fullmatch(r"@-(\d+)h", word)
    return (now - dt.timedelta(hours=int(hours[1]))).isoformat(timespec="seconds") if hours else word


def steps(markdown: str) -> list[Step]:
    """All steps in order. Raises RunbookError for a comment that begins like a directive and is none."""
    return list(_steps(markdown.splitlines()))


def _steps(lines: list[str]) -> Iterator[Step]:
    number = 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        if fence is None:
            number += 1
            continue
        end = next(n for n in range(number + 1, len(lines)) if lines[n].startswith("```"))
        if fence[1] in LANGUAGES:
            text = "\n".join(lines[number + 1 : end])
            yield _step(number + 1, fence[1], text, lines[number - 1] if number else "")
        number = end + 1


def _step(line: int, language: str, text: str, above: str) -> Step:
    found = _DIRECTIVE.match(above)
    if found is None:
        if above.startswith("<!--"):
            raise RunbookError(f"line {line - 1}: not a directive: {above}")
        return Step(line, language, text)
    kind, code, said = found[1], found[2], found[3]
    if kind == "not run":
        return Step(line, language, text, not_run=said)
    if kind == "run with":
        pairs = tuple((old, new) for old, _, new in (word.partition("=") for word in said.split()))
        return Step(line, language, text, replacements=pairs)
    if kind == "background until":
        return Step(line, language, text, until=said)
    return Step(line, language, text, exit_code=int(code))
