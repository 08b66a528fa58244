from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterable
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from mock_dcgm.replay import Recordings, ReplayError, application

BODIES = [b'# one\nm{a="\xc3\xa9"} 1\n', b"m 2", b"\n\nm 3\r\n"]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.prom" for name in ("first", "second", "third")]
    for path, body in zip(paths, BODIES, strict=True):
        path.write_bytes(body)
    return paths


def fetch(recordings: Recordings, paths: Iterable[str], encoding: str = "identity") -> list[tuple[int, bytes]]:
    async def run() -> list[tuple[int, bytes]]:
        runner = web.AppRunner(application(recordings))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        answers = []
        base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with ClientSession(base, headers={"Accept-Encoding": encoding}, auto_decompress=False) as session:
            for path in paths:
                async with session.get(path) as answer:
                    answers.append((answer.status, await answer.read()))
        await runner.cleanup()
        return answers

    return asyncio.run(run())


def test_bodies_come_byte_for_byte_in_turn_and_the_last_stays(files: list[Path]) -> None:
    answers = fetch(Recordings(files, loop=False), ["/metrics"] * 5)
    assert answers == [(200, BODIES[i]) for i in (0, 1, 2, 2, 2)]


def test_a_loop_begins_again(files: list[Path]) -> None:
    answers = fetch(Recordings(files, loop=True), ["/metrics"] * 5)
    assert answers == [(200, BODIES[i]) for i in (0, 1, 2, 0, 1)]


def test_each_file_has_a_path_of_its_own(files: list[Path]) -> None:
    paths = ["/hosts/second/metrics", "/metrics", "/hosts/second/metrics", "/hosts/none/metrics", "/health"]
    answers = fetch(Recordings(files, loop=False), paths)
    assert answers[:3] == [(200, BODIES[1]), (200, BODIES[0]), (200, BODIES[1])]
    assert [status for status, _ in answers[3:]] == [404, 200]


def test_gzip_unpacks_to_the_same_bytes(files: list[Path]) -> None:
    [(status, packed)] = fetch(Recordings(files, loop=False), ["/metrics"], encoding="gzip")
    assert status == 200
    assert gzip.decompress(packed) == BODIES[0]


def test_equal_names_are_numbered(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "x.prom", tmp_path / "b" / "x.prom"]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(path.parent.name.encode())
    recordings = Recordings(paths, loop=False)
    assert recordings.names() == ["x-0", "x-1"]
    assert recordings.named("x-1") == b"b"


def test_a_missing_recording_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match=r"absent\.prom: No such file"):
        Recordings([tmp_path / "absent.prom"], loop=False)
