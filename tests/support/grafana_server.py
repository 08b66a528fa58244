"""A server that answers as Grafana's HTTP API documents, with a memory: what was written is read back.

Bodies, status codes and rules are those of the documentation's pages Data source, Folder, Dashboard, Dashboard
versions and Other (health) HTTP API, and those with which a Grafana 12.3.0 answered the same requests; `unique_titles`
makes it refuse a title that is taken, as version 11 does. Not a Grafana: what it does not document, this does not do.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import itertools
import re
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

ADMIN: Final = ("admin", "s3cret-admin-password")
TOKEN: Final = "glsa_editor_0123456789abcdef"
VIEWER_TOKEN: Final = "glsa_viewer_0123456789abcdef"
_VIEWER: Final = frozenset({"datasources:read", "folders:read", "dashboards:read"})
_EDITOR: Final = _VIEWER | {"folders:create", "dashboards:create", "dashboards:write"}
_ADMIN: Final = _EDITOR | {"datasources:create"}
UID: Final = re.compile(r"[a-zA-Z0-9_-]{1,40}")
Json = dict[str, Any]
_SHARED: Final[Json] = {"id": -1, "uid": "sharedwithme", "title": "Shared with me"}
"""At the head of the list for everybody but Admins, folders or none."""


@dataclass
class Reply:
    """What it says instead of its usual answer, once."""

    status: int
    text: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        return web.Response(status=self.status, text=self.text, headers=self.headers)


class FakeGrafana:
    """Context; `url` while it runs. The attributes may be set before and between requests."""

    def __init__(self, sub_path: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.logins = {
            _basic(*ADMIN): _ADMIN,
            f"Bearer {TOKEN}": _EDITOR,
            f"Bearer {VIEWER_TOKEN}": _VIEWER,
        }
        self.data_sources: list[Json] = []
        self.folders: list[Json] = []
        self.dashboards: dict[str, Json] = {}
        """uid -> {"dashboard", "folderUid", "versions"}."""
        self.provisioned: dict[str, str] = {}
        """uid -> file: saved by nobody else."""
        self.next: list[Reply] = []
        """Said to the next requests instead of an answer."""
        self.always: dict[str, Reply] = {}
        """Said to every request of a kind (`GET /api/folders`) instead of an answer."""
        self.lost: list[tuple[str, Reply]] = []
        """Kind of request, and what a proxy says once that Grafana has done it; status 0: nothing, it hangs up."""
        self.on_lost: Callable[[], None] = lambda: None
        self.before_create: Callable[[Json], object] | None = None
        """What somebody else does at the moment when a folder is to be made; gets the body."""
        self.on_save: Callable[[Json], None] = lambda _model: None
        """What Grafana itself changes in a dashboard that it stores."""
        self.requests: list[tuple[str, str, Json | None]] = []
        """Method, path with query, body."""
        self.unseen_folders: set[str] = set()
        self.lists_nested = False
        """Whether folders under others stand in the list of the root too: of those shared without their parent."""
        self.breaks: set[str] = set()
        """Kinds of request that are taken and never answered: the connection is closed."""
        self.version = "12.3.0"
        self.unique_titles = False
        self._ids = itertools.count(1)
        self._sub_path, self._tls = sub_path, tls
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}{self._sub_path}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    def add_data_source(self, uid: str, name: str, kind: str = "grafana-postgresql-datasource") -> None:
        self.data_sources.append(_data_source({"uid": uid, "name": name, "type": kind}, next(self._ids)))

    def writes(self) -> list[str]:
        return [path for method, path, _ in self.requests if method != "GET"]

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._started.set()
        self._loop.run_forever()

    async def _start(self) -> None:
        app = web.Application(middlewares=[self._around], client_max_size=64 * 1024 * 1024)
        root = self._sub_path
        app.router.add_get(f"{root}/api/health", self._health)
        app.router.add_get(f"{root}/api/datasources", self._get_data_sources)
        app.router.add_post(f"{root}/api/datasources", self._add_data_source)
        app.router.add_get(f"{root}/api/datasources/{{by:uid|name}}/{{key}}", self._get_data_source)
        app.router.add_get(f"{root}/api/folders", self._get_folders)
        app.router.add_post(f"{root}/api/folders", self._add_folder)
        app.router.add_get(f"{root}/api/folders/{{uid}}", self._get_folder)
        app.router.add_post(f"{root}/api/dashboards/db", self._save_dashboard)
        app.router.add_get(f"{root}/api/dashboards/uid/{{uid}}", self._get_dashboard)
        app.router.add_get(f"{root}/api/dashboards/uid/{{uid}}/versions", self._get_versions)
        app.router.add_get(f"{root}/api/dashboards/uid/{{uid}}/versions/{{number}}", self._get_version)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self.port = self._runner.addresses[0][1]

    # --- before any answer ------------------------------------------------------------------------------------------

    @web.middleware
    async def _around(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        body = await request.json() if request.method == "POST" and request.can_read_body else None
        self.requests.append((request.method, request.path_qs, copy.deepcopy(body)))
        kind = f"{request.method} {request.path.removeprefix(self._sub_path)}"
        if kind in self.breaks and request.transport is not None:
            request.transport.close()
        if self.next or kind in self.always:
            return (self.next.pop(0) if self.next else self.always[kind]).response()
        try:
            answer = await handler(request)
            lost = next((entry for entry in self.lost if entry[0] == kind), None)
            if lost is None:
                return answer
            self.lost.remove(lost)
            self.on_lost()
            if lost[1].status == 0 and request.transport is not None:
                request.transport.close()
            return lost[1].response() if lost[1].status else answer
        except web.HTTPNotFound:
            return _said(404, "Not found")
        except _DeniedError as denied:
            return denied.answer

    def _allow(self, request: web.Request, *actions: str) -> None:
        header = request.headers.get("Authorization")
        if header is None:
            raise _DeniedError(_unauthorized("Unauthorized", "auth.unauthorized"))
        if header not in self.logins:
            if header.startswith("Basic"):
                raise _DeniedError(_unauthorized("Invalid username or password", "password-auth.failed"))
            raise _DeniedError(_unauthorized("Invalid API key", "api-key.invalid"))
        if not self.logins[header].intersection(actions):
            needed = actions[0] if len(actions) == 1 else f"any of {', '.join(actions)}"
            raise _DeniedError(
                web.json_response(
                    {
                        "accessErrorId": "ACE0123456789",
                        "message": "You'll need additional permissions to perform this action. "
                        f"Permissions needed: {needed}",
                        "title": "Access denied",
                    },
                    status=403,
                )
            )

    def _login(self, request: web.Request) -> frozenset[str]:
        return self.logins[request.headers["Authorization"]]

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"commit": "087143285", "database": "ok", "version": self.version})

    # --- data sources -----------------------------------------------------------------------------------------------

    async def _get_data_sources(self, request: web.Request) -> web.Response:
        self._allow(request, "datasources:read")
        return web.json_response(
            [{key: value for key, value in s.items() if key != "secureJsonFields"} for s in self.data_sources]
        )

    async def _get_data_source(self, request: web.Request) -> web.Response:
        self._allow(request, "datasources:read")
        by, key = request.match_info["by"], request.match_info["key"]
        found = [source for source in self.data_sources if source[by] == key]
        return web.json_response(found[0]) if found else _said(404, "Data source not found")

    async def _add_data_source(self, request: web.Request) -> web.Response:
        self._allow(request, "datasources:create")
        body = await request.json()
        for key, words in (("name", "same name"), ("uid", "same uid")):
            if any(source[key] == body[key] for source in self.data_sources):
                return _said(409, f"data source with the {words} already exists")
        made = _data_source(body, next(self._ids))
        self.data_sources.append(made)
        return web.json_response(
            {"datasource": made, "id": made["id"], "message": "Datasource added", "name": made["name"]}
        )

    # --- folders ----------------------------------------------------------------------------------------------------

    async def _get_folders(self, request: web.Request) -> web.Response:
        self._allow(request, "folders:read")
        limit, page = int(request.query.get("limit", "1000")), int(request.query.get("page", "1"))
        parent = request.query.get("parentUid", "")
        here = [f for f in self.folders if f.get("parentUid", "") == parent or (self.lists_nested and not parent)]
        seen = [f for f in here if f["uid"] not in self.unseen_folders]
        part = seen[(page - 1) * limit : page * limit]
        shown = ("id", "uid", "title", "parentUid")
        shared = [_SHARED] if page == 1 and not parent and self._login(request) != _ADMIN else []
        return web.json_response(shared + [{key: f[key] for key in shown if key in f} for f in part])

    async def _get_folder(self, request: web.Request) -> web.Response:
        self._allow(request, "folders:read")
        uid = request.match_info["uid"]
        found = [folder for folder in self.folders if folder["uid"] == uid]
        if uid in self.unseen_folders or (not found and self._login(request) != _ADMIN):
            # An Editor has no permission on a folder that is not there.
            self._allow(request, "folders:read of this folder")
        return web.json_response(found[0]) if found else _said(404, "folder not found", "not-found")

    async def _add_folder(self, request: web.Request) -> web.Response:
        self._allow(request, "folders:create")
        body = await request.json()
        if self.before_create is not None:
            self.before_create(body)
        here = [f["title"] for f in self.folders if f.get("parentUid", "") == body.get("parentUid", "")]
        if self.unique_titles and body["title"] in here:
            return _said(409, "a folder with the same name already exists in the current location")
        if any(f["uid"] == body["uid"] for f in self.folders):
            return _said(412, "the folder has been changed by someone else")
        return web.json_response(self.add_folder(body))

    def add_folder(self, body: Json) -> Json:
        folder = {
            "id": next(self._ids),
            "uid": body["uid"],
            "orgId": 1,
            "title": body["title"],
            "url": f"{self._sub_path}/dashboards/f/{body['uid']}/{_slug(body['title'])}",
            "version": 1,
        } | ({"parentUid": body["parentUid"]} if body.get("parentUid") else {})
        self.folders.append(folder)
        return folder

    # --- dashboards -------------------------------------------------------------------------------------------------

    async def _get_dashboard(self, request: web.Request) -> web.Response:
        self._allow(request, "dashboards:read")
        uid = request.match_info["uid"]
        if uid not in self.dashboards:
            return _said(404, "Dashboard not found")
        kept = self.dashboards[uid]
        meta = {
            "isStarred": False,
            "url": self._path(kept["dashboard"]),
            "folderUid": kept["folderUid"],
            "version": kept["dashboard"]["version"],
            "provisioned": uid in self.provisioned,
            "provisionedExternalId": self.provisioned.get(uid, ""),
        }
        return web.json_response({"dashboard": kept["dashboard"], "meta": meta})

    async def _get_versions(self, request: web.Request) -> web.Response:
        self._allow(request, "dashboards:write")
        if request.match_info["uid"] not in self.dashboards:
            return _said(404, "Dashboard not found")
        newest = [
            entry | {"parentVersion": entry["version"] - 1, "restoredFrom": 0}
            | ({"message": "Initial save"} if entry["version"] == 1 else {})
            for entry in self.dashboards[request.match_info["uid"]]["versions"][::-1]
        ]  # fmt: skip
        return web.json_response({"continueToken": "", "versions": newest[: int(request.query.get("limit", "1000"))]})

    async def _get_version(self, request: web.Request) -> web.Response:
        """One by its number has its own message; in the list the first is called something else."""
        self._allow(request, "dashboards:write")
        kept = self.dashboards.get(request.match_info["uid"], {"versions": []})
        found = [entry for entry in kept["versions"] if entry["version"] == int(request.match_info["number"])]
        return web.json_response(found[0] | {"data": {}}) if found else _said(404, "Dashboard version not found")

    async def _save_dashboard(self, request: web.Request) -> web.Response:
        body = await request.json()
        model = copy.deepcopy(body["dashboard"])
        self._allow(request, "dashboards:create", "dashboards:write")
        refused = next(self._refusals(model, body), None)
        return refused or web.json_response(self._store(model, body))

    def _refusals(self, model: Json, body: Json) -> Iterator[web.Response]:
        """Every reason not to save it, the weightiest first."""
        folder = body.get("folderUid") or ""
        if not str(model.get("title") or "").strip():
            yield _said(400, "Dashboard title cannot be empty", "empty-name")
        if model.get("uid") and not UID.fullmatch(model["uid"]):
            yield _said(400, "uid contains illegal characters")
        if folder and all(f["uid"] != folder for f in self.folders):
            yield _said(400, "folder not found")
        if model.get("uid") in self.provisioned:
            yield _said(400, "Cannot save provisioned dashboard")
        if body.get("overwrite"):
            return
        kept = self.dashboards.get(model.get("uid") or "")
        if kept is not None and model.get("version") != kept["dashboard"]["version"]:
            yield _said(412, "The dashboard has been changed by someone else", "version-mismatch")
        same = [k for u, k in self.dashboards.items() if u != model.get("uid") and k["folderUid"] == folder]
        if self.unique_titles and any(k["dashboard"]["title"] == model["title"] for k in same):
            yield _said(412, "A dashboard with the same name in the folder already exists", "name-exists")

    def _store(self, model: Json, body: Json) -> Json:
        uid = model.get("uid") or f"made-{next(self._ids)}"
        kept = self.dashboards.get(uid)
        number = kept["dashboard"]["version"] + 1 if kept else 1
        identity = kept["dashboard"]["id"] if kept else next(self._ids)
        model |= {"id": identity, "uid": uid, "version": number}
        self.on_save(model)
        versions = kept["versions"] if kept else []
        versions.append({"version": number, "message": body.get("message", ""), "createdBy": "admin", "uid": uid})
        # Without folderUid it goes to the root, as documented, wherever it was.
        self.dashboards[uid] = {"dashboard": model, "folderUid": body.get("folderUid") or "", "versions": versions}
        return {
            "folderUid": body.get("folderUid") or "", "id": identity, "uid": uid,
            "url": self._path(model), "status": "success", "version": number,
            "slug": _slug(model["title"]),
        }  # fmt: skip

    def _path(self, model: Json) -> str:
        return f"{self._sub_path}/d/{model['uid']}/{_slug(model['title'])}"


class _DeniedError(Exception):
    def __init__(self, answer: web.Response) -> None:
        super().__init__()
        self.answer = answer


def _basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _said(status: int, message: str, word: str | None = None) -> web.Response:
    return web.json_response({"message": message} | ({"status": word} if word else {}), status=status)


def _unauthorized(message: str, identity: str) -> web.Response:
    body = {"extra": None, "message": message, "messageId": identity, "statusCode": 401, "traceID": ""}
    return web.json_response(body, status=401)


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _data_source(body: Json, identity: int) -> Json:
    """As it is read back: secrets are not."""
    shown = {key: value for key, value in body.items() if key != "secureJsonData"}
    secrets = dict.fromkeys(body.get("secureJsonData", {}), True)
    return {"id": identity, "orgId": 1, "readOnly": False, "isDefault": False, "jsonData": {},
            "secureJsonFields": secrets} | shown  # fmt: skip
