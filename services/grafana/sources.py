"""Data sources of a Grafana: find the one the dashboards read from, or make it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from psycopg.conninfo import conninfo_to_dict

from services.grafana.client import Grafana
from services.grafana.errors import GrafanaError, NoSourceError, RefusedError
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
    shown: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """As Grafana lists it."""


def listed(grafana: Grafana) -> list[Source]:
    """Every data source that our login may see. Raises GrafanaError."""
    answer = grafana.get("/api/datasources", _READ)
    try:
        return [Source(str(item["uid"]), str(item["name"]), str(item["type"]), shown=item) for item in answer]
    except (LookupError, TypeError):
        raise GrafanaError(f"{grafana.url}/api/datasources does not answer as Grafana's API does") from None


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
            f"data source {wanted!r} is of type {matching[0].type}; {kind.flag} must name a {kind.words} one"
        )
    return matching[0]


def _words(found: Sequence[Source]) -> str:
    return ", ".join(f"{source.name} (uid {source.uid}, {source.type})" for source in found)


def create(grafana: Grafana, settings: Settings, user: str, password: str, *, dry_run: bool) -> Source:
    """A PostgreSQL data source from PGHOST and the others, with the login given. Raises GrafanaError."""
    grafana.hide(password)
    body = request(settings, user, password)
    made = Source(POSTGRESQL.uid, NAME, POSTGRESQL.types[0], "would be created" if dry_run else "created")
    if dry_run:
        return made
    try:
        grafana.post("/api/datasources", body, _CREATE)
    except RefusedError as error:
        if error.status == 409:
            raise GrafanaError(
                f"a data source named {NAME!r} or with uid {POSTGRESQL.uid!r} is there already: use it with "
                f"--datasource {NAME}, or rename it"
            ) from None
        raise
    return made


def left(source: Source, settings: Settings, user: str) -> Source:
    """One that was to be made and is there: nothing is written over it, and what is different is said. The password
    cannot be compared: Grafana shows none."""
    try:
        wanted = _compared(request(settings, user, ""))
    except GrafanaError as error:
        return replace(source, reason="left as it is", differs=(f"its settings cannot be compared ({error})",))
    there = _compared(source.shown)
    differs = tuple(
        f"{name} is {there[name]!r}, not {value!r}"
        for name, value in wanted.items()
        if there[name] not in (None, value)
    )
    return replace(source, reason="left as it is", differs=differs)


def _compared(shown: Mapping[str, Any]) -> dict[str, str | None]:
    """None: Grafana does not say. `database` stands in either place, by version."""
    more = shown.get("jsonData") or {}
    url = shown.get("url")
    return {
        "url": f"{url}:5432" if url and ":" not in url else url,
        "user": shown.get("user"),
        "database": more.get("database") or shown.get("database"),
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
