"""Secrets do not leave the host: what looks like one is replaced before anything is written or shown.

By form, so something may be hidden that is none; the other way round would be worse.
"""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "***"
SHORTEST: Final = 4
"""Characters. A shorter known secret would hide half the text; where it matters its form gives it away."""

_VALUE = r"(?P<hide>\"[^\"\n]*\"|'[^'\n]*'|[^\s,;&}]+)"
_NAME = (
    r"[\w.-]*(?:passw(?:or)?d|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key|credential|luks\.key)[\w.-]*"
)

_RULES: Final = (
    # Private keys, whole.
    re.compile(
        r"(?P<keep>-----BEGIN [A-Z ]*PRIVATE KEY-----)(?P<hide>.*?)(?=-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
    ),
    # scheme://user:password@host, up to the last @ before a blank: a password may hold / and @.
    re.compile(r"(?P<keep>\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s:/@]*:)(?P<hide>\S+)(?=@)"),
    # Authorization headers, with any scheme, and bearer tokens.
    re.compile(r"(?i)(?P<keep>\bauthorization\s*[:=]\s*(?:[\w-]+\s+)?)(?P<hide>[^\s'\"]+)"),
    re.compile(r"(?i)(?P<keep>\bbearer\s+)(?P<hide>[A-Za-z0-9._~+/=-]{8,})"),
    # NAME=value and "name": value where the name says so.
    re.compile(rf"(?i)(?P<keep>\b{_NAME}['\"]?\s*[=:]\s*){_VALUE}"),
    re.compile(rf"(?i)(?P<keep>\b(?:pwd|pass|pgpass|sig|key|auth)['\"]?\s*[=:]\s*){_VALUE}"),
    # The same with a blank: --password value, PASSWD value.
    re.compile(rf"(?i)(?P<keep>--?(?:password|passwd|pass|token|secret|api-key)\s+){_VALUE}"),
    re.compile(rf"(?P<keep>\b(?:PASSWD|PASSWORD|PGPASS|PGPASSWORD|TOKEN|SECRET)\s+){_VALUE}"),
    # curl -u name:secret; mysql -psecret.
    re.compile(r"(?P<keep>(?:^|\s)(?:-u|--user)[ =]?[^\s:]+:)(?P<hide>\S+)"),
    re.compile(r"(?P<keep>\b(?:mysql|mysqldump|mariadb|sshpass)\b[^\n]*?\s-p)(?P<hide>\S+)"),
    # Tokens known by their beginning: GitHub, GitLab, Slack, AWS, Grafana, JSON web tokens.
    re.compile(
        r"(?P<keep>)(?P<hide>\b(?:gh[pousr]_\w{8,}|github_pat_\w+|glpat-[\w-]+|xox[abprs]-[\w-]+|(?:AKIA|ASIA)[0-9A-Z]{12,}"
        r"|glsa_\w+|eyJ[\w-]{8,}\.[\w-]+\.[\w-]*))"
    ),
)


def mask(text: str, known: tuple[str, ...] = ()) -> str:
    """`text` without secrets: by form, and every one of `known` (passwords of the settings) wherever it stands."""
    for secret in sorted(known, key=len, reverse=True):
        if len(secret) >= SHORTEST:
            text = text.replace(secret, HIDDEN)
    for rule in _RULES:
        text = rule.sub(lambda found: found["keep"] + HIDDEN, text)
    return text
