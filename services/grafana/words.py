"""Text that others wrote, made fit to be shown: no codes for the terminal, no secrets, not without end."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

SAID: Final = 300
"""Characters of a server's own sentence that are shown: three lines of a terminal, longer than any of Grafana's."""
NAME: Final = 100
"""Characters of one name or title."""
LISTED: Final = 20
"""Names in one list: what can still be looked through."""
LINE: Final = 4000
"""Characters of one line of ours, whatever is in it: 20 names with their uids and types, and our words."""


def visible(text: str, most: int = NAME) -> str:
    """In one line. What is no character to be seen (control, direction of writing, half a pair) stands as `\\x1b`."""
    return fit(" ".join(text[: 4 * most].split()), most)


def fit(text: str, most: int = LINE) -> str:
    """The same with its columns as they are: the last sieve before a terminal, for what was overlooked before."""
    shown = "".join(char if char.isprintable() else _escaped(char) for char in text)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def listed(names: Iterable[str]) -> str:
    """`a, b, c and 7 more`; of names made `visible`."""
    found = list(names)
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return ", ".join(found[:LISTED]) + more


def hidden(text: str, secrets: Iterable[str]) -> str:
    """Without the secrets, however JSON, a URL or HTML write them."""
    forms = {form for secret in secrets for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):  # the longest first, so that none is left in pieces
        text = text.replace(form, "***")
    return text


def _forms(secret: str) -> tuple[str, ...]:
    return secret, json.dumps(secret)[1:-1], quote(secret, safe=""), html.escape(secret)
