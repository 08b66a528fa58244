"""The spool: what was synced is there after any crash, in order, within its bound."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.collector import segment as fmt
from services.collector import spool_files as files
from services.collector.spool import Spool
from services.collector.spool_files import SpoolError, SpoolFullError, SpoolLockedError
from tests.unit.collector.fakes import ManualClock, batch, drain, values

MIB = 1024 * 1024


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool", MIB)
    yield spool
    spool.close()


def fill(spool: Spool, count: int, first: int = 0, reason: str = "_MSG_TIMED_OUT") -> None:
    for number in range(first, first + count):
        spool.write(batch(number), reason)
    spool.sync()


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"*{files.SUFFIX}"))


def test_what_goes_in_comes_out_in_order_with_key_and_headers(spool: Spool) -> None:
    fill(spool, 3)
    assert spool.records == 6
    records = drain(spool)
    assert [record.value for record in records] == values(3)
    assert records[1].key == "GPU-1"
    assert records[1].topic == "metrics"
    assert records[1].headers == [("schema_version", b"1"), ("source", b"host:9400")]
    assert (spool.empty, spool.records, spool.bytes) == (True, 0, 0)


def test_reading_does_not_move_the_position(spool: Spool) -> None:
    fill(spool, 3)
    assert spool.read(2).records == spool.read(2).records


def test_a_segment_begins_with_a_readable_line(spool: Spool, tmp_path: Path) -> None:
    fill(spool, 1, reason="_MSG_TIMED_OUT")
    line = json.loads(segments(tmp_path / "spool")[0].read_bytes().split(b"\n")[0])
    assert line["_spool_reason"] == "_MSG_TIMED_OUT"
    assert line["time"].endswith("+00:00")


def test_another_reason_begins_another_segment(spool: Spool, tmp_path: Path) -> None:
    fill(spool, 1, reason="queue_full")
    fill(spool, 1, first=1, reason="_MSG_TIMED_OUT")
    assert len(segments(tmp_path / "spool")) == 2
    assert [record.value for record in drain(spool)] == values(2)


def test_a_restart_goes_on_where_the_flush_was(tmp_path: Path) -> None:
    spool = Spool(tmp_path, MIB)
    fill(spool, 3)
    spool.advance(spool.read(3))
    spool.close()
    again = Spool(tmp_path, MIB)
    assert again.records == 3
    fill(again, 1, first=3)
    assert [record.value for record in drain(again)] == values(4)[3:]
    again.close()


def test_a_position_of_an_earlier_file_of_the_same_name_is_not_believed(tmp_path: Path) -> None:
    spool = Spool(tmp_path, MIB, ManualClock(1000))
    fill(spool, 3)
    spool.advance(spool.read(5))
    name = segments(tmp_path)[0].name
    spool.close()
    shutil.rmtree(tmp_path / name, ignore_errors=True)
    (tmp_path / name).unlink()
    other = Spool(tmp_path / "other", MIB, ManualClock(2000))
    fill(other, 3)
    other.close()
    segments(tmp_path / "other")[0].rename(tmp_path / name)
    again = Spool(tmp_path, MIB)
    assert [record.value for record in drain(again)] == values(3)
    again.close()


def test_segment_numbers_are_not_used_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path, MIB)
    fill(spool, 2)
    spool.advance(spool.read(3))
    first = segments(tmp_path)[0].name
    drain(spool)
    spool.close()
    again = Spool(tmp_path, MIB)
    fill(again, 1)
    assert segments(tmp_path)[0].name > first
    again.close()


def test_it_is_bounded_and_keeps_what_it_has(spool: Spool, tmp_path: Path) -> None:
    written = 0
    with pytest.raises(SpoolFullError, match="SPOOL_MAX_BYTES=1048576"):  # noqa: PT012  # how many fit is measured
        while True:
            spool.write(batch(written, size=100), "x")
            spool.sync()
            written += 1
    assert spool.full
    on_disk = sum(path.stat().st_size for path in segments(tmp_path / "spool"))
    assert MIB * 0.95 < on_disk <= MIB
    assert spool.bytes == on_disk
    assert [record.value for record in drain(spool)] == values(written, size=100)
    fill(spool, 1)
    assert not spool.full


def test_segments_are_deleted_as_they_are_sent(spool: Spool, tmp_path: Path) -> None:
    for number in range(60):
        spool.write(batch(number, size=100), "x")
        spool.sync()
    before = len(segments(tmp_path / "spool"))
    assert before >= 2
    first = segments(tmp_path / "spool")[0]
    while first.exists():
        spool.advance(spool.read(1000))
    assert len(segments(tmp_path / "spool")) == before - 1


def test_only_one_owner(spool: Spool, tmp_path: Path) -> None:
    with pytest.raises(SpoolLockedError, match=f"process id {os.getpid()}"):
        Spool(tmp_path / "spool", MIB)


def test_a_closed_spool_can_be_opened_again(tmp_path: Path) -> None:
    Spool(tmp_path, MIB).close()
    Spool(tmp_path, MIB).close()


def test_an_unwritable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match=r"SPOOL_DIR=.*file/spool: cannot be written to"):
        Spool(tmp_path / "file" / "spool", MIB)


def test_oldest_age(tmp_path: Path) -> None:
    clock = ManualClock()
    spool = Spool(tmp_path, MIB, clock)
    assert spool.oldest_age == 0
    fill(spool, 1)
    clock.now += 10
    fill(spool, 1)
    assert spool.oldest_age == pytest.approx(10, abs=0.01)
    spool.advance(spool.read(2))
    assert spool.oldest_age == pytest.approx(0, abs=0.01)
    spool.close()


# Disk failures


def break_write(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """The disk takes `after` more bytes of a record, then is full."""
    whole = os.write
    left = [after]

    def write(descriptor: int, data: bytes) -> int:
        if left[0] <= 0:
            raise OSError(28, "No space left on device")
        taken = whole(descriptor, bytes(data)[: left[0]])
        left[0] -= taken
        return taken

    monkeypatch.setattr(os, "write", write)


@pytest.mark.parametrize("room", [0, 5, 90, 200])
def test_a_full_disk_refuses_the_batch_and_keeps_the_rest(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    fill(spool, 2)
    with monkeypatch.context() as broken:
        break_write(broken, room)
        with pytest.raises(SpoolError, match="No space left"):  # noqa: PT012  # which one fails depends on the room
            for number in range(2, 10):
                spool.write(batch(number, size=4), "_MSG_TIMED_OUT")
        spool.sync()
    kept = spool.records
    fill(spool, 1, first=50)
    got = [record.value for record in drain(spool)]
    assert got[:4] == values(2)
    assert len(got) == kept + 2
    assert got[-2:] == values(1, first=50)


def test_a_failed_sync_takes_back_what_was_written(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(spool, 2)

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        spool.write(batch(2), "_MSG_TIMED_OUT")
        with pytest.raises(SpoolError, match="Input/output error"):
            spool.sync()
    fill(spool, 1, first=3)
    assert [record.value for record in drain(spool)] == values(2) + values(1, first=3)


def test_no_room_for_a_first_segment_leaves_nothing(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as broken:
        break_write(broken, 10)
        with pytest.raises(SpoolError, match="No space left"):
            spool.write(batch(0), "x")
    assert segments(tmp_path / "spool") == []
    assert spool.empty


def test_sending_goes_on_when_the_disk_is_full(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(spool, 3)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_position", fail)
    assert [record.value for record in spool.read(2).records] == values(1)
    spool.advance(spool.read(2))
    assert [record.value for record in drain(spool)] == values(3)[2:]
    assert caplog.text.count("cannot note how far") == 1


def test_a_removed_directory_refuses_and_recovers(spool: Spool, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "spool")
    with pytest.raises(SpoolError, match="No such file"):
        spool.write(batch(0), "x")
    (tmp_path / "spool").mkdir()
    fill(spool, 1)
    assert [record.value for record in drain(spool)] == values(1)


# Crashes


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[int]]:
    """(a segment of ten batches, the end of each record)."""
    directory = tmp_path_factory.mktemp("written")
    spool = Spool(directory, MIB)
    fill(spool, 10)
    spool.close()
    data = segments(directory)[0].read_bytes()
    offsets = fmt.scan(data).offsets
    return data, [*offsets[1:], len(data)]


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cut_anywhere_the_whole_prefix_is_kept(
    tmp_path_factory: pytest.TempPathFactory, written: tuple[bytes, list[int]], data: st.DataObject
) -> None:
    whole, ends = written
    cut = data.draw(st.integers(0, len(whole)), "cut")
    tail = data.draw(st.one_of(st.just(b""), st.binary(max_size=50), st.integers(0, 5000).map(bytes)), "tail")
    directory = tmp_path_factory.mktemp("cut")
    (directory / f"0000000001{files.SUFFIX}").write_bytes(whole[:cut] + tail)
    spool = Spool(directory, MIB)
    fill(spool, 1, first=99)
    got = [record.value for record in drain(spool)]
    spool.close()
    kept = sum(end <= cut for end in ends)
    assert got[-2:] == values(1, first=99)
    # Bytes drawn at random may by chance be those that were cut off; then one record more is whole.
    assert got[:-2] in (values(10)[:kept], values(10)[: kept + 1])
    if not tail:
        assert got[:-2] == values(10)[:kept]


def test_every_cut_of_the_last_record(tmp_path: Path, written: tuple[bytes, list[int]]) -> None:
    whole, ends = written
    for cut in range(ends[-2], ends[-1]):
        directory = tmp_path / str(cut)
        directory.mkdir()
        (directory / f"0000000001{files.SUFFIX}").write_bytes(whole[:cut])
        spool = Spool(directory, MIB)
        assert [record.value for record in drain(spool)] == values(10)[:19]
        spool.close()


def test_a_torn_tail_is_logged_not_raised(
    tmp_path: Path, written: tuple[bytes, list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / f"0000000001{files.SUFFIX}").write_bytes(written[0][:-7])
    spool = Spool(tmp_path, MIB)
    assert spool.records == 19
    assert "unfinished write" in caplog.text
    assert not list(tmp_path.glob(f"*{files.ASIDE}"))
    spool.close()


@given(at=st.integers(0, 10_000), flip=st.integers(1, 255))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_costs_one_record_at_most_and_the_file_is_kept(
    tmp_path_factory: pytest.TempPathFactory, written: tuple[bytes, list[int]], at: int, flip: int
) -> None:
    whole, ends = written
    first = fmt.scan(whole).first
    at = first + at % (ends[-2] - first)  # the last record left out: damage there looks like a torn write
    damaged = bytearray(whole)
    damaged[at] ^= flip
    directory = tmp_path_factory.mktemp("damage")
    (directory / f"0000000001{files.SUFFIX}").write_bytes(damaged)
    spool = Spool(directory, MIB)
    got = [record.value for record in drain(spool)]
    spool.close()
    hit = sum(end <= at for end in ends)
    assert got == values(10)[:hit] + values(10)[hit + 1 :]
    kept = list(directory.glob(f"*{files.ASIDE}"))
    assert [path.read_bytes() for path in kept] == [bytes(damaged)]
    assert "damaged" in json.loads((directory / f"{kept[0].name}.json").read_text())["reason"]


def test_a_file_that_is_no_segment_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / f"0000000001{files.SUFFIX}").write_bytes(b"what is this?\n" * 50)
    spool = Spool(tmp_path, MIB)
    assert spool.empty
    assert len(list(tmp_path.glob(f"*{files.ASIDE}"))) == 1
    fill(spool, 1)
    assert [record.value for record in drain(spool)] == values(1)
    spool.close()


def test_damage_that_happens_after_the_start(spool: Spool, tmp_path: Path) -> None:
    fill(spool, 3)
    path = segments(tmp_path / "spool")[0]
    data = bytearray(path.read_bytes())
    data[fmt.scan(bytes(data)).offsets[2] + 20] ^= 0xFF
    path.write_bytes(data)
    got = [record.value for record in drain(spool)]
    assert got == values(3)[:2] + values(3)[3:]
    assert spool.records == 0
    assert len(list((tmp_path / "spool").glob(f"*{files.ASIDE}"))) == 1


STEPS = st.one_of(
    st.tuples(st.just("fill"), st.integers(1, 4)),
    st.tuples(st.just("take"), st.integers(1, 9)),
    st.just(("crash", 0)),
)


@given(steps=st.lists(STEPS, max_size=25))
@settings(max_examples=100, deadline=None)
def test_any_history_gives_each_record_at_least_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    directory = tmp_path_factory.mktemp("history")
    spool = Spool(directory, MIB, ManualClock())
    sent, taken = 0, []
    for action, count in steps:
        if action == "fill":
            fill(spool, count, first=sent)
            sent += count
        elif action == "take" and not spool.empty:
            chunk = spool.read(count)
            spool.advance(chunk)
            taken += [record.value for record in chunk.records]
        elif action == "crash":
            os.close(spool._lock)  # all that a kill does to the files: the lock is free
            spool = Spool(directory, MIB, ManualClock())
    taken += [record.value for record in drain(spool)]
    spool.close()
    assert taken == values(sent)


# What others may put into the directory ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "position",
    [
        '{"segment": "mine.spool", "identity": "x", "offset": 3}',
        '{"segment": "' + "9" * 3000 + '.spool", "identity": "x", "offset": 3}',
        "[" * 100_000,
        "\udcff",
    ],
)
def test_a_position_of_nonsense_is_not_believed(tmp_path: Path, position: str) -> None:
    (tmp_path / "position.json").write_bytes(position.encode(errors="surrogateescape"))
    spool = Spool(tmp_path, 2**20)
    spool.write(batch(0), "x")
    spool.close()
    assert (tmp_path / "0000000001.spool").exists()


def test_only_regular_files_with_the_name_of_a_segment_are_taken(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0000000001.spool")
    os.mkfifo(tmp_path / "position.json")
    (tmp_path / "mine.spool").write_text("notes")
    spool = Spool(tmp_path, 2**20)
    spool.write(batch(0), "x")
    spool.sync()
    assert len(drain(spool)) == 2
    assert (tmp_path / "mine.spool").read_text() == "notes"
    spool.close()


def test_a_lock_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(SpoolError, match="a FIFO, not a regular file"):
        Spool(tmp_path, 2**20)


def test_a_second_damaged_file_of_one_name_does_not_replace_the_first(tmp_path: Path) -> None:
    for content in (b"one" * 100, b"two" * 100):
        (tmp_path / "0000000001.spool").write_bytes(content)
        Spool(tmp_path, 2**20).close()
    assert {path.read_bytes()[:3] for path in tmp_path.glob("*.corrupt")} == {b"one", b"two"}
