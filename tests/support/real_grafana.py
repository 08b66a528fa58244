"""A Grafana that somebody runs, for tests that ask the real one: GPUMON_GRAFANA=http://user:password@host:port."""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from psycopg.conninfo import conninfo_to_dict

from tests.support.prerequisites import missing

VARIABLE: Final = "GPUMON_GRAFANA"
TIMEOUT: Final = 60.0
"""s"""


class RealGrafana:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if (
            parts.scheme != "http"
            or parts.path.strip("/")
            or not (parts.hostname and parts.username and parts.password)
        ):
            raise ValueError(f"{VARIABLE} is not http://user:password@host:port")
        self.address = parts.hostname, parts.port or 80
        login = f"{unquote(parts.username)}:{unquote(parts.password)}"
        self.authorization = "Basic " + base64.b64encode(login.encode()).decode()
        self._base = "http://{}:{}".format(*self.address)
        self._headers = {"Authorization": self.authorization, "Content-Type": "application/json"}

    def call(self, method: str, path: str, document: Any = None) -> Any:
        """Grafana's answer, also to what it refuses."""
        body = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(self._base + path, body, self._headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)

    @classmethod
    def of_environment(cls) -> RealGrafana:
        """Raises ValueError."""
        url = os.environ.get(VARIABLE)  # noqa: TID251 - the tests' own switch, no setting of the product
        if not url:
            raise ValueError(f"set {VARIABLE} to http://user:password@host:port, a Grafana on this machine")
        return cls(url)

    @contextmanager
    def database(self, uid: str, dsn: str, name: str = "") -> Iterator[None]:
        """A PostgreSQL data source for a while. Grafana must reach it under the address this machine uses."""
        where = conninfo_to_dict(dsn)
        answer = self.call("POST", "/api/datasources", {
            "uid": uid, "name": name or uid, "type": "grafana-postgresql-datasource", "access": "proxy",
            "url": f"{where['host']}:{where['port']}", "user": where["user"],
            "jsonData": {"database": where["dbname"], "sslmode": "disable", "timescaledb": True, "maxOpenConns": 2},
            "secureJsonData": {"password": where.get("password", "none")},
        })  # fmt: skip
        if "datasource" not in answer:
            raise RuntimeError(f"Grafana does not take the data source: {answer}")
        try:
            health = self.call("GET", f"/api/datasources/uid/{uid}/health")
            if health.get("status") != "OK":
                raise RuntimeError(f"Grafana does not reach the database: {health}")
            yield
        finally:
            self.call("DELETE", f"/api/datasources/uid/{uid}")

    def query(self, uid: str, sql: str, start: float, end: float, *, form: str = "table") -> dict[str, Any]:
        """The result of one query (frames, error) over a range in seconds; `sql` with its macros."""
        query = {
            "refId": "A", "datasource": {"uid": uid, "type": "grafana-postgresql-datasource"}, "rawSql": sql,
            "rawQuery": True, "format": form, "intervalMs": 60000, "maxDataPoints": 1000,
        }  # fmt: skip
        between = {"from": str(round(start * 1000)), "to": str(round(end * 1000))}
        answer = self.call("POST", "/api/ds/query", {"queries": [query], **between})
        result: dict[str, Any] = answer["results"]["A"]
        return result


def need_grafana() -> RealGrafana:
    try:
        return RealGrafana.of_environment()
    except ValueError as error:
        missing("grafana", f"asks a real Grafana: {error}")
