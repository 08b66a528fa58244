"""Shapes of answers: as a Grafana 12.3.0 gave them, shortened; and as older ones have them."""

from __future__ import annotations

import pytest

from services.grafana import answers
from services.grafana.answers import document, shaped
from services.grafana.errors import GrafanaError

SOURCES = b"""[{"id":1,"uid":"gpu-telemetry-ds","orgId":1,"name":"gpu-telemetry","type":"grafana-postgresql-datasource",
"typeName":"PostgreSQL","typeLogoUrl":"public/x.svg","access":"proxy","url":"db.example:5432","user":"grafana",
"database":"gpu_health","basicAuth":false,"isDefault":true,"jsonData":{"database":"gpu_health","sslmode":"disable",
"timescaledb":true},"readOnly":true}]"""
FOLDERS = b"""[{"id":-1,"uid":"sharedwithme","title":"Shared with me"},{"id":1,"uid":"a","title":"A"},
{"id":7,"uid":"n","title":"N","parentUid":"a"}]"""
DASHBOARD = b"""{"meta":{"type":"db","canSave":true,"slug":"t","url":"/d/t/t","version":1,"isFolder":false,"folderId":7,
"folderUid":"n","folderTitle":"N","provisioned":true,"provisionedExternalId":"t.json"},"dashboard":{"id":2,"uid":"t"}}"""
VERSIONS = b"""{"continueToken":"","versions":[{"id":1,"dashboardId":2,"uid":"t","parentVersion":0,"restoredFrom":0,
"version":1,"created":"2026-11-22T09:54:36Z","message":"Initial save","data":{"title":"T"},"createdBy":"ad"}]}"""


def test_of_a_real_grafana() -> None:
    (source,) = shaped(answers.DATA_SOURCES, document(SOURCES), "")
    assert (source.url, source.readOnly, source.jsonData and source.jsonData["sslmode"]) == (
        "db.example:5432", True, "disable",
    )  # fmt: skip
    assert [folder.parentUid for folder in shaped(answers.FOLDERS, document(FOLDERS), "")] == [None, None, "a"]
    dashboard = shaped(answers.DASHBOARD, document(DASHBOARD), "")
    assert (dashboard.dashboard["uid"], dashboard.meta.folderUid, dashboard.meta.provisioned) == ("t", "n", True)
    found = shaped(answers.VERSIONS, document(VERSIONS), "").versions
    assert found is not None
    assert (found[0].version, found[0].parentVersion, found[0].message) == (1, 0, "Initial save")


def test_versions_are_a_list_in_older_ones() -> None:
    found = shaped(answers.VERSIONS, [{"version": 2, "message": "m"}], "")
    assert found.versions is not None
    assert found.versions[0].message == "m"
    assert shaped(answers.VERSIONS, {"versions": None}, "").versions is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 300, b"{", b"\xff", b'{"a": "\\ud800"}'])
def test_what_is_no_json(body: bytes) -> None:
    assert document(body) is answers.NOT_JSON


def test_null_is_json() -> None:
    assert document(b"null") is None


def test_what_is_wrong_is_named_and_not_shown() -> None:
    with pytest.raises(GrafanaError) as refused:
        shaped(
            answers.FOLDERS, [{"uid": "a", "title": "A"}, {"uid": "hunter2" * 9, "title": 5}], "http://h/api/folders"
        )
    assert "http://h/api/folders does not answer" in str(refused.value)
    assert "(1.title: Input should be a valid string)" in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert refused.value.unclear
