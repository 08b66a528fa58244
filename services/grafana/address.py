"""The address of a Grafana, as the user gives it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from services.grafana.credentials import Credentials
from services.grafana.errors import GrafanaError
from services.grafana.words import SAID, visible

_PAGE: Final = re.compile(r"(?<!/)/(?:(?:d|d-solo)/.*|(?:login|api|dashboards|explore|connections)(?:/.*)?)$")
"""The end of an address copied from the browser. A sub-path may look like it: it counts only once the address fails."""
_HOST: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")
"""In ASCII, as it is looked up. The underscore is of compose files, not of the DNS."""
_LONGEST_HOST: Final = 253
"""Characters: RFC 1035, section 2.3.4, as text."""


@dataclass(frozen=True, slots=True)
class Address:
    """`url` and `origin` hold no login: they are shown."""

    url: str
    """With the sub-path, without a slash at the end."""
    origin: str
    login: Credentials | None


def parse(url: str) -> Address:
    """Raises GrafanaError, which shows no login either."""
    parts = _parts(url)
    if parts is None or parts.query or parts.fragment:
        shown = re.sub(r"^([a-zA-Z0-9+.-]+://)?.*@", r"\1***@", url, flags=re.DOTALL)
        hint = page_hint(re.sub(r"[?#].*", "", shown)) or "for example http://localhost:3000"
        raise GrafanaError(f"'{visible(shown, SAID)}' is not the address of a Grafana; {visible(hint, SAID)}")
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
    return Address(bare, bare[: len(bare) - len(parts.path.rstrip("/"))], _login(parts))


def page_hint(url: str) -> str | None:
    """For an address that seems to be of a page in Grafana."""
    page = _PAGE.search(url)
    return f"leave out {page[0]} (a page in Grafana): --url {url[: page.start()]}" if page else None


def _parts(url: str) -> SplitResult | None:
    """None where nothing could be asked there."""
    text = url.strip()
    if not text.isprintable() or " " in text:  # `urlsplit` would leave line breaks out, and ask another host
        return None
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.port != 0 and _can_be_looked_up(parts.hostname or "")
    except ValueError:  # also of a host's name that cannot be written in ASCII
        return None
    return parts if usable else None


def _can_be_looked_up(host: str) -> bool:
    """Raises ValueError or gives False for what is neither a name nor an address."""
    if ":" in host:
        return bool(ipaddress.IPv6Address(host))
    plain = host.encode("idna").decode("ascii")  # refuses labels that are empty or longer than 63 characters
    return len(plain) <= _LONGEST_HOST and _HOST.fullmatch(plain) is not None


def _login(parts: SplitResult) -> Credentials | None:
    if parts.username is None:
        return None
    return Credentials(user=unquote(parts.username), password=unquote(parts.password or ""))
