from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.ops.regular_file import read_regular


def test_a_regular_file_and_a_link_to_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    (tmp_path / "b").symlink_to("a")
    assert read_regular(tmp_path / "a", 100) == read_regular(tmp_path / "b", 100) == b"x" * 100
    (tmp_path / "a").write_bytes(b"")
    assert read_regular(tmp_path / "a", 100) == b""


@pytest.mark.parametrize(
    ("path", "why"), [("fifo", "a FIFO"), (".", "a directory"), ("/dev/zero", "a device"), ("link", "a FIFO")]
)
def test_anything_else_is_refused_at_once(tmp_path: Path, path: str, why: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    with pytest.raises(OSError, match=f"{why}, not a regular file") as caught:
        read_regular(tmp_path / path, 100)
    assert why in str(caught.value.strerror)


@pytest.mark.parametrize("limit", [99, 2**20 - 1, 2**20])
def test_what_is_larger_is_not_read_to_its_end(tmp_path: Path, limit: int) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(limit)
    assert len(read_regular(tmp_path / "a", limit)) == limit
    with (tmp_path / "a").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match=f"larger than {limit} bytes"):
        read_regular(tmp_path / "a", limit)


def test_a_file_without_a_size(tmp_path: Path) -> None:
    assert b"Linux" in read_regular(Path("/proc/version"), 4096)
