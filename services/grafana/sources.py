"""Data sources of a Grafana: find the one the dashboards read from, or make it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from psycopg.conninfo import conninfo_to_dict

from services.grafana import answers
from services.grafana.client import Grafana
from services.grafana.errors import GrafanaError, NoSourceError, RefusedError
from services.grafana.words import listed as names
from services.grafana.words import visible
from services.settings import Settings

_READ: Final = "datasources:read (any organization role has it, unless permissions of data sources are licensed)"
_CREATE: Final = "datasources:create (organization role Admin)"
_SSLMODES: Final = frozenset({"disable", "require", "verify-ca", "verify-full"})
"""Of libpq's, those Grafana's plug-in has."""
NAME: Final = "gpu-telemetry"
"""Of a data source we make; the runbooks' commands look for it by this name."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of data source. `types`: ids of its plug-in, the present one first."""

    words: str
    types: tuple[str, ...]
    uid: str
    """Looked for where none is named: the one of the provisioning files."""
    flag: str


POSTGRESQL: Final = Kind(
    "PostgreSQL", ("grafana-postgresql-datasource", "postgres"), "gpu-telemetry-ds", "--datasource"
)
PROMETHEUS: Final = Kind("Prometheus", ("prometheus",), "gpu-prometheus", "--prometheus")


@dataclass(frozen=True, slots=True)
class Source:
    uid: str
    name: str
    type: str
    status: str = "found"
    """found, created, would be created."""
    reason: str | None = None
    """Why nothing was done, where something was asked for."""
    differs: tuple[str, ...] = ()
    """Settings of one that was there that are not those asked for, each in words."""
    provisioned: bool = False
    """From a file: this Grafana changes it for nobody."""
    shown: answers.DataSource | None = field(default=None, repr=False, compare=False)
    """As Grafana lists it."""


def listed(grafana: Grafana) -> list[Source]:
    """Every data source that our login may see. Raises GrafanaError."""
    found = grafana.get("/api/datasources", answers.DATA_SOURCES, _READ)
    return [Source(s.uid, s.name, s.type, provisioned=bool(s.readOnly), shown=s) for s in found]


def choose(found: Sequence[Source], kind: Kind, wanted: str | None) -> Source:
    """`wanted`: uid or name; None: the provisioned one, else the only one of its kind. Raises NoSourceError."""
    if wanted is not None:
        return _named(found, kind, wanted)
    of_kind = [source for source in found if source.type in kind.types]
    ours = [source for source in of_kind if source.uid == kind.uid]
    if len(ours or of_kind) == 1:
        return (ours or of_kind)[0]
    if of_kind:
        raise NoSourceError(f"several {kind.words} data sources: choose one with {kind.flag}: {_words(of_kind)}")
    there = f"; there are: {_words(found)}" if found else "; there are none at all"
    raise NoSourceError(f"Grafana has no {kind.words} data source{there}")


def _named(found: Sequence[Source], kind: Kind, wanted: str) -> Source:
    """The uid comes before the name: a name may be another's uid."""
    matching = [s for s in found if s.uid == wanted] or [s for s in found if s.name == wanted]
    if not matching:
        there = _words(found) or "none at all"
        raise NoSourceError(f"Grafana has no data source with uid or name {wanted!r}; there are: {there}")
    if matching[0].type not in kind.types:
        raise NoSourceError(
            f"data source {wanted!r} is of type {visible(matching[0].type)}; {kind.flag} must name a {kind.words} one"
        )
    return matching[0]


def _words(found: Sequence[Source]) -> str:
    return names(f"{visible(s.name)} (uid {visible(s.uid)}, {visible(s.type)})" for s in found)


def create(grafana: Grafana, settings: Settings, user: str, password: str, *, dry_run: bool) -> Source:
    """A PostgreSQL data source from PGHOST and the others, with the login given. Raises GrafanaError."""
    grafana.hide(password)
    body = request(settings, user, password)
    made = Source(POSTGRESQL.uid, NAME, POSTGRESQL.types[0], "would be created" if dry_run else "created")
    if dry_run:
        return made
    try:
        grafana.post("/api/datasources", body, answers.DONE, _CREATE)
    except GrafanaError as error:
        conflict = isinstance(error, RefusedError) and error.status == 409
        if not (error.unclear or conflict):
            raise
        there = _by_uid(grafana)
        if there is None and conflict:
            raise GrafanaError(
                f"a data source named {NAME!r} is there already: use it with --datasource {NAME}, or rename it"
            ) from None
        if there is None:
            raise
        return _after_all(there, body, made, unclear=error.unclear)
    return made


