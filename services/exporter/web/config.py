"""TLS and basic authentication from a file in the format of Prometheus' exporter toolkit (`--web-config-file`).

    tls_server_config:
      cert_file: server.crt          # relative to this file
      key_file: server.key
      client_auth_type: RequireAndVerifyClientCert
      client_ca_file: ca.crt
    basic_auth_users:
      prometheus: $2b$10$...         # htpasswd -nbBC 10 prometheus secret

`load(path)` -> WebConfig: give `ssl_context` to the server and `middleware` to the application. The file, the
certificate and the key are looked at again with new connections and requests: changed users and renewed certificates
hold at once; a file that is wrong by then changes nothing and is logged. Whether there is TLS, its versions and
`client_auth_type` are those of the start. What the format has and this server does not offer is refused, not ignored:
nobody shall believe to be protected.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import yaml
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from services.exporter.web.basic_auth import BasicAuth
from services.ops.clock import Clock, SystemClock
from services.ops.regular_file import check_regular, read_regular

log = logging.getLogger("exporter")

LOOK: Final = 1.0
"""Seconds between two looks at the files: two or three calls of stat."""


MAX_BYTES: Final = 64 * 1024
"""Of the file: hundreds of users. It is parsed by the thread that answers requests, so that it must not take long."""


class WebConfigError(Exception):
    """The file cannot be used; the message says which file, which key and what is allowed."""


_AUTH_TYPES: Final = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_VERSIONS: Final = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_NOT_OFFERED: Final = frozenset({
    "cert", "key", "client_ca", "client_allowed_sans", "cipher_suites", "curve_preferences", "headers", "rate_limit",
})  # fmt: skip
"""Keys of the format that would be understood wrongly if they were skipped."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class TlsServerConfig(_Strict):
    """Section tls_server_config."""

    cert_file: Path
    key_file: Path
    client_auth_type: Literal["NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"] = "NoClientCert"
    """The format's other two ask for a certificate and believe any: that is no check, and not offered."""
    client_ca_file: Path | None = None
    min_version: Literal["TLS12", "TLS13"] = "TLS12"
    """TLS 1.0 and 1.1 are deprecated (RFC 8996) and not offered."""
    max_version: Literal["TLS12", "TLS13"] = "TLS13"
    prefer_server_cipher_suites: bool = True
    """Taken, without effect: as in the toolkit itself since Go 1.17."""

    @model_validator(mode="after")
    def _belong_together(self) -> TlsServerConfig:
        verifies = self.client_auth_type != "NoClientCert"
        if verifies and self.client_ca_file is None:
            raise ValueError(f"client_auth_type {self.client_auth_type} needs client_ca_file")
        if not verifies and self.client_ca_file is not None:
            raise ValueError("client_ca_file without client_auth_type: no client would be checked")
        if self.min_version > self.max_version:
            raise ValueError("min_version is above max_version")
        return self


class _HttpServerConfig(_Strict):
    http2: bool = False
    """Taken: this server speaks HTTP/1.1, and clients settle for it."""


class _Document(_Strict):
    tls_server_config: TlsServerConfig | None = None
    http_server_config: _HttpServerConfig | None = None
    basic_auth_users: dict[str, str] = Field(default_factory=dict)

    @field_validator("basic_auth_users")
    @classmethod
    def _are_hashes(cls, users: dict[str, str]) -> dict[str, str]:
        for name, text in users.items():
            if not _is_bcrypt(text):
                raise ValueError(f"the value of {name!r} is no bcrypt hash; make one with: htpasswd -nBC 10 {name}")
            if ":" in name or not name:
                raise ValueError(f"{name!r} is no user name: it is empty or has a colon")
        return users


_SECTIONS: Final[dict[str, type[BaseModel]]] = {
    "tls_server_config": TlsServerConfig,
    "http_server_config": _HttpServerConfig,
}


@dataclass(frozen=True, slots=True)
class _State:
    """One reading of the files."""

    document: _Document
    context: ssl.SSLContext | None
    auth: BasicAuth | None
    stamp: tuple[object, ...]
    """Changes when one of the files does."""


