"""The folder the dashboards go into."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from services.grafana.client import Grafana
from services.grafana.errors import GrafanaError, RefusedError

_READ: Final = "folders:read (organization role Viewer)"
_CREATE: Final = "folders:create (organization role Editor)"
_PAGE: Final = 1000
"""Folders in one answer: Grafana's own default."""
_LONGEST_UID: Final = 40


@dataclass(frozen=True, slots=True)
class Folder:
    uid: str
    """Empty: the root, which is no folder."""
    title: str
    status: str
    """found, created, would be created; root."""


def find_or_create(grafana: Grafana, title: str, *, dry_run: bool) -> Folder:
    """By our uid (renamed or moved, it stays ours), else by title, else a new one. Raises GrafanaError."""
    if not title:
        return Folder("", "Dashboards (the root)", "root")
    uid = uid_of(title)
    found = _by_uid(grafana, uid) or _by_title(grafana, title)
    if found is not None:
        return found
    if dry_run:
        return Folder(uid, title, "would be created")
    try:
        made = grafana.post("/api/folders", {"uid": uid, "title": title}, _CREATE)
    except RefusedError as error:
        if error.status in (409, 412):
            raise GrafanaError(
                f"there is a folder {title!r} or one with uid {uid!r} that this login cannot see ({error.said}): give "
                "it the permission to view and edit that folder, or take another --folder"
            ) from None
        raise
    return Folder(str(made.get("uid", uid)), str(made.get("title", title)), "created")


def uid_of(title: str) -> str:
    """Readable where the title is; always the same for the same title: `GPU Health Monitor` -> gpu-health-monitor."""
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    if slug and slug.isascii() and title.isascii() and len(slug) <= _LONGEST_UID:
        return slug
    return f"gpumon-{hashlib.sha256(title.encode()).hexdigest()[:16]}"


def _by_uid(grafana: Grafana, uid: str) -> Folder | None:
    try:
        found = grafana.get(f"/api/folders/{quote(uid)}", _READ)
    except RefusedError as error:
        # An Editor without folders:* gets 403 for a folder that does not exist: the scope of its uid is nobody's.
        if error.status in (403, 404):
            return None
        raise
    return Folder(str(found["uid"]), str(found["title"]), "found")


def _by_title(grafana: Grafana, title: str) -> Folder | None:
    page = 1
    while True:
        found: list[dict[str, Any]] = grafana.get("/api/folders", _READ, limit=_PAGE, page=page)
        for folder in found:
            if folder["title"] == title:
                return Folder(str(folder["uid"]), title, "found")
        if len(found) < _PAGE:
            return None
        page += 1
