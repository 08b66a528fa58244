"""One request and its whole answer, within limits of time and size."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

import requests
from requests import exceptions as failures
from urllib3 import exceptions as inner_failures

from services.grafana.credentials import Credentials
from services.grafana.errors import BrokenError, GrafanaError
from services.grafana.reasons import broken
from services.ops.regular_file import read_regular

CONNECT_SECONDS: Final = 5.0
"""A server on the same network accepts within milliseconds, one across the world within one second."""
WHOLE_SECONDS: Final = 30.0
"""Until the last byte of the answer. Saving a large dashboard takes Grafana tenths of a second; a busy SQLite some."""
MOST_BYTES = 32 * 1024 * 1024
"""Of an answer, unpacked. Grafana itself takes no dashboard above 16 MiB; 1,000 folders or data sources are below 1."""
_MOST_CA_BYTES: Final = 16 * 1024 * 1024
"""The bundle of all public authorities has a quarter of a MiB."""
_PIECE: Final = 65536
_FAILURES: Final = (failures.RequestException, inner_failures.HTTPError, OSError, UnicodeError)
"""Of the network, and of what a server sends."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """By name in any case of letters."""
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    url: str
    body: Mapping[str, Any] | None = None
    parameters: Mapping[str, str | int] | None = None


class Transport:
    """To one server. `verify`: as `requests` has it. `seconds`: for each request, until its answer is whole."""

    def __init__(self, login: Credentials | None, verify: bool | str, seconds: float) -> None:
        self._login, self._verify, self._seconds = login, verify, seconds
        self._session = self._opened()

    def send(self, request: Request) -> Answer:
        """Raises BrokenError.

        In a thread of its own: the time-outs of a socket start anew with every byte, and looking up a name has none.
        One that is given up ends with its connection, or with the process.
        """
        found: SimpleQueue[Answer | Exception] = SimpleQueue()
        given_up = threading.Event()
        threading.Thread(target=self._work, args=(request, found, given_up), daemon=True).start()
        try:
            outcome = found.get(timeout=self._seconds)
        except Empty:
            given_up.set()
            self._session = self._opened()  # the other may still be in use
            outcome = failures.ReadTimeout()
        if isinstance(outcome, Answer):
            return outcome
        raise self._named(outcome, request)

    def _named(self, error: Exception, request: Request) -> Exception:
        """What is no failure of the network is one of this program, and stays what it is."""
        server = request.url.rpartition("/api/")[0]
        if isinstance(error, failures.ReadTimeout):
            return BrokenError(
                f"{server} took the request and gave no whole answer within {self._seconds:g} s; "
                "--timeout gives it longer"
            )
        return BrokenError(broken(error, server)) if isinstance(error, _FAILURES) else error

    def _opened(self) -> requests.Session:
        session = requests.Session()
        session.headers["Accept"] = "application/json"
        # An auth object, not a header: `requests` puts the login of ~/.netrc over a header.
        session.auth = self._login
        return session

    def _work(self, request: Request, found: SimpleQueue[Answer | Exception], given_up: threading.Event) -> None:
        try:
            found.put(self._exchange(self._session, request, given_up))
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits for it, which raises it
            found.put(error)

    def _exchange(self, session: requests.Session, request: Request, given_up: threading.Event) -> Answer:
        prepared = session.prepare_request(
            requests.Request(request.method, request.url, json=request.body, params=request.parameters)
        )
        settings: dict[str, Any] = dict(session.merge_environment_settings(prepared.url, {}, True, self._verify, None))
        limits = (min(CONNECT_SECONDS, self._seconds), self._seconds)
        # The adapter, not the session: that one reads the whole body of a redirect, and follows what stands in it.
        with session.get_adapter(prepared.url or "").send(prepared, timeout=limits, **settings) as response:
            return Answer(response.status_code, response.headers, _read(response, given_up))


def _read(response: requests.Response, given_up: threading.Event) -> bytes:
    body = bytearray()
    for piece in response.iter_content(_PIECE):
        body += piece
        if len(body) > MOST_BYTES:
            raise BrokenError(
                f"{response.url.rpartition('/api/')[0]} answers with more than {MOST_BYTES // 1024**2} MiB: that is no "
                "answer of Grafana's API"
            )
        if given_up.is_set():
            break
    return bytes(body)


def trusted(ca_file: str) -> str:
    """The file, once it is sure that it holds certificates. Raises GrafanaError."""
    try:
        read_regular(Path(ca_file), _MOST_CA_BYTES)
        ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise GrafanaError(
            f"--ca-file {ca_file}: it holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"
        ) from None
    except OSError as error:
        raise GrafanaError(f"--ca-file {ca_file}: {error.strerror}") from None
    return ca_file
