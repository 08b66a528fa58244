"""A Grafana that somebody runs, for tests that ask the real one: GPUMON_GRAFANA=http://user:password@host:port."""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from typing import Any, Final
from urllib.parse import urlsplit

from psycopg.conninfo import conninfo_to_dict

from tests.support.prerequisites import missing

VARIABLE: Final = "GPUMON_GRAFANA"
TIMEOUT: Final = 60.0
"""s"""


class RealGrafana:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.address = parts.hostname or "127.0.0.1", parts.port or 80
        self.authorization = "Basic " + base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()
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

    def add_database(self, uid: str, dsn: str, name: str = "") -> None:
        """A PostgreSQL data source; Grafana must be able to reach it under the address this machine uses."""
        where = conninfo_to_dict(dsn)
        answer = self.call("POST", "/api/datasources", {
            "uid": uid, "name": name or uid, "type": "grafana-postgresql-datasource", "access": "proxy",
            "url": f"{where['host']}:{where['port']}", "user": where["user"],
            "jsonData": {"database": where["dbname"], "sslmode": "disable", "timescaledb": True, "maxOpenConns": 2},
            "secureJsonData": {"password": where.get("password", "none")},
        })  # fmt: skip
        assert "datasource" in answer, answer
        health = self.call("GET", f"/api/datasources/uid/{uid}/health")
        assert health["status"] == "OK", health

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
    url = os.environ.get(VARIABLE)  # noqa: TID251 - the tests' own switch, no setting of the product
    if not url:
        missing("grafana", f"asks a real Grafana: set {VARIABLE} to http://user:password@host:port")
    return RealGrafana(url)
