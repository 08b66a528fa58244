"""What no exporter and no configuration tool writes: it is refused with a reason, quickly, and ends nothing."""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import gzip
import json
import time
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services.collector import run
from services.collector.enrich import understand
from services.collector.file_sd import TargetFiles
from services.collector.lines import HEAD, parse_labels
from services.collector.reader import ScrapeRefused, TargetReader
from services.collector.scrape import ScrapeFailedError, gather
from services.collector.targets import TargetError, make_target, parse_groups, parse_static
from services.settings import Settings

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
GOOD = b'DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-0"} 61\n'
N = 200_000


def refused(body: bytes) -> ScrapeRefused:
    with pytest.raises(ScrapeRefused) as caught:
        TargetReader("n1:9400", {}).read(body, NOW)
    return caught.value


def seconds(action: Callable[[], object]) -> float:
    """The best of three: what else the machine does must not count."""
    times = []
    for _ in range(3):
        started = time.thread_time()
        action()
        times.append(time.thread_time() - started)
    return min(times)


def assert_linear(action: Callable[[int], object]) -> None:
    """Eight times the text in far less than 64 times the time; what is too short to measure is quick anyhow."""
    small, large = seconds(lambda: action(N // 8)), seconds(lambda: action(N))
    assert large < 24 * max(small, 0.002)


# Lines ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda n: b"1" * n + b"x",
        lambda n: b"1." + b"1" * n + b"x",
        lambda n: b"1e" + b"1" * n + b"x",
        lambda n: b"1 " + b"1" * n + b"x",
        lambda n: b"1" + b" " * n + b"x",
        lambda n: b'1 # {a="' + b"b" * n + b'"} ' + b"1" * n + b"x",
        lambda n: b'1 # {a="' + b"\\\\" * n,
        lambda n: b"1 # {" + b'""' * n + b"x",
    ],
    ids=["digits", "fraction", "exponent", "timestamp", "blanks", "exemplar", "escapes", "quotes"],
)
def test_a_long_line_is_refused_in_time_that_grows_with_its_length(make: Callable[[int], bytes]) -> None:
    def read(n: int) -> None:
        assert refused(GOOD[:-3] + make(n) + b"\n").reason == "not_exposition"

    assert_linear(read)


@pytest.mark.parametrize(
    "make",
    [lambda n: b'a="b",' + b" " * n, lambda n: b" " * n, lambda n: b'a="b",' * n, lambda n: b'a="' + b"\\n" * n + b'"'],
    ids=["blanks-after", "blanks", "pairs", "escapes"],
)
def test_labels_take_time_that_grows_with_their_length(make: Callable[[int], bytes]) -> None:
    def read(n: int) -> None:
        try:
            parse_labels(make(n))
        except ValueError:
            return

    assert_linear(read)


@pytest.mark.parametrize("make", [lambda n: b"a{" + b'"" ' * n, lambda n: b'a{b="' + b"\\" * n, lambda n: b" " * n])
def test_heads_take_time_that_grows_with_their_length(make: Callable[[int], bytes]) -> None:
    assert_linear(lambda n: HEAD.match(make(n)))


