"""What may go wrong with a Grafana, each in one line for the user."""

from __future__ import annotations


class GrafanaError(Exception):
    """One line that names no secret. `unclear`: Grafana may have done what was asked all the same."""

    def __init__(self, message: str, *, unclear: bool = False) -> None:
        super().__init__(message)
        self.unclear = unclear


class BrokenError(GrafanaError):
    """No whole answer came."""

    def __init__(self, message: str) -> None:
        super().__init__(message, unclear=True)


class RefusedError(GrafanaError):
    """Grafana answered, and not with success."""

    def __init__(self, message: str, status: int, said: str, word: str = "", *, unclear: bool = False) -> None:
        super().__init__(message, unclear=unclear)
        self.status = status
        self.said = said
        """Its own message."""
        self.word = word
        """The `status` in the answer, for example `version-mismatch`."""


class DeniedError(RefusedError):
    """401 or 403: the login is not accepted, or not for this."""


class NoSourceError(GrafanaError):
    """There is no such data source, or more than one to choose from."""
