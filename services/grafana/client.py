"""Grafana's HTTP API: one request, its answer as JSON, or one line that says what is wrong and what to do.

Source: Grafana's HTTP API documentation, legacy `/api` routes, which versions 11 to 13 all serve.
"""

from __future__ import annotations

import html
import json
import re
import socket
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

import requests
from requests import exceptions as failures

from services.grafana.credentials import Credentials
from services.grafana.errors import GrafanaError, RefusedError
from services.ops.clock import Clock, SystemClock

CONNECT_SECONDS: Final = 5.0
"""A server on the same network accepts within milliseconds, one across the world within one second."""
READ_SECONDS: Final = 30.0
"""Saving a large dashboard takes Grafana tenths of a second; a busy SQLite some."""
ATTEMPTS: Final = 5
"""Of a request that Grafana puts off (429) or fails at itself (5xx): 0.5 + 1 + 2 + 4 s apart, enough for a restart."""
FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 30.0
"""Seconds. A server that asks for more patience than this is reported, not waited for."""
PASSING: Final = frozenset({429, 500, 502, 503, 504})
"""Statuses that may pass: rate limits, SQLite's `database is locked`, a proxy whose Grafana restarts."""
_SAID: Final = 300
"""Characters of a server's own words that are shown."""
_LOGIN: Final = re.compile(r"(^|[/._-])(log-?in|sign[_-]?in|oauth2?|sso|saml2?|auth)([/._-]|$)", re.IGNORECASE)
"""Part of a path or host name where people log in."""
_PAGE: Final = re.compile(r"(?<!/)/(?:(?:d|d-solo)/.*|(?:login|api|dashboards|explore|connections)(?:/.*)?)$")
"""The end of an address copied from the browser. A sub-path may look like it: it counts only once the address fails."""


