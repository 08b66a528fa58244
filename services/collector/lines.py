"""The grammar of one exposition line, exact: Prometheus' text format 0.0.4 and OpenMetrics 1.0.

Slow and complete; `parse.py` comes here only for what it has not seen before. Lenient where the formats' own parsers
are (any blanks and tabs, a carriage return before the line feed, an unknown escape kept as it is), strict elsewhere.
"""

from __future__ import annotations

import re
from typing import Final

from services.contract.event import GpuEvent

_INNER: Final = rb'[^"{}\n]*+(?:"(?:[^"\\\n]|\\[^\n])*+"[^"{}\n]*+)*+'
"""What stands between the braces. Possessive: nothing is tried twice."""
HEAD: Final = re.compile(rb"[ \t]*([a-zA-Z_:][a-zA-Z0-9_:]*)(?:[ \t]*\{(" + _INNER + rb")\})?")
"""Name and, with braces, what stands between them. What follows the match is value, time stamp and exemplar."""
_ONE: Final = r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"([^"\\]*(?:\\.[^"\\]*)*)"[ \t]*(?:,|\Z)'
_PAIR: Final = re.compile(_ONE)
_PAIRS: Final = re.compile(rf"(?:{_ONE})*[ \t]*")
_ESCAPE: Final = re.compile(r'\\([\\"n])')

# Unambiguous: each text can be matched in one way only, so that what does not match is left in linear time.
_DECIMAL: Final = rb"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_WORD: Final = rb"[+-]?(?i:inf|infinity|nan)"
_NUMBER: Final = rb"(?:" + _DECIMAL + rb"|" + _WORD + rb")"
_EXEMPLAR: Final = rb"[ \t]+#[ \t]*\{" + _INNER + rb"\}[ \t]*" + _NUMBER + rb"(?:[ \t]+" + _DECIMAL + rb")?"
_VALUE: Final = re.compile(
    rb"[ \t\r]*(" + _NUMBER + rb")(?:[ \t]+" + _DECIMAL + rb")?(?:" + _EXEMPLAR + rb")?[ \t\r]*\n?\Z"
)

_NUMBER_MAX: Final = 400
"""Bytes of a value, time stamp or the like. C's `%f` of the largest double has 317; longer is no measurement."""


class ScrapeRefused(Exception):  # noqa: N818  # a scrape is refused; it is no error of ours
    """A scrape that is not taken, not even in part.

    `reason`: `truncated`, `not_exposition`, `not_utf8`, `no_gpu_metrics`, `stale` or `duplicate_series`.
    The message is one sentence, with the line number where there is one.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.happenings: tuple[GpuEvent, ...] = ()
        """What is known all the same, of `stale` ones: XIDs."""


def parse_labels(inner: bytes) -> dict[str, str]:
    """Label pairs between the braces -> dict in their order, escapes resolved. Raises ValueError."""
    text = inner.decode()
    if _PAIRS.fullmatch(text) is None:
        raise ValueError("not a label")
    pairs = _PAIR.findall(text.rstrip(" \t"))  # else the search tries anew at each trailing blank
    labels = dict(pairs)
    if len(labels) != len(pairs):
        raise ValueError("the same label twice")
    if "\\" in text:
        labels = {name: _ESCAPE.sub(_unescape, value) for name, value in pairs}
    return labels


def _unescape(escape: re.Match[str]) -> str:
    return "\n" if escape[1] == "n" else escape[1]


def number_text(text: bytes) -> str | None:
    """The value in what follows a line's head (` 61 1700000000000\\n` -> `61`); None when that is no value."""
    if len(text) > _NUMBER_MAX and len(text.split(None, 1)[0]) > _NUMBER_MAX:
        return None
    found = _VALUE.match(text)
    return found[1].decode() if found else None


def line_number(body: bytes, pos: int) -> int:
    """Number, from 1, of the line that holds byte `pos`."""
    return body.count(b"\n", 0, pos) + 1


def not_a_sample(body: bytes, pos: int) -> ScrapeRefused:
    """The refusal for the line that begins at byte `pos`."""
    shown = _line_at(body, pos)[:80].decode(errors="backslashreplace")
    return ScrapeRefused(
        "not_exposition", f"line {line_number(body, pos)} is neither a comment nor a sample: {shown!r}"
    )


def _line_at(body: bytes, pos: int) -> bytes:
    end = body.find(b"\n", pos)
    return body[pos:] if end < 0 else body[pos:end]


def check_end(body: bytes) -> None:
    """A body ends with a line feed, or (OpenMetrics) with `# EOF`. Raises ScrapeRefused."""
    if body.endswith((b"\n", b"\n# EOF")) or not body:
        return
    first = _line_at(body, 0).strip(b" \t\r")
    if first and not first.startswith(b"#") and HEAD.match(first) is None:
        raise not_a_sample(body, 0)  # a page or a picture, not a shortened scrape
    last = line_number(body, len(body))
    raise ScrapeRefused("truncated", f"the body ends in the middle of line {last}, after {len(body)} bytes")
