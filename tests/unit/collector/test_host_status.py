from __future__ import annotations

from pathlib import Path

import pytest

from services.collector.host_status import StatusFile, is_local
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
