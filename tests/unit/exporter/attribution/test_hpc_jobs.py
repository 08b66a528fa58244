"""The job mapping directory of a batch system."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.exporter.attribution import hpc_jobs
from services.exporter.attribution.hpc_jobs import HpcJobsError, read


def test_jobs_by_gpu_and_by_instance(tmp_path: Path) -> None:
    (tmp_path / "0").write_text("4711\n4712\n")
    (tmp_path / "3.7").write_text("  4713  \n\n4713\n")
    jobs = read(tmp_path)
    assert jobs.by_slot == {(0, None): ("4711", "4712"), (3, 7): ("4713",)}
    assert jobs.unreadable == ()


def test_other_files_and_empty_ones_hold_nothing(tmp_path: Path) -> None:
    for name in ("README", "0.tmp", ".0.swp", "1.2.3", "-1"):
        (tmp_path / name).write_text("4711\n")
    (tmp_path / "5").touch()
    assert read(tmp_path).by_slot == {}


def test_a_folder_with_a_gpus_name_is_said_and_the_others_count(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "1").write_text("4711")
    jobs = read(tmp_path)
    assert jobs.by_slot == {(1, None): ("4711",)}
    assert jobs.unreadable == (f"{tmp_path}/0: Is a directory",)


def test_a_file_that_goes_while_we_read_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0").write_text("4711")
    (tmp_path / "1").write_text("4712")
    names = sorted(tmp_path.iterdir())
    monkeypatch.setattr(Path, "iterdir", lambda _: iter(names))
    (tmp_path / "0").unlink()
    jobs = read(tmp_path)
    assert jobs.by_slot == {(1, None): ("4712",)}
    assert jobs.unreadable == ()


def test_text_that_is_none_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "0").write_bytes(b"\xff\xfe\n" + b"7" * (2 * hpc_jobs.MAX_BYTES))
    ids = read(tmp_path).by_slot[0, None]
    assert sum(map(len, ids)) <= hpc_jobs.MAX_BYTES


def test_no_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(HpcJobsError, match=r"HPC_JOB_MAPPING_DIR=.*/none: No such file or directory"):
        read(tmp_path / "none")
