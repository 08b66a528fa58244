"""Secrets do not leave the host: what looks like one is replaced before anything is written or shown."""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "***"

_RULES: Final = (
    # NAME=value and name: value where the name says so (PGPASSWORD, api_key, SLACK_TOKEN, ...).
    re.compile(
        r"(?i)(?P<keep>\b[\w.-]*(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|credential)[\w.-]*['\"]?\s*[=:]\s*)"
        r"(?P<hide>\"[^\"\n]*\"|'[^'\n]*'|[^\s,;&}]+)"
    ),
    # postgresql://user:password@host and https://user:password@host
    re.compile(r"(?P<keep>\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)(?P<hide>[^\s/]+)(?=@)"),
    # Authorization headers and bearer tokens.
    re.compile(r"(?i)(?P<keep>\b(?:authorization:?\s*(?:basic|bearer)?|bearer)\s+)(?P<hide>[A-Za-z0-9._~+/=-]{8,})"),
    # Private keys, whole.
    re.compile(
        r"(?P<keep>-----BEGIN [A-Z ]*PRIVATE KEY-----)(?P<hide>.*?)(?=-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
    ),
)


def mask(text: str, known: tuple[str, ...] = ()) -> str:
    """`text` without secrets: by form, and every one of `known` (passwords of the settings) wherever it stands."""
    for secret in sorted(known, key=len, reverse=True):
        if len(secret) >= 4:  # shorter ones would hide half the text, and are found by form where it matters
            text = text.replace(secret, HIDDEN)
    for rule in _RULES:
        text = rule.sub(lambda found: found["keep"] + HIDDEN, text)
    return text