class Grafana:
    """One server and one login. Requests that may pass are repeated, with limits; all of ours may be sent twice."""

    def __init__(
        self, url: str, credentials: Credentials | None, verify: bool | str = True, clock: Clock | None = None
    ) -> None:
        """`url`: with the sub-path, where Grafana has one. `verify`: as `requests` has it. Raises GrafanaError."""
        parts = _parts(url)
        found = _userinfo(parts)
        if found is not None and credentials is not None:
            raise GrafanaError("a login in the URL and another one beside it: give one of them")
        self._credentials = credentials or found
        self.url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
        """Without a login in it: it is shown."""
        self.origin = self.url[: len(self.url) - len(parts.path.rstrip("/"))]
        self._clock = clock or SystemClock()
        self._verify = verify
        self._hidden: list[str] = []
        self._session = requests.Session()
        self._session.headers["Accept"] = "application/json"
        # An auth object, not a header: `requests` puts the login of ~/.netrc over a header.
        self._session.auth = self._credentials

    @property
    def has_login(self) -> bool:
        return self._credentials is not None

    def health(self) -> str:
        """Grafana's version. Raises GrafanaError where no Grafana answers, or a sick one."""
        try:
            return self._healthy()
        except GrafanaError as error:
            hint = _page_hint(self.url)
            if hint is None:
                raise
            raise GrafanaError(f"{hint}; as it is: {error}") from None

    def _healthy(self) -> str:
        try:
            answer = self._json(self._patiently("GET", "/api/health", None, None), "")
        except RefusedError as error:
            if error.status == 404:
                raise GrafanaError(
                    f"{self.url} is not a Grafana, or the sub-path is missing or wrong (404 for /api/health); "
                    "behind a proxy it is often like http://host/grafana"
                ) from None
            raise
        if not isinstance(answer, dict) or "database" not in answer:
            raise GrafanaError(f"{self.url}/api/health does not answer as Grafana does: {self._short(str(answer))}")
        if answer["database"] != "ok":
            raise GrafanaError(f"Grafana at {self.url} cannot use its own database ({answer['database']})")
        return str(answer.get("version") or "of unknown version")  # anonymous users may be denied it

    def get(self, path: str, needs: str, **parameters: str | int) -> Any:
        """`needs`: the permission that a 403 speaks of. Raises GrafanaError."""
        return self._json(self._patiently("GET", path, None, parameters), needs)

    def post(self, path: str, body: Mapping[str, Any], needs: str) -> Any:
        return self._json(self._patiently("POST", path, body, None), needs)

    def _patiently(
        self, method: str, path: str, body: Mapping[str, Any] | None, parameters: Mapping[str, str | int] | None
    ) -> requests.Response:
        wait = FIRST_WAIT
        for left in range(ATTEMPTS - 1, -1, -1):
            answer = self._once(method, path, body, parameters)
            if answer.status_code not in PASSING or left == 0:
                break
            asked = _retry_after(answer.headers.get("Retry-After"), self._clock)
            if asked is not None and asked > LONGEST_WAIT:
                raise GrafanaError(
                    f"Grafana at {self.url} wants {asked:.0f} s of patience (HTTP {answer.status_code}, Retry-After); "
                    "try again then"
                )
            self._clock.sleep(asked if asked is not None else wait)
            wait *= 2
        return answer

    def _once(
        self, method: str, path: str, body: Mapping[str, Any] | None, parameters: Mapping[str, str | int] | None
    ) -> requests.Response:
        try:
            return self._session.request(
                method, self.url + path, json=body, params=parameters, allow_redirects=False,
                timeout=(CONNECT_SECONDS, READ_SECONDS), verify=self._verify,
            )  # fmt: skip
        except failures.RequestException as error:
            raise GrafanaError(self._clean(_broken(error, self.url))) from None

    def _json(self, answer: requests.Response, needs: str) -> Any:
        status = answer.status_code
        if 300 <= status < 400:
            raise GrafanaError(self._clean(_redirected(answer.headers.get("Location", ""), self.url, self.origin)))
        document = _document(answer)
        said = self._short(_message(answer, document))
        if status in (401, 403):
            raise RefusedError(self._denied(status, said, needs), status, said)
        if status >= 400:
            word = str(document.get("status", "")) if isinstance(document, dict) else ""
            times = f" {ATTEMPTS} times" if status in PASSING else ""
            raise RefusedError(f"HTTP {status}{times} from {self.url}: {said}", status, said, word)
        if document is None:
            raise GrafanaError(
                f"{self.url} answers with {_kind(answer)} where Grafana's API has JSON: a login page or another server "
                "stands there, or the sub-path is missing"
            )
        return document

    def _denied(self, status: int, said: str, needs: str) -> str:
        who = self._credentials.words if self._credentials else "no login was given"
        if status == 401:
            return f"Grafana at {self.url} does not accept the login (401, {who}): {said}"
        wanted = f"; it needs {needs}" if needs else ""
        return f"Grafana at {self.url} does not allow this (403, {who}){wanted}. It says: {said}"

    def _short(self, text: str) -> str:
        printable = "".join(char if char.isprintable() else " " for char in self._clean(text))
        return " ".join(printable.split())[:_SAID] or "no reason given"

    def _clean(self, text: str) -> str:
        """Whatever a server or a library says: our secrets are not in it, however they are written."""
        secrets = (*self._hidden, *(self._credentials.secrets if self._credentials else ()))
        forms = {form for secret in secrets for form in _forms(secret)}
        for form in sorted(forms, key=len, reverse=True):  # the longest first, so that none is left in pieces
            text = text.replace(form, "***")
        return text

    def hide(self, secret: str) -> None:
        """A secret we are about to send, which an answer might repeat. One or two characters are in every text."""
        if len(secret) > 2:
            self._hidden.append(secret)


def _forms(secret: str) -> tuple[str, ...]:
    """As it is, and as JSON, a URL and HTML write it."""
    return secret, json.dumps(secret)[1:-1], quote(secret, safe=""), html.escape(secret)


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 80) > 0
    except ValueError:
        parts, usable = SplitResult("", "", "", "", ""), False
    if not usable or parts.query or parts.fragment:
        shown = re.sub(r"//[^/]*@", "//***@", url)
        hint = _page_hint(re.sub(r"[?#].*", "", shown)) or "for example http://localhost:3000"
        raise GrafanaError(f"{shown!r} is not the address of a Grafana; {hint}")
    return parts


def _page_hint(url: str) -> str | None:
    """For an address that seems to be of a page in Grafana."""
    page = _PAGE.search(url)
    return f"leave out {page[0]} (a page in Grafana): --url {url[: page.start()]}" if page else None