def test_a_series_twice_is_found_in_time_that_grows_with_the_lines() -> None:
    def read(n: int) -> None:
        lines = [b'DCGM_FI_DEV_GPU_TEMP{UUID="GPU-%d"} 61\n' % i for i in range(n // 20)]
        assert refused(b"".join([*lines, lines[-1]])).reason == "duplicate_series"

    assert_linear(read)


@pytest.mark.parametrize("value", ["1" * 401, "0." + "1" * 500, "1e" + "0" * 500])
def test_a_number_longer_than_any_double_is_refused(value: str) -> None:
    assert refused(GOOD[:-3] + value.encode() + b"\n").reason == "not_exposition"


def test_the_longest_double_is_read() -> None:
    """C's `%f` of the largest double has 317 bytes: no temperature, but a number."""
    reading = TargetReader("n1:9400", {}).read(GOOD[:-3] + b"%f\n" % -1.7976931348623157e308, NOW)
    assert reading.samples == 1


# Labels ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("digits", ["1" * 5000, "9" * 6])
def test_a_number_too_long_stays_a_label(digits: str) -> None:
    meaning = understand({"UUID": "GPU-1", "gpu": digits, "GPU_I_ID": digits})
    assert meaning.key == ("GPU-1", None)
    assert meaning.labels == {"gpu": digits, "GPU_I_ID": digits}


@pytest.mark.parametrize("name", ["UUID", "Hostname", "pod", "anything"])
def test_a_nul_in_a_label_refuses_the_scrape(name: str) -> None:
    """PostgreSQL's text cannot hold it."""
    refusal = refused(GOOD + b'DCGM_FI_DEV_GPU_TEMP{gpu="1",UUID="GPU-1",%s="a\0b"} 61\n' % name.encode())
    assert refusal.reason == "not_exposition"
    assert "line 2" in str(refusal)
    assert "NUL" in str(refusal)


# Targets --------------------------------------------------------------------------------------------------------------

HOSTS = ["\ud800:9400", "\udcff:9400", "[::1:9400", "a\0b:9400", "\u2100:9400"]


@pytest.mark.parametrize("address", HOSTS)
def test_a_bad_address_is_a_target_error(address: str) -> None:
    with pytest.raises(TargetError):
        make_target({"__address__": address})
    for entry in (address, f"http://{address}", f"http://{address}/metrics"):
        with pytest.raises(TargetError):
            parse_static(entry)


@pytest.mark.parametrize("entry", ["http://gpu1:9400/\udcff", "http://gpu1:9400/?x=\udcff", "http://gpu1:9400/\0"])
def test_a_bad_url_is_a_target_error(entry: str) -> None:
    with pytest.raises(TargetError):
        parse_static(entry)


@pytest.mark.parametrize("text", ["\ud800", "a\0b"])
@pytest.mark.parametrize("name", ["rack", "__metrics_path__", "__param_x"])
def test_labels_that_cannot_be_stored_are_a_target_error(name: str, text: str) -> None:
    for labels in ({name: text}, {text: "x"}):
        with pytest.raises(TargetError):
            parse_groups([{"targets": ["a:1"], "labels": labels}])


_BOMB = "- &a0 [x, x]\n" + "".join(f"- &a{i + 1} [*a{i}, *a{i}]\n" for i in range(60))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("a.json", json.dumps([{"targets": [host]}])) for host in HOSTS),
        ("a.json", json.dumps([{"targets": ["a:1"], "labels": {"rack": "\ud800"}}])),
        ("a.json", "[" * 100_000),
        ("a.json", '[{"targets": [' + "[" * 900 + "]" * 900 + "]}]"),
        ("a.json", "1" * 5000),
        ("a.yml", "[" * 3000),
        ("a.yml", "- targets: [0001-01-01T00:00:00+23:59]"),
        ("a.yml", "- !!bool x"),
        ("a.yml", "- !!timestamp x"),
        ("a.yml", _BOMB),
    ],
)
def test_a_bad_file_keeps_the_last_good_list(
    tmp_path: Path, name: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / name
    path.write_text('[{"targets": ["good:1"]}]')
    files = TargetFiles((str(path),))
    files.refresh()
    path.write_text(text)
    for _ in range(2):
        assert not files.refresh()
    assert [target.source for target in files.targets()] == ["good:1"]
    assert len(caplog.records) == 1
    assert len(files.problems[str(path)]) < 500


@pytest.mark.parametrize("entry", ["http://[::1:9400", "[::1:9400", "\udcff:9400"])
def test_a_bad_entry_ends_with_one_line_and_code_2(entry: str, capsys: pytest.CaptureFixture[str]) -> None:
    args = argparse.Namespace(targets=entry, targets_files=None, interval=None, spool_dir=None, to=None)
    assert run.run(args, Settings()) == 2
    told = capsys.readouterr().err
    assert "TARGETS" in told
    assert told.count("\n") == 1


# Bodies ---------------------------------------------------------------------------------------------------------------

PIECE = 1024 * 1024


async def _parts(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def collect(data: bytes, encoding: str, max_bytes: int = 10**9, size: int = 4096) -> bytes:
    return asyncio.run(gather(_parts(data, size), encoding, max_bytes))


@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_a_compressed_body_is_put_together(size: int) -> None:
    body = GOOD * 500
    assert collect(gzip.compress(body, mtime=0), "gzip", len(body), size) == body
    assert collect(body, "", len(body), size) == body


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_a_body_above_the_bound_is_given_up(encoding: str) -> None:
    body = GOOD * 500
    sent = gzip.compress(body, mtime=0) if encoding else body
    with pytest.raises(ScrapeFailedError, match="too_large"):
        collect(sent, encoding, len(body) - 1)


@pytest.mark.parametrize(
    ("data", "encoding", "reason"),
    [
        (b"no gzip", "gzip", "bad_encoding"),
        (gzip.compress(GOOD, mtime=0)[:-9], "gzip", "truncated"),
        (gzip.compress(GOOD, mtime=0) + b"more", "gzip", "bad_encoding"),
        (b"", "gzip", "truncated"),
        (zlib.compress(GOOD), "deflate", "bad_encoding"),
    ],
)
def test_a_body_that_cannot_be_decompressed_has_a_reason(data: bytes, encoding: str, reason: str) -> None:
    with pytest.raises(ScrapeFailedError) as caught:
        collect(data, encoding)
    assert caught.value.reason == reason


def test_a_bomb_takes_no_more_memory_than_the_bound() -> None:
    """In a single part, as a fast network gives it: 64 MB from 64 kB, with a bound of 8 MiB."""
    import tracemalloc

    bomb = gzip.compress(bytes(64 * PIECE), 6)
    tracemalloc.start()
    try:
        with pytest.raises(ScrapeFailedError, match="too_large"):
            collect(bomb, "gzip", 8 * PIECE, len(bomb))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 14 * PIECE


def test_the_loop_turns_while_a_large_body_is_decompressed() -> None:
    async def main() -> int:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(others())
        data = gzip.compress(bytes(16 * PIECE))
        await gather(_parts(data, len(data)), "gzip", 10**9)
        other.cancel()
        return turns

    assert asyncio.run(main()) >= 15  # 16 pieces
