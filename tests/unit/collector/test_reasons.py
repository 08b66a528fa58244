"""Why something waits, for people: never without the raw name, never a name alone where words are known."""

from __future__ import annotations

import pytest

from services.collector.reasons import words


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("_MSG_TIMED_OUT", "Kafka did not acknowledge in time (_MSG_TIMED_OUT)"),
        ("database_unreachable", "the database cannot be reached (database_unreachable)"),
        ("REQUEST_TIMED_OUT", "Broker: Request timed out (REQUEST_TIMED_OUT)"),
        ("sqlstate_53100", "sqlstate_53100"),
        ("NOT_KNOWN_TO_ANYBODY", "NOT_KNOWN_TO_ANYBODY"),
        ("code", "code"),
        ("", ""),
    ],
)
def test_words(reason: str, text: str) -> None:
    assert words(reason) == text