def _userinfo(parts: SplitResult) -> Credentials | None:
    if parts.username is None:
        return None
    return Credentials(user=unquote(parts.username), password=unquote(parts.password or ""))


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
    except ValueError:
        return None


def _document(answer: requests.Response) -> dict[str, Any] | list[Any] | None:
    try:
        found = answer.json()
    except ValueError:
        return None
    return found if isinstance(found, dict | list) else None


def _message(answer: requests.Response, document: dict[str, Any] | list[Any] | None) -> str:
    """Grafana says `message`; a Kubernetes-like error has it too; a proxy answers with a page."""
    if isinstance(document, dict):
        return str(document.get("message") or document.get("error") or "")
    if _kind(answer) == "a web page":
        title = re.search(r"<title>(.*?)</title>", answer.text, re.DOTALL | re.IGNORECASE)
        return f"a web page, {title[1].strip()!r}" if title else "a web page"
    return answer.text


def _kind(answer: requests.Response) -> str:
    page = "html" in answer.headers.get("Content-Type", "") or answer.text.lstrip()[:1] == "<"
    return "a web page" if page else "something else"


def _redirected(location: str, url: str, origin: str) -> str:
    target = location if "://" in location else f"{origin}{location}"
    path = urlsplit(target).path
    if _LOGIN.search(path) or _LOGIN.search(urlsplit(target).hostname or ""):
        return (
            f"{url} sends us to a login page ({target.partition('?')[0]}): something before Grafana wants people to "
            "log in. Use an address that leads to Grafana itself"
        )
    base = re.sub(r"/api/.*$", "", target)
    hint = f"try --url {base}" if base.rstrip("/") != url else "look at root_url and serve_from_sub_path"
    return f"{url} redirects to {target}: {hint}"


def _broken(error: failures.RequestException, url: str) -> str:
    """The reason without the library's nesting."""
    for kind, words in _BROKEN:
        if isinstance(error, kind):
            return words(error, url)
    return f"{url}: the connection broke ({type(error).__name__})"


def _tls(error: Exception, url: str) -> str:
    text = str(error)
    if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text:
        return f"{url} does not speak TLS: try http://"
    reason = re.search(r"CERTIFICATE_VERIFY_FAILED\] [^:]+: ([^(\"']+)", text)
    return (
        f"{url}: its certificate is not trusted ({reason[1].strip() if reason else 'TLS failed'}); name its CA with "
        "--ca-file FILE (or REQUESTS_CA_BUNDLE), or go without with --insecure"
    )


def _unreachable(error: Exception, url: str) -> str:
    found: BaseException | None = error
    seen: list[BaseException] = []
    while found is not None and found not in seen:
        seen.append(found)
        if isinstance(found, socket.gaierror):
            return f"{url}: no such host ({found.strerror})"
        if isinstance(found, OSError) and found.strerror and not isinstance(found, failures.RequestException):
            return f"nobody answers at {url} ({found.strerror}); is Grafana running there?"
        inner = getattr(found, "reason", None)
        arguments = [a for a in getattr(found, "args", ()) if isinstance(a, BaseException)]
        candidates = [
            inner if isinstance(inner, BaseException) else None,
            found.__cause__,
            *arguments,
            found.__context__,
        ]
        found = next((c for c in candidates if c is not None), None)
    return f"{url}: the connection broke before an answer; is it http:// or https://?"


def _words(text: str) -> Callable[[Exception, str], str]:
    return lambda _error, url: f"{url}: {text}"


_BROKEN: Final[tuple[tuple[type[Exception], Callable[[Exception, str], str]], ...]] = (
    (failures.SSLError, _tls),
    (failures.ProxyError, _words("the proxy of HTTP_PROXY or HTTPS_PROXY fails; NO_PROXY goes past it")),
    (failures.ConnectTimeout, _words(f"nobody answers within {CONNECT_SECONDS:g} s")),
    (failures.ReadTimeout, _words(f"it took the request and did not answer within {READ_SECONDS:g} s")),
    (failures.ConnectionError, _unreachable),
)
"""The first that fits: all but the last are kinds of it."""
