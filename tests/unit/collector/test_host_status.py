from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.collector import host_status
from services.collector.host_status import MAX_BYTES, StatusFile, is_local
from services.contract.event import Status


def test_it_follows_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "status.json"
    status = StatusFile(path)
    assert status.read() is None
    path.write_text('{"tag": "bench", "memo": "burn-in"}')
    assert status.read() == Status(tag="bench", memo="burn-in")
    path.write_text('{"tag": ')
    assert status.read() is None, "a wrong tag is worse than none"
    assert status.read() is None
    assert caplog.text.count("STATUS_FILE is not usable") == 1
    path.write_text('{"tag": "idle"}')
    assert status.read() == Status(tag="idle")
    path.unlink()
    assert status.read() is None


BAD = {
    "a byte that is no UTF-8": b'{"tag":"bench\xff"}',
    "nested deeply": b'{"tag":' + b"[" * 60_000,
    "no JSON": b'{"tag": ',
    "NUL": b'{"tag":"a\\u0000b"}',
    "larger than": b'{"tag":"bench"}' + b" " * MAX_BYTES,
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_a_bad_file_costs_the_status_and_one_line(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "status.json"
    path.write_text('{"tag": "old"}')
    status = StatusFile(path)
    assert status.read() == Status(tag="old")
    path.write_bytes(content)
    assert [status.read() for _ in range(3)] == [None] * 3
    [record] = caplog.records
    assert vars(record)["file"] == str(path)
    path.write_text('{"tag": "new"}')
    assert status.read() == Status(tag="new")


def test_a_fifo_is_no_status_and_holds_nobody_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "status.json"
    os.mkfifo(path)
    status = StatusFile(path)
    assert [status.read() for _ in range(3)] == [None] * 3
    [record] = caplog.records
    assert vars(record)["reason"] == "cannot be read (it is a FIFO, not a regular file)"


def test_a_device_is_not_read() -> None:
    assert StatusFile(Path("/dev/zero")).read() is None


def test_changed_in_place_to_the_same_size_and_time(tmp_path: Path) -> None:
    """`cp -p` and the like: only the time of the change tells."""
    path = tmp_path / "status.json"
    path.write_text('{"tag": "one"}')
    status = StatusFile(path)
    assert status.read() == Status(tag="one")
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # the file system's clock has steps of milliseconds
        path.write_text('{"tag": "two"}')
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert status.read() == Status(tag="two")


def test_what_could_not_be_read_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing about the file need change for it: another mount, a disk that recovers."""
    path = tmp_path / "status.json"
    path.write_text('{"tag": "bench"}')
    status = StatusFile(path)

    def refused(_path: Path, _limit: int) -> bytes:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(host_status, "read_regular", refused)
        assert [status.read() for _ in range(2)] == [None] * 2
    assert len(caplog.records) == 1
    assert status.read() == Status(tag="bench")


def test_no_setting_no_status() -> None:
    assert StatusFile(None).read() is None


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("localhost:9400", True),
        ("127.0.0.1:9400", True),
        ("[::1]:9400", True),
        ("GPU-node-1:9400", True),
        ("gpu-node-2:9400", False),
        ("10.0.0.1:9400", False),
    ],
)
def test_is_local(address: str, local: bool) -> None:
    assert is_local(address, "gpu-node-1") is local