def _by_uid(grafana: Grafana) -> answers.DataSource | None:
    try:
        return grafana.get(f"/api/datasources/uid/{POSTGRESQL.uid}", answers.DATA_SOURCE, _READ)
    except RefusedError as error:
        if error.status == 404:
            return None
        raise


def _after_all(there: answers.DataSource, body: dict[str, Any], made: Source, *, unclear: bool) -> Source:
    """A conflict with an attempt of our own that nobody confirmed, or with another import at the same moment: it is
    what was wanted. Anything else is somebody's own."""
    differs = _differences(there, body)
    if there.type not in POSTGRESQL.types:
        differs = (f"type is {visible(repr(there.type))}, not {POSTGRESQL.types[0]!r}", *differs)
    if differs:
        raise GrafanaError(
            f"a data source with uid {POSTGRESQL.uid} is there, but {'; '.join(differs)}: use it with --datasource "
            f"{POSTGRESQL.uid}, or change it in Grafana"
        )
    return replace(made, status="created" if unclear else "found")


def left(source: Source, settings: Settings, user: str) -> Source:
    """One that was to be made and is there: nothing is written over it, and what is different is said. The password
    cannot be compared: Grafana shows none."""
    reason = "provisioned" if source.provisioned else "left as it is"
    try:
        differs = _differences(source.shown, request(settings, user, "")) if source.shown else ()
    except GrafanaError as error:
        return replace(source, reason=reason, differs=(f"its settings cannot be compared ({error})",))
    if source.provisioned and not differs:
        reason = "provisioned; nothing to do"
    return replace(source, reason=reason, differs=differs)


def _differences(there: answers.DataSource, body: dict[str, Any]) -> tuple[str, ...]:
    """Each in words. What Grafana does not say (None, or nothing) is not compared."""
    wanted = _compared(answers.DataSource.model_validate(body))
    found = _compared(there)
    return tuple(
        f"{name} is {visible(repr(found[name]))}, not {value!r}"
        for name, value in wanted.items()
        if found[name] not in (None, "", value)
    )


def _compared(source: answers.DataSource) -> dict[str, object]:
    """`database` stands in either place, by version."""
    more = source.jsonData or {}
    url = source.url
    return {
        "url": f"{url}:5432" if url and ":" not in url else url,
        "user": source.user,
        "database": more.get("database") or source.database,
        "sslmode": more.get("sslmode"),
    }


def request(settings: Settings, user: str, password: str) -> dict[str, Any]:
    """The body that makes it. Raises GrafanaError for a database that Grafana cannot reach by TCP."""
    database = conninfo_to_dict(settings.dsn)
    host = str(database.get("host") or settings.pghost)
    if host.startswith("/") or "," in host:
        raise GrafanaError(f"PGHOST={host}: Grafana needs one host name or address")
    address = f"[{host}]" if ":" in host else host
    name = str(database.get("dbname") or settings.pgdatabase)
    return {
        "name": NAME,
        "uid": POSTGRESQL.uid,
        "type": POSTGRESQL.types[0],
        "access": "proxy",
        "url": f"{address}:{database.get('port') or settings.pgport}",
        "user": user,
        "database": name,  # Grafana 11 reads it here, 12 and newer below
        "jsonData": {
            "database": name,
            "sslmode": sslmode(str(database.get("sslmode") or settings.pgsslmode)),
            "postgresVersion": 1500,  # the newest dialect the plug-in knows; 17 speaks it
            "timescaledb": True,
            "maxOpenConns": 10,
            "maxIdleConns": 2,
            "connMaxLifetime": 14400,
        },
        "secureJsonData": {"password": password},
    }


def sslmode(libpq: str) -> str:
    """Grafana's plug-in has no `prefer` and no `allow`: with TLS only where the user demands it, as libpq on a server
    without TLS, which the compose file's and the embedded database are."""
    return libpq if libpq in _SSLMODES else "disable"
