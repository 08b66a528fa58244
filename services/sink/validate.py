"""Why an event is refused: named reasons, the one place that decides which, and the time limits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec

from services.contract.event import SCHEMA_VERSION
from services.sink.pgtime import MICROSECONDS, Micros


class Reason(StrEnum):
    """In the header `reason` of a dead letter, and the label of its counter."""

    NOT_JSON = "not_json"
    """Not a JSON document."""
    SCHEMA = "schema"
    """JSON, but not an event: a field is missing or of the wrong type."""
    UNSUPPORTED_VERSION = "unsupported_version"
    """Written by a newer collector: upgrade the sink, then `gpumon dlq replay`."""
    NO_IDENTITY = "no_identity"
    """It does not say which GPU."""
    BAD_KEY = "bad_key"
    """The message key is not the GPU's UUID: samples of one GPU would be spread over partitions, out of order."""
    RANGE = "range"
    """A value outside what the metric can be."""
    TOO_OLD = "too_old"
    """Older than MAX_AGE: its chunk may be gone."""
    IN_FUTURE = "in_future"
    """Ahead of the sink's clock by more than MAX_FUTURE."""
    DATABASE = "database"
    """The database refused the row; the header `sqlstate` says why."""


MESSAGE_LENGTH: Final = 500
"""Characters of a verdict's message: it quotes what it refuses, and travels in a header beside the whole."""
DEEPEST: Final = 64
"""Levels of nesting in what is stored as jsonb. Databases differ in what they bear (an embedded one ended at 900)."""


class Invalid(Exception):  # noqa: N818 - the name of the verdict, not of a fault in our code
    """An event that goes to the dead letters. `cause` is the class name of what was caught, where something was."""

    def __init__(self, reason: Reason, message: str, *, cause: str = "", sqlstate: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message if len(message) <= MESSAGE_LENGTH else f"{message[:MESSAGE_LENGTH]}..."
        self.cause = cause or type(self).__name__
        self.sqlstate = sqlstate


_OUT_OF_RANGE: Final = re.compile(r"Expected `(?:int|float)` [<>]=? ")
_IDENTITY: Final = re.compile(r"(?:missing required field `(?:gpu|uuid|hostname)`)|at `\$\.gpu(?:\.uuid|\.hostname)?`$")


def refusal(error: Exception) -> Invalid:
    """The verdict for what the decoder raised: DecodeError, ValidationError, UnicodeDecodeError or RecursionError."""
    return Invalid(_reason(error), str(error) or "nested too deeply", cause=type(error).__name__)


def _reason(error: Exception) -> Reason:
    if not isinstance(error, msgspec.ValidationError):
        return Reason.NOT_JSON
    text = str(error)
    if _OUT_OF_RANGE.match(text):
        return Reason.RANGE
    return Reason.NO_IDENTITY if _IDENTITY.search(text) else Reason.SCHEMA


def check_depth(document: Any, field: str) -> None:
    """Raises Invalid for what is nested deeper than DEEPEST."""
    level = [document]
    for _ in range(DEEPEST):
        level = [inner for each in level if isinstance(each, dict | list) for inner in _inside(each)]
        if not level:
            return
    raise Invalid(Reason.SCHEMA, f"{field} is nested more than {DEEPEST} levels deep")


def _inside(each: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return each.values() if isinstance(each, dict) else each


def check_version(version: Any) -> None:
    """Raises Invalid for versions this sink was not written for."""
    if isinstance(version, int) and version > SCHEMA_VERSION:
        message = f"schema_version {version} is newer than {SCHEMA_VERSION}, the newest this sink knows"
        raise Invalid(Reason.UNSUPPORTED_VERSION, message)
    if version != SCHEMA_VERSION:
        raise Invalid(Reason.SCHEMA, f"schema_version is {version!r}; expected {SCHEMA_VERSION}")


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How far from the sink's clock an event may be, in seconds (settings MAX_AGE, MAX_FUTURE)."""

    max_age: float
    max_future: float

    def window(self, now: Micros) -> tuple[Micros, Micros]:
        """(oldest, newest) time that is accepted at `now`."""
        return now - int(self.max_age * MICROSECONDS), now + int(self.max_future * MICROSECONDS)


def refuse_time(time: Micros, window: tuple[Micros, Micros]) -> Invalid:
    """The verdict for a time outside `window`."""
    oldest, newest = window
    if time < oldest:
        return Invalid(Reason.TOO_OLD, f"{(oldest - time) / MICROSECONDS:.0f} s older than MAX_AGE allows")
    return Invalid(Reason.IN_FUTURE, f"{(time - newest) / MICROSECONDS:.0f} s further ahead than MAX_FUTURE allows")
