"""Dashboards into a Grafana: look first, write only what differs, say what was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import quote

from services.grafana import answers
from services.grafana.client import Grafana
from services.grafana.dashboards import Dashboard, content, fingerprint, rendered, without_links
from services.grafana.errors import BrokenError, DeniedError, GrafanaError, RefusedError
from services.grafana.folders import Folder
from services.grafana.words import listed, visible

_READ: Final = "dashboards:read (organization role Viewer)"
_WRITE: Final = "dashboards:create and dashboards:write in the folder (organization role Editor)"
_NOTHING_TO_DO: Final = "provisioned; nothing to do"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one dashboard."""

    name: str
    uid: str
    title: str
    status: str
    """created, updated, unchanged, would be created, would be updated, skipped, failed; not tried, after a
    failure that is of all."""
    url: str | None = None
    reason: str | None = None
    """Why it failed or was left out; of an updated one, from which folder it was moved; of an
    unchanged one, that it is provisioned."""
    ends: bool = False
    """Whether the rest would fail in the same way: the login or the connection is gone."""
    without_links_to: tuple[str, ...] = ()
    """Uids of dashboards that are not in this Grafana and cannot be: what leads to them is left out."""


class Importer:
    """Into one folder of one Grafana. `uids`: of the data source for each variable. `missing`: reason for each variable
    that has no data source: what needs it, of `known`, is left out."""

    def __init__(
        self,
        grafana: Grafana,
        folder: Folder,
        uids: Mapping[str, str],
        missing: Mapping[str, str],
        known: Sequence[Dashboard],
        *,
        dry_run: bool,
    ) -> None:
        self._grafana, self._folder, self._uids, self._dry_run = grafana, folder, uids, dry_run
        self._missing = missing
        self._left_out = [dashboard.uid for dashboard in known if dashboard.sources & missing.keys()]
        self._absent: tuple[str, ...] | None = None

    def all(self, dashboards: Sequence[Dashboard]) -> list[Outcome]:
        """One after the other; one that fails does not stop the rest, unless the login or the connection is gone."""
        outcomes: list[Outcome] = []
        for position, dashboard in enumerate(dashboards):
            try:
                outcomes.append(self._one(dashboard))
            except (DeniedError, BrokenError) as error:
                outcomes.append(replace(self._outcome(dashboard, "failed", reason=str(error)), ends=True))
                return outcomes + [self._outcome(rest, "not tried") for rest in dashboards[position + 1 :]]
        return outcomes

    def _one(self, dashboard: Dashboard) -> Outcome:
        lacking = [self._missing[name] for name in sorted(dashboard.sources) if name in self._missing]
        if lacking:
            return self._outcome(dashboard, "skipped", reason=lacking[0])
        try:
            return self._linked(dashboard)
        except (DeniedError, BrokenError):
            raise
        except GrafanaError as error:
            return self._outcome(dashboard, "failed", reason=str(error))

    def _linked(self, dashboard: Dashboard) -> Outcome:
        """Written, without the links that would lead nowhere."""
        there = without_links(dashboard.model, self._nowhere())
        outcome = self._write(dashboard, rendered(there, self._uids))
        if there == dashboard.model or outcome.reason == _NOTHING_TO_DO:
            return outcome
        return replace(outcome, without_links_to=self._nowhere())

    def _nowhere(self) -> tuple[str, ...]:
        """Uids of what is left out and not in this Grafana from before; asked once. One that this login may not see is
        there: only Grafana knows who may."""
        if self._absent is None:
            self._absent = tuple(uid for uid in self._left_out if not self._is_there(uid))
        return self._absent

    def _is_there(self, uid: str) -> bool:
        try:
            return self._there(uid) is not None
        except DeniedError as error:
            if error.status == 403:
                return True
            raise

    def _write(self, dashboard: Dashboard, wanted: dict[str, Any]) -> Outcome:
        there = self._there(dashboard.uid)
        moved = there is not None and not self._in_place(there)
        same = there is not None and self._same(there, wanted)
        if there is not None and same and not moved:
            return self._outcome(dashboard, "unchanged", there.meta.url)
        if there is not None and there.meta.provisioned and _as_in_file(there, dashboard):
            return self._outcome(dashboard, "unchanged", there.meta.url, _NOTHING_TO_DO)
        if there is not None and there.meta.provisioned:
            raise GrafanaError(_provisioned(there.meta.provisionedExternalId or ""))
        done = "created" if there is None else "updated"
        reason = _moved(there, same) if there is not None and moved else None
        if self._dry_run:
            return self._outcome(dashboard, f"would be {done}", there.meta.url if there else None, reason)
        try:
            path = self._save(wanted, overwrite=there is not None)
        except GrafanaError as error:
            path = self._after_all(wanted, error)
            done = done if error.unclear else "unchanged"
        return self._outcome(dashboard, done, path, reason)

    def _there(self, uid: str) -> answers.Dashboard | None:
        try:
            return self._grafana.get(f"/api/dashboards/uid/{quote(uid)}", answers.DASHBOARD, _READ)
        except RefusedError as error:
            if error.status == 404:
                return None
            raise

    def _in_place(self, there: answers.Dashboard) -> bool:
        """Of provisioned ones the folder is Grafana's affair."""
        return (there.meta.folderUid or "") == self._folder.uid or bool(there.meta.provisioned)

    def _same(self, there: answers.Dashboard, wanted: Mapping[str, Any]) -> bool:
        """The content."""
        return content(there.dashboard) == content(wanted) or self._newest_is(wanted)

    def _newest_is(self, wanted: Mapping[str, Any]) -> bool:
        """Whether the newest version is our own saving of just this content. A login that may not see versions, or a
        Grafana without that route, leaves it open: then it is written."""
        path = f"/api/dashboards/uid/{quote(str(wanted['uid']))}/versions"
        try:
            return self._newest(path).endswith(fingerprint(wanted))  # whichever version of ours saved it
        except RefusedError as error:
            if error.status in (400, 403, 404):
                return False
            raise

    def _newest(self, path: str) -> str:
        """The message of the newest version."""
        versions = self._grafana.get(path, answers.VERSIONS, _WRITE, limit=1).versions
        newest = versions[0] if versions else answers.Version()
        if newest.parentVersion == 0 and newest.version is not None:
            # The list calls the first one "Initial save", whatever its message is (seen in Grafana 12.3).
            newest = self._grafana.get(f"{path}/{newest.version}", answers.VERSION, _WRITE)
        return newest.message or ""

    def _save(self, wanted: Mapping[str, Any], *, overwrite: bool) -> str | None:
        """The path of its page. `overwrite` only for one that is there by its uid: older versions would replace another
        dashboard that has the same title."""
        body = {"dashboard": wanted, "overwrite": overwrite, "message": _message(wanted)}
        if self._folder.uid:
            body["folderUid"] = self._folder.uid
        return self._grafana.post("/api/dashboards/db", body, answers.SAVED, _WRITE).url

    def _after_all(self, wanted: Mapping[str, Any], error: GrafanaError) -> str | None:
        """The path, where what is there is what was wanted: an attempt that nobody confirmed was carried out, or
        another import was quicker. Else raises GrafanaError."""
        plain = _refused(error, self._folder) if isinstance(error, RefusedError) else error
        if not (error.unclear or (isinstance(error, RefusedError) and error.status in (400, 409, 412))):
            raise plain from None
        there = self._there(str(wanted["uid"]))
        if there is not None and self._in_place(there) and self._same(there, wanted):
            return there.meta.url
        if there is None or not error.unclear:
            raise plain from None
        raise GrafanaError(f"{error}; {_differing(there, wanted)}: look at it, then run the import again")

    def _outcome(
        self, dashboard: Dashboard, status: str, path: str | None = None, reason: str | None = None
    ) -> Outcome:
        return Outcome(dashboard.name, dashboard.uid, dashboard.title, status, self._grafana.link(path), reason)


