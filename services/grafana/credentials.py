"""A login at Grafana: a service account's token, or user and password."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Final

import requests

from services.grafana.errors import GrafanaError

_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
"""What can stand in a header; anything else was cut badly."""


@dataclass(frozen=True, slots=True)
class Credentials(requests.auth.AuthBase):
    """Token, or user with password; adds itself to a request. Its representation holds no secret."""

    user: str | None = None
    password: str = field(default="", repr=False)
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            raise GrafanaError("the token holds spaces, line breaks or no characters at all: copy it anew")

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._header
        return request

    @property
    def _header(self) -> str:
        if self.token is not None:
            return f"Bearer {self.token}"
        # UTF-8, as Grafana reads it; `requests` itself would take Latin-1.
        return f"Basic {self._pair}"

    @property
    def _pair(self) -> str:
        return base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    @property
    def words(self) -> str:
        return "by token" if self.token is not None else f"as user {self.user}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """The longest first, so that none is left in pieces. A password of one or two characters is in every text."""
        found = [self.token or "", self.password if len(self.password) > 2 else "", "" if self.token else self._pair]
        return tuple(sorted((secret for secret in found if secret), key=len, reverse=True))