class WebConfig:
    """Use `load`."""

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._path = path
        self._clock = clock or SystemClock()
        self._state = _read(path)
        self._looked = self._clock.monotonic()
        self._problem: str | None = None
        self.ssl_context: ssl.SSLContext | None = self._state.context
        """For the server; None: plain HTTP."""
        if self.ssl_context is not None:
            self.ssl_context.sni_callback = self._on_hello

    @property
    def scheme(self) -> Literal["http", "https"]:
        return "http" if self.ssl_context is None else "https"

    @property
    def middleware(self) -> Middleware:
        """For the application; lets everybody in where the file names no users."""

        @web.middleware
        async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
            self.refresh()
            auth = self._state.auth
            if auth is None or await auth.allows(request.headers.get("Authorization")):
                return await handler(request)
            return web.Response(
                status=401, text="Unauthorized\n", headers={"WWW-Authenticate": 'Basic realm="gpumon", charset="UTF-8"'}
            )

        return authenticate

    def refresh(self) -> None:
        """Read the files again if one has changed. Never raises: the old state stays in force, and the log says why."""
        now = self._clock.monotonic()
        if now - self._looked < LOOK:
            return
        self._looked = now
        stamp = (_file_stamp(self._path), *_certificate_stamps(self._path, self._state.document.tls_server_config))
        if stamp == self._state.stamp:
            return
        try:
            self._state = _changed(self._state, _read(self._path))
        except WebConfigError as error:
            if str(error) != self._problem:
                log.error("the old web configuration stays in force: %s", error)
            self._problem = str(error)
        else:
            self._problem = None
            log.info("web configuration read again", extra={"path": str(self._path)})

    def _on_hello(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Each handshake: a renewed certificate holds from the next connection on."""
        self.refresh()
        if self._state.context is not None:
            connection.context = self._state.context


def load(path: Path, clock: Clock | None = None) -> WebConfig:
    """Read the file and the certificate. Raises WebConfigError."""
    return WebConfig(path, clock)


def _read(path: Path) -> _State:
    before = _file_stamp(path)  # stamps first: what changes while we read is read again
    try:
        content = yaml.safe_load(read_regular(path, MAX_BYTES).decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise WebConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    except RecursionError:
        raise WebConfigError(f"{path}: no web configuration: it is nested too deep") from None
    except yaml.YAMLError as error:
        raise WebConfigError(f"{path}: no YAML: {str(error).splitlines()[0]}") from None
    if content is not None and not isinstance(content, dict):
        raise WebConfigError(
            f"{path}: expected tls_server_config and basic_auth_users, found a {type(content).__name__}"
        )
    try:
        document = _Document.model_validate(content or {})
    except ValidationError as error:
        raise WebConfigError(f"{path}: {_explain(error)}") from None
    tls = document.tls_server_config
    stamp = (before, *_certificate_stamps(path, tls))
    context = None if tls is None else _context(tls, path.parent)
    auth = BasicAuth(document.basic_auth_users) if document.basic_auth_users else None
    return _State(document, context, auth, stamp)


def _context(tls: TlsServerConfig, directory: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = _VERSIONS[tls.min_version], _VERSIONS[tls.max_version]
    context.set_alpn_protocols(["http/1.1"])
    for name in filter(None, (tls.cert_file, tls.key_file, tls.client_ca_file)):
        _check_file(directory / name)
    files = f"cert_file {directory / tls.cert_file}, key_file {directory / tls.key_file}"
    try:
        # An encrypted key would ask at the terminal; with the empty pass phrase it fails.
        context.load_cert_chain(directory / tls.cert_file, directory / tls.key_file, password="")
        if tls.client_ca_file is not None:
            files = f"client_ca_file {directory / tls.client_ca_file}"
            context.load_verify_locations(directory / tls.client_ca_file)
    except ssl.SSLError as error:
        raise WebConfigError(f"tls_server_config: {files}: {error.reason or error}") from None
    except OSError as error:
        raise WebConfigError(f"tls_server_config: {files}: {error.strerror}") from None
    context.verify_mode = _AUTH_TYPES[tls.client_auth_type]
    return context


def _check_file(path: Path) -> None:
    """OpenSSL would wait for somebody to write into a FIFO."""
    try:
        check_regular(path.stat(), path)
    except OSError as error:
        raise WebConfigError(f"tls_server_config: {path}: {error.strerror}") from None


def _changed(old: _State, new: _State) -> _State:
    """`new`, with what cannot change while the server runs left as it was."""
    if _fixed(old.document.tls_server_config) == _fixed(new.document.tls_server_config):
        return new
    log.warning("TLS on or off, its versions and client_auth_type change with a restart only")
    return _State(new.document, old.context, new.auth, new.stamp)


def _fixed(tls: TlsServerConfig | None) -> tuple[str, str, str] | None:
    return None if tls is None else (tls.client_auth_type, tls.min_version, tls.max_version)


def _certificate_stamps(path: Path, tls: TlsServerConfig | None) -> tuple[object, ...]:
    named = () if tls is None else (tls.cert_file, tls.key_file, tls.client_ca_file)
    return tuple(_file_stamp(path.parent / name) for name in named if name is not None)


def _file_stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _is_bcrypt(text: str) -> bool:
    parts = text.split("$")
    return len(parts) == 4 and parts[1] in ("2a", "2b", "2y") and parts[2].isdecimal() and len(parts[3]) == 53


def _explain(error: ValidationError) -> str:
    """One line per wrong key, never with a value: some are hashes."""
    return "; ".join(
        _line(".".join(str(part) for part in item["loc"]), item["type"], item["msg"]) for item in error.errors()
    )


def _line(name: str, kind: str, message: str) -> str:
    if kind != "extra_forbidden":
        text = message.removeprefix("Value error, ")
        return f"{name}: {text}"
    section, _, key = name.rpartition(".")
    if key in _NOT_OFFERED:
        return f"{name}: not offered by this exporter"
    model = _SECTIONS.get(section, _Document)
    return f"{name}: unknown key; allowed are {', '.join(model.model_fields)}"
