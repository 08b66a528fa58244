"""The job mapping directory of a batch system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.exporter.attribution import hpc_jobs
from services.exporter.attribution.hpc_jobs import HpcJobsError, Jobs, read


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
    assert jobs.unreadable == (f"{tmp_path}/0: it is a directory, not a regular file",)


def test_a_file_that_goes_while_we_read_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0").write_text("4711")
    (tmp_path / "1").write_text("4712")
    names = os.listdir(tmp_path)
    monkeypatch.setattr(os, "listdir", lambda _: names)
    (tmp_path / "0").unlink()
    jobs = read(tmp_path)
    assert jobs.by_slot == {(1, None): ("4712",)}
    assert jobs.unreadable == ()


def test_text_that_is_none_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "0").write_bytes(b"\xff\xfe\n" + b"7" * (2 * hpc_jobs.MAX_BYTES))
    (tmp_path / "1").write_bytes(b"\xff\n4711")
    jobs = read(tmp_path)
    assert jobs.by_slot == {(1, None): ("\ufffd", "4711")}
    assert jobs.unreadable == (f"{tmp_path}/0: it is larger than 65536 bytes",)


@pytest.mark.parametrize("text", ["7" * 257, "\n".join(map(str, range(129)))])
def test_a_list_no_batch_system_writes_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "0").write_text(text)
    jobs = read(tmp_path)
    assert jobs.by_slot == {}
    assert len(jobs.unreadable) == 1


@pytest.mark.timeout(10)
def test_a_fifo_holds_up_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0")
    (tmp_path / "1").write_text("4711")
    jobs = read(tmp_path)
    assert jobs.by_slot == {(1, None): ("4711",)}
    assert jobs.unreadable == (f"{tmp_path}/0: it is a FIFO, not a regular file",)


def test_names_that_are_no_text_or_no_ascii_are_not_ours(tmp_path: Path) -> None:
    for name in (b"\xff", b"0\xff", "\u0663".encode()):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text("4711")
    assert read(tmp_path) == Jobs({}, ())


def test_a_directory_of_thousands_is_refused(tmp_path: Path) -> None:
    for number in range(hpc_jobs.MAX_FILES + 1):
        (tmp_path / str(number)).touch()
    with pytest.raises(HpcJobsError, match="1025 files, at most 1024 are read"):
        read(tmp_path)


def test_no_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(HpcJobsError, match=r"HPC_JOB_MAPPING_DIR=.*/none: No such file or directory"):
        read(tmp_path / "none")
