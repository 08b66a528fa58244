"""Dashboards into a Grafana: look first, write only what differs, say what was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import quote

from services.grafana.client import Grafana
from services.grafana.dashboards import Dashboard, content, fingerprint, rendered
from services.grafana.errors import GrafanaError, RefusedError
from services.grafana.folders import Folder

_READ: Final = "dashboards:read (organization role Viewer)"
_WRITE: Final = "dashboards:create and dashboards:write in the folder (organization role Editor)"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one dashboard."""

    name: str
    uid: str
    title: str
    status: str
    """created, updated, unchanged, would be created, would be updated, skipped, failed."""
    url: str | None = None
    reason: str | None = None
    """Why it failed or was left out; of an updated one, from which folder it was moved."""


@dataclass(frozen=True, slots=True)
class _There:
    """A dashboard as Grafana has it."""

    model: Mapping[str, Any]
    meta: Mapping[str, Any]


class Importer:
    """Into one folder of one Grafana. `uids`: of the data source for each variable."""

    def __init__(self, grafana: Grafana, folder: Folder, uids: Mapping[str, str], *, dry_run: bool) -> None:
        self._grafana, self._folder, self._uids, self._dry_run = grafana, folder, uids, dry_run

    def all(self, dashboards: Sequence[Dashboard], missing: Mapping[str, str]) -> list[Outcome]:
        """One after the other; one that fails does not stop the rest. `missing`: reason for each variable that has no
        data source: what needs it is left out."""
        return [self._one(dashboard, missing) for dashboard in dashboards]

    def _one(self, dashboard: Dashboard, missing: Mapping[str, str]) -> Outcome:
        lacking = [missing[name] for name in sorted(dashboard.sources) if name in missing]
        if lacking:
            return self._outcome(dashboard, "skipped", reason=lacking[0])
        try:
            return self._write(dashboard, rendered(dashboard.model, self._uids))
        except GrafanaError as error:
            return self._outcome(dashboard, "failed", reason=str(error))

    def _write(self, dashboard: Dashboard, wanted: dict[str, Any]) -> Outcome:
        there = self._there(dashboard.uid)
        moved = there is not None and not self._in_place(there)
        same = there is not None and self._same(there, wanted)
        if there is not None and same and not moved:
            return self._outcome(dashboard, "unchanged", there.meta.get("url"))
        if there is not None and there.meta.get("provisioned"):
            raise GrafanaError(_provisioned(str(there.meta.get("provisionedExternalId") or "")))
        done = "created" if there is None else "updated"
        reason = _moved(there, same) if there is not None and moved else None
        if self._dry_run:
            return self._outcome(dashboard, f"would be {done}", there.meta.get("url") if there else None, reason)
        answer = self._save(wanted, overwrite=there is not None)
        return self._outcome(dashboard, done, answer.get("url"), reason)

    def _there(self, uid: str) -> _There | None:
        try:
            found = self._grafana.get(f"/api/dashboards/uid/{quote(uid)}", _READ)
        except RefusedError as error:
            if error.status == 404:
                return None
            raise
        return _There(found["dashboard"], found["meta"])

    def _in_place(self, there: _There) -> bool:
        """Of provisioned ones the folder is Grafana's affair."""
        return str(there.meta.get("folderUid") or "") == self._folder.uid or bool(there.meta.get("provisioned"))

    def _same(self, there: _There, wanted: Mapping[str, Any]) -> bool:
        """The content."""
        return content(there.model) == content(wanted) or self._newest_is(wanted)

    def _newest_is(self, wanted: Mapping[str, Any]) -> bool:
        """Whether the newest version is our own saving of just this content. A login that may not see versions, or a
        Grafana without that route, leaves it open: then it is written."""
        try:
            answer = self._grafana.get(f"/api/dashboards/uid/{quote(str(wanted['uid']))}/versions", _WRITE, limit=1)
        except RefusedError as error:
            if error.status in (400, 403, 404):
                return False
            raise
        versions = answer.get("versions") if isinstance(answer, dict) else answer  # a list up to Grafana 11
        if not versions:
            return False
        return str(versions[0].get("message", "")).endswith(fingerprint(wanted))  # whichever version of ours saved it

    def _save(self, wanted: Mapping[str, Any], *, overwrite: bool) -> dict[str, Any]:
        """`overwrite` only for one that is there by its uid: older versions would replace another dashboard that has
        the same title."""
        body = {"dashboard": wanted, "overwrite": overwrite, "message": _message(wanted)}
        if self._folder.uid:
            body["folderUid"] = self._folder.uid
        try:
            answer: dict[str, Any] = self._grafana.post("/api/dashboards/db", body, _WRITE)
        except RefusedError as error:
            raise GrafanaError(_refused(error, self._folder)) from None
        return answer

    def _outcome(self, dashboard: Dashboard, status: str, path: object = None, reason: str | None = None) -> Outcome:
        url = f"{self._grafana.origin}{path}" if path else None  # Grafana's paths begin with its sub-path
        return Outcome(dashboard.name, dashboard.uid, dashboard.title, status, url, reason)


def _message(wanted: Mapping[str, Any]) -> str:
    """Shown in the dashboard's list of versions."""
    return f"gpumon {version('gpu-health-monitor')}, content {fingerprint(wanted)}"


def _moved(there: _There, same: bool) -> str:
    """The title of the root depends on the version: General, Dashboards."""
    uid = str(there.meta.get("folderUid") or "")
    folder = str(there.meta.get("folderTitle") or uid) if uid else "the root"
    return f"moved from {folder}" if same else f"moved from {folder}, and its content replaced"


def _provisioned(file: str) -> str:
    named = f" ({file})" if file else ""
    return (
        f"this Grafana provisions it from a file{named} and saves nothing else: change that file, or take it out "
        "of the provisioning first"
    )


def _refused(error: RefusedError, folder: Folder) -> str:
    """What Grafana's 400 and 412 mean for the user."""
    if error.status == 412 and error.word == "version-mismatch":
        return "somebody else saved it at this moment: look at it, then run the import again"
    if error.status == 412 and error.word == "name-exists":
        return f"another dashboard with this title is in {folder.title}: rename it, or take another --folder"
    if error.status == 412 and error.word == "plugin-dashboard":
        return f"it belongs to a plug-in, which alone may change it ({error.said})"
    if error.status == 400 and "provisioned" in error.said.lower():
        return _provisioned("")
    if error.status == 404:
        return f"the folder {folder.title} (uid {folder.uid}) is gone or not for this login: {error.said}"
    return str(error)
