"""The shapes of Grafana's answers, as far as they are read here: everything else in them is its own affair.

Source: Grafana's HTTP API documentation, pages Data source, Folder, Dashboard, Dashboard versions and Other. Names of
fields are Grafana's. Types are strict: a number where a text belongs is another server, or a proxy that changes things.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import from_json

from services.grafana.errors import GrafanaError

T = TypeVar("T")


class _Seen(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Health(_Seen):
    database: str
    version: str | None = None
    """Anonymous users may be denied it."""


class DataSource(_Seen):
    uid: str
    name: str
    type: str
    url: str | None = None
    user: str | None = None
    database: str | None = None
    jsonData: dict[str, Any] | None = None  # noqa: N815 - Grafana's name
    """Settings of its plug-in, of any shape."""
    readOnly: bool | None = None  # noqa: N815
    """Provisioned from a file."""


class Folder(_Seen):
    uid: str
    title: str
    parentUid: str | None = None  # noqa: N815
    """Missing or empty: it lies in the root."""


class Meta(_Seen):
    url: str | None = None
    folderUid: str | None = None  # noqa: N815
    folderTitle: str | None = None  # noqa: N815
    provisioned: bool | None = None
    provisionedExternalId: str | None = None  # noqa: N815
    """The file, from the provider's folder."""


class Dashboard(_Seen):
    dashboard: dict[str, Any]
    meta: Meta


class Version(_Seen):
    version: int | None = None
    parentVersion: int | None = None  # noqa: N815
    """0: the first one."""
    message: str | None = None


class Versions(_Seen):
    """The newest first."""

    versions: list[Version] | None


class Saved(_Seen):
    url: str | None = None


def _named(document: object) -> object:
    """A list up to Grafana 11."""
    return {"versions": document} if isinstance(document, list) else document


HEALTH: Final = TypeAdapter(Health)
DATA_SOURCE: Final = TypeAdapter(DataSource)
DATA_SOURCES: Final = TypeAdapter(list[DataSource])
FOLDER: Final = TypeAdapter(Folder)
FOLDERS: Final = TypeAdapter(list[Folder])
DASHBOARD: Final = TypeAdapter(Dashboard)
VERSION: Final = TypeAdapter(Version)
VERSIONS: Final[TypeAdapter[Versions]] = TypeAdapter(Annotated[Versions, BeforeValidator(_named)])
SAVED: Final = TypeAdapter(Saved)
DONE: Final[TypeAdapter[dict[str, Any]]] = TypeAdapter(dict[str, Any])
"""An object, whatever is in it."""
NOT_JSON: Final = object()


def document(body: bytes) -> object:
    """What the JSON of a body says; NOT_JSON for anything else, also for nesting deeper than any answer's (200)."""
    try:
        return from_json(body)
    except ValueError:
        return NOT_JSON


def shaped(adapter: TypeAdapter[T], found: object, where: str) -> T:
    """`where`: the address asked, for the message. Raises GrafanaError, which shows nothing of the answer."""
    try:
        return adapter.validate_python(found)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise GrafanaError(
            f"{where} does not answer as Grafana's API does ({place}: {first['msg']}): another server or a proxy that "
            "changes answers stands there, or a Grafana older than 11",
            unclear=True,
        ) from None
