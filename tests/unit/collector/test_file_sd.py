from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from services.collector.file_sd import TargetFiles


def write(path: Path, *addresses: str) -> None:
    """As configuration tools do it: a new file in the place of the old one."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps([{"targets": list(addresses), "labels": {"rack": "r1"}}]))
    new.replace(path)


def sources(files: TargetFiles) -> list[str]:
    return [target.source for target in files.targets()]


def test_json_and_yaml_by_glob(tmp_path: Path) -> None:
    write(tmp_path / "a.json", "a:1")
    (tmp_path / "b.yml").write_text("- targets: [b:1, 'b:2']\n  labels: {rack: r2}\n")
    (tmp_path / "c.yaml").write_text("- targets:\n  - c:1\n")
    files = TargetFiles((str(tmp_path / "*.json"), str(tmp_path / "*.y*ml")))
    assert files.refresh()
    assert sources(files) == ["a:1", "b:1", "b:2", "c:1"]
    assert dict(files.targets()[1].labels) == {"rack": "r2"}


def test_changes_are_seen_and_nothing_else_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write(path, "a:1")
    files = TargetFiles((str(path),))
    assert files.refresh()
    assert not files.refresh()
    write(path, "a:2")
    assert files.refresh()
    assert sources(files) == ["a:2"]


def test_a_replaced_file_of_the_same_size_and_time_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write(path, "a:1")
    files = TargetFiles((str(path),))
    files.refresh()
    stat = path.stat()
    write(path, "a:2")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert files.refresh()


@pytest.mark.parametrize(
    "bad", ["", "{", "[1]", '[{"targets": "x"}]', '[{"targets": ["a b:1"]}]', "\x00\x01", '[{"targets":["a:1"]}']
)
def test_a_bad_file_keeps_the_last_good_list_and_is_logged_once(
    tmp_path: Path, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.json"
    write(path, "a:1")
    files = TargetFiles((str(path),))
    files.refresh()
    path.write_text(bad)
    for _ in range(3):
        files.refresh()
    assert sources(files) == ["a:1"]
    assert list(files.problems) == [str(path)]
    assert caplog.text.count("keeping the last good list") == 1
    write(path, "a:2")
    assert files.refresh()
    assert (sources(files), files.problems) == (["a:2"], {})


def test_a_yaml_error_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text("- targets: [a:1\n  labels: {")
    files = TargetFiles((str(path),))
    files.refresh()
    assert "\n" not in files.problems[str(path)]


def test_an_empty_yaml_file_means_no_targets(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text("# none yet\n")
    files = TargetFiles((str(path),))
    assert files.refresh()
    assert (sources(files), files.problems) == ([], {})


def test_a_deleted_file_takes_its_targets_with_it(tmp_path: Path) -> None:
    write(tmp_path / "a.json", "a:1")
    write(tmp_path / "b.json", "b:1")
    files = TargetFiles((str(tmp_path / "*.json"),))
    files.refresh()
    (tmp_path / "a.json").unlink()
    assert files.refresh()
    assert sources(files) == ["b:1"]


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "a:1")
    files = TargetFiles((str(tmp_path / "a.txt"),))
    files.refresh()
    assert ".json, .yml or .yaml" in next(iter(files.problems.values()))


def test_a_pattern_without_files_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = TargetFiles((str(tmp_path / "*.json"),))
    assert not files.refresh()
    assert not files.refresh()
    assert caplog.text.count("no target file matches") == 1
    write(tmp_path / "a.json", "a:1")
    assert files.refresh()


def test_a_file_that_is_no_regular_one_or_far_too_large(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with (tmp_path / "b.json").open("wb") as file:
        file.truncate(2**40)
    files = TargetFiles((str(tmp_path / "*.json"),))
    assert not files.refresh()
    assert [problem.split(",")[0] for problem in files.problems.values()] == [
        "it is a FIFO",
        "it is larger than 67108864 bytes",
    ]
