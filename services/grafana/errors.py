"""What may go wrong with a Grafana, each in one line for the user."""

from __future__ import annotations


class GrafanaError(Exception):
    """One line that names no secret."""


class RefusedError(GrafanaError):
    """Grafana answered, and not with success."""

    def __init__(self, message: str, status: int, said: str, word: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.said = said
        """Its own message."""
        self.word = word
        """The `status` in the answer, for example `version-mismatch`."""


class NoSourceError(GrafanaError):
    """There is no such data source, or more than one to choose from."""
