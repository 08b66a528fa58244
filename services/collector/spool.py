"""What Kafka does not take waits here: append-only segment files, synced before a scrape counts as accepted.

One owner (a lock file), one thread. Reading does not move the position; `advance` does, once Kafka has acknowledged.
A crash between the two sends records again: at least once, and the table's unique key removes repeats.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.collector import segment as fmt
from services.collector import spool_files as files
from services.collector.batch import Batch, Message
from services.collector.segment import Record
from services.collector.spool_files import Position, Segment, SpoolError, SpoolFullError
from services.ops.clock import Clock, SystemClock

log = logging.getLogger("collector.spool")

SEGMENT_BYTES: Final = 16 * 1024 * 1024
"""A segment is read whole at start and deleted when sent: small enough for both, large enough to be few files."""
_READ_BYTES: Final = 4 * 1024 * 1024
_PEEK_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next records, and where the position stands once they are sent."""

    records: list[Record]
    segment: Segment
    end: int


class Spool:
    """Opening takes the lock and repairs what a crash left. Raises SpoolError with a sentence for the operator."""

    def __init__(self, directory: Path, max_bytes: int, clock: Clock | None = None) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._clock = clock or SystemClock()
        self._segment_bytes = min(SEGMENT_BYTES, max_bytes // 4)
        self._lock = files.lock(directory)
        try:
            found, self._offset = files.look(directory)
            taken = files.last_number(directory)
            first = found[0] if found else None
            self._segments = files.repair(found)
        except OSError as error:
            os.close(self._lock)
            raise SpoolError(f"SPOOL_DIR={directory}: {error}") from None
        if self._segments and self._segments[0] is not first:
            self._offset = self._segments[0].first
        position = files.read_position(directory)
        last = int(position.segment.removesuffix(files.SUFFIX)) if position else 0
        self.full = False
        """The last write did not fit."""
        self._number = max(last, taken)
        self._writer: int | None = None
        self._written: list[tuple[int, int]] = []
        self._oldest: int | None = self._peek()

    # What is there -------------------------------------------------------------------------------------------------

    @property
    def records(self) -> int:
        """Not sent yet."""
        return sum(segment.records for segment in self._segments)

    @property
    def bytes(self) -> int:
        """On disk, set-aside files not counted."""
        return sum(segment.size for segment in self._segments)

    @property
    def max_bytes(self) -> int:
        return self._max_bytes

    @property
    def empty(self) -> bool:
        return not self._segments

    @property
    def oldest_age(self) -> float:
        """Seconds the oldest record has been waiting; 0 where none is."""
        return 0.0 if self._oldest is None else max(0.0, self._clock.time() - self._oldest / 1000)

    # Writing -------------------------------------------------------------------------------------------------------

    def write(self, batch: Batch, reason: str) -> None:
        """Append a batch, whole or not at all; safe only after `sync`. Raises SpoolFullError, SpoolError."""
        now = int(self._clock.time() * 1000)
        data = b"".join(
            fmt.frame(Record(now, topic, key, batch.headers, value)) for topic, key, value in batch.messages
        )
        waiting = sum(size for size, _ in self._written)
        if self.bytes + waiting + len(data) > self._max_bytes:
            self.full = True
            raise SpoolFullError(f"the spool holds {self.bytes} bytes, SPOOL_MAX_BYTES={self._max_bytes}")
        try:
            descriptor = self._writable(reason, now)
            _write_all(descriptor, data)
        except OSError as error:
            self._undo_to(waiting)
            raise SpoolError(f"SPOOL_DIR={self._directory}: {error.strerror or error}") from None
        self._written.append((len(data), len(batch)))
        self.full = False
        self._oldest = now if self._oldest is None else self._oldest

    def sync(self) -> None:
        """All batches written so far are on disk when this returns. On SpoolError none of them is in the spool."""
        if self._writer is None or not self._written:
            return
        try:
            os.fsync(self._writer)
        except OSError as error:
            self._undo_to(0)
            self._written.clear()
            raise SpoolError(f"SPOOL_DIR={self._directory}: {error.strerror or error}") from None
        self._settle()

    def _settle(self) -> None:
        segment = self._segments[-1]
        segment.size += sum(size for size, _ in self._written)
        segment.records += sum(count for _, count in self._written)
        self._written.clear()

    def _writable(self, reason: str, now: int) -> int:
        """The descriptor of the last segment, or of a new one: when that is full or was begun for another reason."""
        if self._writer is not None and not self._written:
            last = self._segments[-1]
            if last.size >= self._segment_bytes or last.why != reason:
                self._close_writer()
        return self._begin(reason, now) if self._writer is None else self._writer

    def _begin(self, reason: str, now: int) -> int:
        self._number += 1
        path = self._directory / f"{self._number:010d}{files.SUFFIX}"
        line = fmt.header(reason, now)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            _write_all(descriptor, line)
            files.sync_directory(self._directory)
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        head = fmt.read_header(line)[0] or {}
        self._segments.append(Segment(path, len(line), len(line), 0, reason, head["time"]))
        if len(self._segments) == 1:
            self._offset = len(line)
        self._writer = descriptor
        return descriptor

    def _undo_to(self, keep: int) -> None:
        """Cut what was written behind the last synced byte, but for the first `keep` bytes of it."""
        if self._writer is None:
            return
        segment = self._segments[-1]
        try:
            os.ftruncate(self._writer, segment.size + keep)
        except OSError as error:
            log.error("cannot cut a failed write off the spool", extra={"segment": segment.path.name, "error": error})
        if keep == 0:
            self._close_writer()
            self._drop_if_empty(segment)

    def _close_writer(self) -> None:
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None

    def _drop_if_empty(self, segment: Segment) -> None:
        if not segment.records and segment in self._segments:
            self._finish(segment)
            self._oldest = self._peek()

    # Reading -------------------------------------------------------------------------------------------------------

    def read(self, limit: int) -> Chunk:
        """The next `limit` records at most, oldest first, all of one segment. The spool must not be empty."""
        segment = self._segments[0]
        try:
            records, length = self._read_frames(segment, limit, _READ_BYTES)
        except OSError as error:
            segment.damaged, records, length = f"unreadable: {error.strerror}", [], segment.size - self._offset
        return Chunk(records, segment, self._offset + length)

    def _read_frames(self, segment: Segment, limit: int, block: int) -> tuple[list[Record], int]:
        rest = segment.size - self._offset
        data = _read_at(segment.path, self._offset, min(rest, block))
        records: list[Record] = []
        at = 0
        while len(records) < limit and at < len(data):
            found = fmt.frame_at(data, at)
            if found is not None:
                records.append(found[0])
                at = found[1]
            elif len(data) < rest and records:
                break  # the frame may go on behind what was read: the next read begins with it
            elif len(data) < rest:
                data = _read_at(segment.path, self._offset, rest)
            else:
                segment.damaged = "damaged between whole records: some are lost"
                following = fmt.next_frame(data, at)
                at = len(data) if following is None else following
        return records, at

    def advance(self, chunk: Chunk) -> None:
        """The chunk's records are Kafka's now."""
        segment = chunk.segment
        segment.records = max(0, segment.records - len(chunk.records))
        self._offset = chunk.end
        if self._offset < segment.size or (self._written and segment is self._segments[-1]):
            self._note_position(Position(segment.path.name, segment.identity, self._offset))
        else:
            self._finish(segment)
        self._oldest = self._peek()

    def _note_position(self, position: Position) -> None:
        """A position that cannot be written (a full disk) costs repeats after a crash: no reason to stop sending."""
        try:
            files.write_position(self._directory, position)
        except OSError as error:
            log.warning("cannot note how far the spool has been sent", extra={"error": error.strerror})

    def _finish(self, segment: Segment) -> None:
        if segment is self._segments[-1]:
            self._close_writer()
        self._segments.remove(segment)
        try:
            files.discard(segment)
        except OSError as error:
            log.error("cannot delete a sent segment", extra={"segment": str(segment.path), "error": error.strerror})
        self._offset = self._segments[0].first if self._segments else 0

    def _peek(self) -> int | None:
        if not self._segments or not self._segments[0].records:
            return None
        try:
            records, _ = self._read_frames(self._segments[0], 1, _PEEK_BYTES)
        except OSError:
            return None
        return records[0].time if records else None

    def set_aside(self, messages: list[Message], reason: str) -> None:
        """Keep what Kafka will never take in `rejected.jsonl`, for a person to look at."""
        try:
            files.reject(self._directory, messages, reason)
        except OSError as error:
            log.error("cannot keep rejected messages", extra={"count": len(messages), "error": error})

    def close(self) -> None:
        """Sync, and let another process take the directory."""
        self.sync()
        self._close_writer()
        os.close(self._lock)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _read_at(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)
