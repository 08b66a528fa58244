"""Grafana's HTTP API: one request, its answer in a known shape, or one line that says what is wrong and what to do.

Source: Grafana's HTTP API documentation, legacy `/api` routes, which versions 11 to 13 all serve.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter

from services.grafana import answers
from services.grafana.address import page_hint, parse
from services.grafana.credentials import Credentials
from services.grafana.errors import BrokenError, DeniedError, GrafanaError, RefusedError
from services.grafana.reasons import redirected
from services.grafana.transport import WHOLE_SECONDS, Answer, Request, Transport
from services.grafana.words import SAID, hidden, visible
from services.ops.clock import Clock, SystemClock

ATTEMPTS: Final = 5
"""Of a request that Grafana puts off (429) or fails at itself (5xx): 0.5 + 1 + 2 + 4 s apart, enough for a restart."""
FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 30.0
"""Seconds. A server that asks for more patience than this is reported, not waited for."""
PASSING: Final = frozenset({429, 500, 502, 503, 504})
"""Statuses that may pass: rate limits, SQLite's `database is locked`, a proxy whose Grafana restarts."""
T = TypeVar("T")


class Grafana:
    """One server and one login. Requests that may pass are repeated, with limits; all of ours may be sent twice."""

    def __init__(
        self,
        url: str,
        credentials: Credentials | None,
        verify: bool | str = True,
        seconds: float = WHOLE_SECONDS,
        clock: Clock | None = None,
    ) -> None:
        """`url`: with the sub-path, where Grafana has one. `verify`: as `requests` has it. `seconds`: for each request.
        Raises GrafanaError."""
        address = parse(url)
        if address.login is not None and credentials is not None:
            raise GrafanaError("a login in the URL and another one beside it: give one of them")
        self._credentials = credentials or address.login
        self.url, self._origin = address.url, address.origin
        self._transport = Transport(self._credentials, verify, seconds)
        self._clock = clock or SystemClock()
        self._hidden: list[str] = []

    @property
    def has_login(self) -> bool:
        return self._credentials is not None

    def health(self) -> str:
        """Grafana's version. Raises GrafanaError where no Grafana answers, or a sick one."""
        try:
            return self._healthy()
        except GrafanaError as error:
            hint = page_hint(self.url)
            if hint is None:
                raise
            raise GrafanaError(f"{hint}; as it is: {error}") from None

    def _healthy(self) -> str:
        try:
            found = self.get("/api/health", answers.HEALTH, "")
        except RefusedError as error:
            if error.status == 404:
                raise GrafanaError(
                    f"{self.url} is not a Grafana, or the sub-path is missing or wrong (404 for /api/health); "
                    "behind a proxy it is often like http://host/grafana"
                ) from None
            raise
        if found.database != "ok":
            raise GrafanaError(f"Grafana at {self.url} cannot use its own database ({self._short(found.database)})")
        return visible(found.version or "of unknown version")

    def get(self, path: str, shape: TypeAdapter[T], needs: str, **parameters: str | int) -> T:
        """`needs`: the permission that a 403 speaks of. Raises GrafanaError."""
        return self._answered(Request("GET", self.url + path, parameters=parameters), shape, needs)

    def post(self, path: str, body: Mapping[str, Any], shape: TypeAdapter[T], needs: str) -> T:
        """Raises GrafanaError; one that is `unclear` where Grafana may have done it all the same."""
        return self._answered(Request("POST", self.url + path, body), shape, needs)

    def link(self, path: str | None) -> str | None:
        """For people. `path`: as Grafana gives it, beginning with its sub-path; what leads elsewhere is left out."""
        return f"{self._origin}{visible(path, SAID)}" if path and re.match(r"/(?![/\\])", path) else None

    def _answered(self, request: Request, shape: TypeAdapter[T], needs: str) -> T:
        answer, unclear = self._patiently(request)
        return answers.shaped(shape, self._accepted(request, answer, needs, unclear=unclear), request.url)

    def _patiently(self, request: Request) -> tuple[Answer, bool]:
        """The last answer, and whether an attempt before it may have been carried out."""
        wait, unclear = FIRST_WAIT, False
        for left in range(ATTEMPTS - 1, -1, -1):
            answer = self._sent(request)
            if answer.status not in PASSING or left == 0:
                break
            unclear = unclear or answer.status != 429  # that one is refused before anything is done
            asked = _retry_after(answer.headers.get("Retry-After"), self._clock)
            if asked is not None and asked > LONGEST_WAIT:
                raise GrafanaError(
                    f"Grafana at {self.url} wants {asked:.0f} s of patience (HTTP {answer.status}, Retry-After); "
                    "try again then",
                    unclear=unclear,
                )
            self._clock.sleep(asked if asked is not None else wait)
            wait *= 2
        return answer, unclear

    def _sent(self, request: Request) -> Answer:
        try:
            return self._transport.send(request)
        except BrokenError as error:
            raise BrokenError(self._clean(str(error))) from None

    def _accepted(self, request: Request, answer: Answer, needs: str, *, unclear: bool) -> object:
        """The document of an answer that is a success."""
        status = answer.status
        if 300 <= status < 400:
            raise GrafanaError(
                self._clean(redirected(answer.headers.get("Location", ""), self.url, self._origin)), unclear=unclear
            )
        document = answers.document(answer.body)
        if status >= 400:
            raise self._refused(request, answer, document, needs, unclear=unclear)
        if document is answers.NOT_JSON:
            raise GrafanaError(
                f"{self.url} answers with {_kind(answer)} where Grafana's API has JSON: a login page or another server "
                "stands there, or the sub-path is missing",
                unclear=True,
            )
        return document

    def _refused(
        self, request: Request, answer: Answer, document: object, needs: str, *, unclear: bool
    ) -> RefusedError:
        status, said = answer.status, self._short(_message(answer, document))
        if status in (401, 403):
            return DeniedError(self._denied(status, said, needs), status, said, unclear=unclear)
        if status == 404:
            return RefusedError(
                f"{request.url} is not there (404: {said}); a Grafana 11 or newer has it", status, said, unclear=unclear
            )
        word = str(document.get("status", ""))[:SAID] if isinstance(document, dict) else ""
        times = f" {ATTEMPTS} times" if status in PASSING else ""
        return RefusedError(
            f"HTTP {status}{times} from {self.url}: {said}", status, said, word, unclear=unclear or status >= 500
        )

    def _denied(self, status: int, said: str, needs: str) -> str:
        who = self._credentials.words if self._credentials else "no login was given"
        if status == 401:
            return f"Grafana at {self.url} does not accept the login (401, {who}): {said}"
        wanted = f"; it needs {needs}" if needs else ""
        return f"Grafana at {self.url} does not allow this (403, {who}){wanted}. It says: {said}"

    def _short(self, text: str) -> str:
        return visible(self._clean(text), SAID) or "no reason given"

    def _clean(self, text: str) -> str:
        """Whatever a server or a library says: our secrets are not in it, however they are written."""
        return hidden(text, (*self._hidden, *(self._credentials.secrets if self._credentials else ())))

    def hide(self, secret: str) -> None:
        """A secret we are about to send, which an answer might repeat. One or two characters are in every text."""
        if len(secret) > 2:
            self._hidden.append(secret)


def _retry_after(value: str | None, clock: Clock) -> float | None:
    """Seconds; the header holds them, or a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - clock.time())
    except (ValueError, OverflowError):
        return None


def _message(answer: Answer, document: object) -> str:
    """Grafana says `message`; a Kubernetes-like error has it too; a proxy answers with a page."""
    if isinstance(document, dict):
        found = document.get("message") or document.get("error")
        return found if isinstance(found, str) else ""
    if _kind(answer) == "a web page":
        title = re.search(r"<title>(.*?)</title>", answer.text, re.DOTALL | re.IGNORECASE)
        return f"a web page, '{title[1].strip()}'" if title else "a web page"
    return answer.text


def _kind(answer: Answer) -> str:
    page = "html" in answer.headers.get("Content-Type", "") or answer.body.lstrip()[:1] == b"<"
    return "a web page" if page else "something else"
