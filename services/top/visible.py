"""Text from elsewhere as a terminal may get it: names, reasons and memos without control characters.

An exporter, a driver or a file says what it likes; an escape sequence in it would clear the screen or worse, and a
line feed would make one GPU two lines. JSON needs none of this: it escapes them.
"""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from typing import Final

from services.contract.event import Status
from services.exporter.reading import Process
from services.top.frame import Row
from services.top.table import Line

_HIDDEN: Final = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs"})
"""Unicode categories: controls, formats (among them those that turn the direction of writing), separators of lines and
paragraphs, lone surrogates."""
_JOINERS: Final = "\u200c\u200d"
"""Formats that some scripts and emoji need, and that move nothing."""


def visible(text: str) -> str:
    """A blank in place of each character that is not to be seen: widths stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join([" " if unicodedata.category(c) in _HIDDEN and c not in _JOINERS else c for c in text])


def visible_line(line: Line) -> Line:
    """For the screen and the plain table. What tells GPUs apart (the UUID) is not shown, and stays as it is."""
    verdict = replace(line.verdict, notes=tuple(map(visible, line.verdict.notes)))
    return replace(line, row=_row(line.row), verdict=verdict)


def _row(row: Row) -> Row:
    return replace(
        row,
        host=visible(row.host),
        model=_maybe(row.model),
        pci_bus_id=_maybe(row.pci_bus_id),
        instance_profile=_maybe(row.instance_profile),
        driver=_maybe(row.driver),
        lost=_maybe(row.lost),
        status=None if row.status is None else Status(tag=_maybe(row.status.tag), memo=_maybe(row.status.memo)),
        processes=None if row.processes is None else tuple(map(_process, row.processes)),
    )


def _process(process: Process) -> Process:
    user, command = _maybe(process.user), _maybe(process.command)
    return replace(process, user=user, command=command, kind=visible(process.kind))


def _maybe(text: str | None) -> str | None:
    return None if text is None else visible(text)
