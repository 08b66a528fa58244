"""What a server says, fit for one line of a terminal, a log or a table. Pure."""

from __future__ import annotations

from typing import Final

LENGTH: Final = 300
"""Characters; a reason that is longer is no line any more."""


def one_line(text: object, length: int = LENGTH) -> str:
    """Blanks made one, what cannot be printed (escapes of a terminal, half a surrogate pair) written out, cut to
    `length`. What is no text is named by its type: it may be nested deeper than it can be shown."""
    if not isinstance(text, str):
        return f"({type(text).__name__}, no text)"
    words = " ".join(text[: 4 * length].split())
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
    return shown if len(shown) <= length else f"{shown[:length]}..."
