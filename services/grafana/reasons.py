"""Why no answer came, or one that leads away: in words for the user, without a library's nesting."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from requests import exceptions as failures

from services.grafana.words import NAME, SAID, visible

_LOGIN: Final = re.compile(r"(^|[/._-])(log-?in|sign[_-]?in|oauth2?|sso|saml2?|auth)([/._-]|$)", re.IGNORECASE)
"""Part of a path or host name where people log in."""


def broken(error: Exception, url: str) -> str:
    """Of what `requests` raises while it sends or reads."""
    for kind, words in _BROKEN:
        if isinstance(error, kind):
            return words(error, url)
    return f"{url}: the connection broke ({type(error).__name__})"


def redirected(location: str, url: str, origin: str) -> str:
    """`location`: the header. Of it host and path are shown: logins and tokens stand in the rest."""
    target = _target(location, url)
    if target is None:
        return f"{url} redirects to an address that is none: look at root_url and serve_from_sub_path"
    shown = visible(_bare(target), SAID)
    if _LOGIN.search(target.path) or _LOGIN.search(target.hostname or ""):
        return (
            f"{url} sends us to a login page ({shown}): something before Grafana wants people to "
            "log in. Use an address that leads to Grafana itself"
        )
    base = re.sub(r"/api/.*$", "", shown)
    there = base.rstrip("/") in (url, origin)
    return f"{url} redirects to {shown}: {'look at root_url and serve_from_sub_path' if there else f'try --url {base}'}"


def _target(location: str, url: str) -> SplitResult | None:
    try:
        return urlsplit(urljoin(f"{url}/", location))
    except ValueError:
        return None


def _bare(target: SplitResult) -> str:
    """Scheme, host and path. An `@` in the path: a password with a slash in it; after `;` stand parameters."""
    path = "" if "@" in target.path else target.path.partition(";")[0]
    return f"{target.scheme}://{target.netloc.rpartition('@')[2]}{path}"


def _tls(error: Exception, url: str) -> str:
    text = str(error)
    if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text:
        return f"{url} does not speak TLS: try http://"
    reason = re.search(r"CERTIFICATE_VERIFY_FAILED\] [^:]+: ([^(\"']+)", text)
    return (
        f"{url}: its certificate is not trusted ({visible(reason[1]) if reason else 'TLS failed'}); name its CA with "
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
        found = _inner(found)
    return f"{url}: the connection broke before an answer; is it http:// or https://?"


def _inner(error: BaseException) -> BaseException | None:
    """What lies behind it: each library keeps it in another place."""
    reason = getattr(error, "reason", None)
    arguments = [a for a in getattr(error, "args", ()) if isinstance(a, BaseException)]
    candidates = [reason if isinstance(reason, BaseException) else None, error.__cause__, *arguments, error.__context__]
    return next((c for c in candidates if c is not None), None)


def _file(error: Exception, url: str) -> str:
    """`requests` says so of a bundle that is not there."""
    if "CA certificate bundle" in str(error):
        return f"{url}: REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names no file ({visible(str(error).rpartition(' ')[2])})"
    return f"{url}: the connection broke ({visible(getattr(error, 'strerror', None) or type(error).__name__, NAME)})"


def _words(text: str) -> Callable[[Exception, str], str]:
    return lambda _error, url: f"{url}: {text}"


_BROKEN: Final[tuple[tuple[type[Exception], Callable[[Exception, str], str]], ...]] = (
    (failures.SSLError, _tls),
    (failures.ProxyError, _words("the proxy of HTTP_PROXY or HTTPS_PROXY fails; NO_PROXY goes past it")),
    (failures.ConnectTimeout, _words("nobody answers: the connection is not accepted in time")),
    (failures.ConnectionError, _unreachable),
    (failures.ChunkedEncodingError, _words("the connection broke in the middle of the answer")),
    (failures.ContentDecodingError, _words("its answer is packed badly (Content-Encoding)")),
    (failures.RequestException, lambda error, url: f"{url}: the connection broke ({type(error).__name__})"),
    (OSError, _file),
)
"""The first that fits: earlier ones are kinds of later ones."""
