"""Which folder: one title may stand for several, and one under another folder is not ours."""

from __future__ import annotations

from typing import Any

from tests.support.grafana_server import FakeGrafana


def folder(uid: str, title: str = "GPU Health Monitor", **more: str) -> dict[str, Any]:
    return {"id": 1, "uid": uid, "title": title, **more}


def test_two_of_the_same_title_are_not_chosen_between(grafana: FakeGrafana, run: Any) -> None:
    grafana.folders = [folder("one"), folder("other", "Other"), folder("two")]
    refused = run(grafana, "--only", "host")
    assert refused.code == 1
    assert "one, two" in refused.err
    assert "--folder-uid" in refused.err
    assert grafana.dashboards == {}
    chosen = run(grafana, "--only", "host", "--folder-uid", "two", "--json")
    assert chosen.code == 0, chosen.err
    assert chosen.document["folder"] == {"uid": "two", "title": "GPU Health Monitor", "status": "found"}
    assert grafana.dashboards["gpu-telemetry"]["folderUid"] == "two"


def test_the_second_may_be_on_another_page(grafana: FakeGrafana, run: Any) -> None:
    grafana.folders = [folder("one"), *(folder(f"u{n}", f"t{n}") for n in range(1500)), folder("two")]
    assert "one, two" in run(grafana).err


def test_of_two_the_one_with_our_uid_is_ours(grafana: FakeGrafana, run: Any) -> None:
    grafana.folders = [folder("one"), folder("gpu-health-monitor")]
    assert run(grafana, "--only", "host", "--json").document["folder"]["uid"] == "gpu-health-monitor"
    assert "folder GPU Health Monitor (uid gpu-health-monitor): found\n" in run(grafana, "--only", "host").out


def test_a_short_title_does_not_take_somebody_elses_uid(grafana: FakeGrafana, run: Any) -> None:
    """`GPU` would be uid `gpu`, which may be anything; the usual folder, renamed, stays ours."""
    grafana.folders = [folder("gpu", "Other"), folder("gpu-health-monitor", "Our GPUs")]
    refused = run(grafana, "--folder", "GPU", "--only", "host")
    assert refused.code == 1
    assert "its title is 'Other'" in refused.err
    assert grafana.dashboards == {}
    assert run(grafana, "--only", "host", "--json").document["folder"]["title"] == "Our GPUs"


def test_one_under_another_folder_is_not_ours(grafana: FakeGrafana, run: Any) -> None:
    """A list may hold it all the same: of folders shared with somebody who does not see their parent."""
    grafana.folders = [folder("ops", "Ops"), folder("nested", parentUid="ops")]
    grafana.lists_nested = True
    done = run(grafana, "--only", "host", "--json")
    assert done.document["folder"] == {"uid": "gpu-health-monitor", "title": "GPU Health Monitor", "status": "created"}
    assert run(grafana, "--folder-uid", "nested", "--only", "host", "--json").document["folder"]["uid"] == "nested"


def test_a_uid_that_is_not_there(grafana: FakeGrafana, run: Any) -> None:
    for uid in ("nope", "a/b?c", ""):
        refused = run(grafana, "--folder-uid", uid)
        assert refused.code == 1
        assert "--folder-uid" in refused.err
        assert grafana.writes() == []


def test_what_is_no_folder_is_none(grafana: FakeGrafana, run: Any) -> None:
    """`Shared with me` stands in the list, `general` is the root."""
    assert run(grafana, "--folder", "Shared with me", "--only", "host", "--json").document["folder"] == {
        "uid": "shared-with-me", "title": "Shared with me", "status": "created",
    }  # fmt: skip
    assert run(grafana, "--folder-uid", "sharedwithme").code == 1
    root = run(grafana, "--folder-uid", "general", "--only", "host", "--json")
    assert root.document["folder"]["status"] == "root"
    assert grafana.dashboards["gpu-telemetry"]["folderUid"] == ""


def test_title_and_uid_at_once_make_no_sense(grafana: FakeGrafana, run: Any) -> None:
    refused = run(grafana, "--folder", "X", "--folder-uid", "y")
    assert refused.code == 2
    assert "--folder-uid" in refused.err