def _message(wanted: Mapping[str, Any]) -> str:
    """Shown in the dashboard's list of versions."""
    return f"gpumon {version('gpu-health-monitor')}, content {fingerprint(wanted)}"


def _differing(there: answers.Dashboard, wanted: Mapping[str, Any]) -> str:
    """Which parts, at the top."""
    one, other = content(there.dashboard), content(wanted)
    keys = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
    place = f"what is there now lies in {_folder_of(there)}"
    return f"{place} and differs in {listed(visible(key) for key in keys)}" if keys else place


def _as_in_file(there: answers.Dashboard, dashboard: Dashboard) -> bool:
    """Provisioned from our file as it is. Grafana raises a `refresh` that is below its min_refresh_interval."""
    one, other = ({**content(m), "refresh": None} for m in (there.dashboard, dashboard.model))
    return one == other


def _moved(there: answers.Dashboard, same: bool) -> str:
    folder = _folder_of(there)
    return f"moved from {folder}" if same else f"moved from {folder}, and its content replaced"


def _folder_of(there: answers.Dashboard) -> str:
    """The title of the root depends on the version: General, Dashboards."""
    uid = there.meta.folderUid or ""
    return visible(there.meta.folderTitle or uid) if uid else "the root"


def _provisioned(file: str) -> str:
    named = f" ({visible(file)})" if file else ""
    return (
        f"this Grafana provisions it from a file{named} and saves nothing else: change that file, or take it out "
        "of the provisioning first"
    )


def _refused(error: RefusedError, folder: Folder) -> GrafanaError:
    """With what Grafana's 400 and 412 mean for the user."""
    words = _meant(error, folder)
    return GrafanaError(words, unclear=error.unclear) if words else error


def _meant(error: RefusedError, folder: Folder) -> str | None:
    said = error.said.lower()
    if error.status == 412:
        return {
            "version-mismatch": "somebody else saved it at this moment: look at it, then run the import again",
            "name-exists": f"another dashboard with this title is in {visible(folder.title)}: rename it, or take "
            "another --folder",
            "plugin-dashboard": f"it belongs to a plug-in, which alone may change it ({error.said})",
        }.get(error.word)
    if error.status == 404 or (error.status == 400 and "folder not found" in said):
        return f"the folder {visible(folder.title)} (uid {folder.uid}) is gone or not for this login: {error.said}"
    if error.status == 400 and "provisioned" in said:
        return _provisioned("")
    if error.status == 400 and "refresh interval" in said:
        return f"it refreshes more often than this Grafana allows (min_refresh_interval in its settings): {error.said}"
    return None
