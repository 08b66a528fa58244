"""The folder the dashboards go into."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from services.grafana import answers
from services.grafana.client import Grafana
from services.grafana.errors import GrafanaError, RefusedError
from services.grafana.words import listed, visible

USUAL: Final = "GPU Health Monitor"
"""The title; of that folder alone the uid is surely ours."""
_READ: Final = "folders:read (organization role Viewer)"
_CREATE: Final = "folders:create (organization role Editor)"
_PAGE: Final = 1000
"""Folders in one answer: Grafana's own default."""
MOST_PAGES = 20
"""20,000 folders in one place: more than anybody can look through, and an end to a server that never ends its list."""
_LONGEST_UID: Final = 40
_ROOT: Final = "general"
"""The uid under which Grafana shows the root as if it were a folder."""
_SHARED: Final = "sharedwithme"
"""The uid of what is no folder either, but stands in every Editor's list: folders shared without their parent."""


@dataclass(frozen=True, slots=True)
class Folder:
    uid: str
    """Empty: the root, which is no folder."""
    title: str
    status: str
    """found, created, would be created; root."""


def find_or_create(grafana: Grafana, title: str, *, dry_run: bool) -> Folder:
    """By our uid (the usual folder, renamed or moved, stays ours), else by title in the root, else a new one. Raises
    GrafanaError."""
    if not title:
        return _root()
    uid = uid_of(title)
    found = _by_uid(grafana, uid)
    if found is not None and found.title != title != USUAL:
        raise GrafanaError(_taken(uid, found.title, title))
    found = found or _by_title(grafana, title)
    if found is not None:
        return Folder(found.uid, found.title, "found")
    if dry_run:
        return Folder(uid, title, "would be created")
    return _created(grafana, uid, title)


def chosen(grafana: Grafana, uid: str) -> Folder:
    """The one of `--folder-uid`, wherever it lies. Raises GrafanaError."""
    if uid == _ROOT:
        return _root()
    found = _by_uid(grafana, uid) if uid not in ("", _SHARED) else None
    if found is None:
        raise GrafanaError(f"--folder-uid {uid!r}: no such folder, or this login may not see it")
    return Folder(found.uid, found.title, "found")


def uid_of(title: str) -> str:
    """Readable where the title is; always the same for the same title: `GPU Health Monitor` -> gpu-health-monitor."""
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    if slug and slug.isascii() and title.isascii() and len(slug) <= _LONGEST_UID:
        return slug
    return f"gpumon-{hashlib.sha256(title.encode()).hexdigest()[:16]}"


def _root() -> Folder:
    return Folder("", "Dashboards (the root)", "root")


def _created(grafana: Grafana, uid: str, title: str) -> Folder:
    try:
        made = grafana.post("/api/folders", {"uid": uid, "title": title}, answers.FOLDER, _CREATE)
        return Folder(made.uid, made.title, "created")
    except GrafanaError as error:
        refused = error if isinstance(error, RefusedError) and error.status in (409, 412) else None
        if not (error.unclear or refused):
            raise
        there = _by_uid(grafana, uid)
        if there is None and refused:
            raise GrafanaError(
                f"there is a folder {title!r} or one with uid {uid!r} that this login cannot see ({refused.said}): "
                "give it the permission to view and edit that folder, or take another --folder. Where somebody else "
                "made it just now, Grafana shows it within a minute: run this again then"
            ) from None
        if there is None:
            raise
        if there.title != title:
            raise GrafanaError(_taken(uid, there.title, title)) from None
        # A conflict with an attempt of our own that nobody confirmed, or with another import at the same moment.
        return Folder(uid, title, "created" if error.unclear else "found")


def _taken(uid: str, there: str, title: str) -> str:
    return (
        f"a folder with uid {uid} is there, but its title is '{visible(there)}', not {title!r}: take it with "
        f"--folder-uid {uid}, or take another --folder"
    )


def _by_uid(grafana: Grafana, uid: str) -> answers.Folder | None:
    try:
        return grafana.get(f"/api/folders/{quote(uid, safe='')}", answers.FOLDER, _READ)
    except RefusedError as error:
        # An Editor without folders:* gets 403 for a folder that does not exist: the scope of its uid is nobody's.
        if error.status in (403, 404):
            return None
        raise


def _by_title(grafana: Grafana, title: str) -> answers.Folder | None:
    """The only one in the root. Raises GrafanaError where there are several."""
    found = [folder for folder in _in_root(grafana) if folder.title == title]
    if len(found) > 1:
        raise GrafanaError(
            f"{len(found)} folders have the title {title!r} (uids {listed(visible(f.uid) for f in found)}): choose one "
            "with --folder-uid, or take another --folder"
        )
    return found[0] if found else None


def _in_root(grafana: Grafana) -> list[answers.Folder]:
    """Every folder there that our login sees. A list may hold nested ones, shared with somebody without their parent:
    the same title under another folder is another folder."""
    found: list[answers.Folder] = []
    before: list[answers.Folder] | None = None
    for page in range(1, MOST_PAGES + 1):
        now = grafana.get("/api/folders", answers.FOLDERS, _READ, limit=_PAGE, page=page)
        if now and now == before:
            raise GrafanaError(f"{grafana.url}/api/folders gives the same page again: choose one with --folder-uid")
        found += [folder for folder in now if not folder.parentUid and folder.uid != _SHARED]
        if len(now) < _PAGE:
            return found
        before = now
    raise GrafanaError(f"more than {MOST_PAGES * _PAGE} folders in the root: choose one with --folder-uid")
