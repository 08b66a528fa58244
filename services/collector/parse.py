"""Exposition text -> runs of series. The collector's hot path.

Between two scrapes of a target nearly everything stays: the metrics, their order, the label part of every line. Only
the values change. So the label part is parsed once, and the order of the lines is remembered as *blocks*: consecutive
lines of one metric, whose label parts are a *group* (most metrics of a target share one group). A scrape is then taken
block by block with a few calls that run in C: read as many lines as the block had, strip the metric's name, strip each
line's expected label part, and what is left must be the values.

Whether every line had exactly the expected head is decided by one comparison of lengths: stripping removes a whole
head or nothing, so the sum of what is left is right if and only if each head matched. Anything else (a changed label,
a new or lost GPU, another order) takes the exact path line by line, which also learns the new shape.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from itertools import accumulate, compress, count, islice, repeat
from operator import eq
from typing import Final

from services.collector.enrich import Meaning
from services.collector.lines import HEAD, ScrapeRefused, check_end, line_number, not_a_sample, parse_labels
from services.collector.series import Block, Group, LabelSet, Run

_SWEEP_FLOOR: Final = 256  # label sets; below this, forgetting old ones is not worth the walk
_SPARE_GROUPS: Final = 8  # groups beyond one a block: left over from refused scrapes

_FEW: Final = 0.25  # of a block's lines; with more of them changed, reading all of them exactly costs no more


class Exposition:
    """The memory of one target's exposition. `understand` turns a line's labels into what they say."""

    def __init__(self, understand: Callable[[dict[str, str]], Meaning]) -> None:
        self._understand = understand
        self._sets: dict[bytes, LabelSet] = {}
        self._bare: LabelSet = LabelSet(b"", understand({}))
        self._groups: dict[tuple[LabelSet, ...], Group] = {}
        self._layout: list[Block] = []
        self._sweep_at = _SWEEP_FLOOR
        self._ended = False

    def runs(self, body: bytes) -> Iterator[Run]:
        """The runs of `body` in order. Raises ScrapeRefused; the caller drops what it has seen of the body then."""
        check_end(body)
        if len(self._sets) > self._sweep_at or len(self._groups) > len(self._layout) + _SPARE_GROUPS:
            self._sweep()
        scan = _Scan(self, body, self._layout)
        yield from scan
        if self._ended and not scan.ended:
            # OpenMetrics ends with `# EOF`, so a body cut between two lines is noticed too. Only once: an exporter
            # that changed to the plain format is taken from its second scrape on.
            self._ended = False
            raise ScrapeRefused("truncated", "the body lacks the `# EOF` that this target's last one ended with")
        self._ended = scan.ended
        self._remember(scan.layout)

    @property
    def label_sets(self) -> int:
        """How many label sets are remembered."""
        return len(self._sets)

    def label_set(self, text: bytes) -> LabelSet | None:
        """The label set of `text` (up to and with `} `), if it is known."""
        return self._sets.get(text)

    def learn(self, inner: bytes | None) -> LabelSet:
        """The label set of what stands between the braces; None: the line has no braces. Raises ValueError."""
        if inner is None:
            return self._bare
        text = inner + b"} "
        known = self._sets.get(text)
        if known is None:
            known = self._sets[text] = LabelSet(text, self._understand(parse_labels(inner)))
        return known

    def group(self, sets: tuple[LabelSet, ...]) -> Group:
        """The one group of these sets. Raises ValueError when a set is in it twice."""
        known = self._groups.get(sets)
        if known is None:
            if len(set(sets)) != len(sets):
                raise ValueError("the same series twice")
            known = self._groups[sets] = Group(sets)
        return known

    def regroup(self, group: Group, changes: dict[int, LabelSet]) -> Group:
        """`group` with other label sets at some positions. Raises ValueError when a set is in it twice then."""
        sets = list(group.sets)
        for index, labels in changes.items():
            sets[index] = labels
        return self.group(tuple(sets))

    def _remember(self, layout: list[Block]) -> None:
        if layout != self._layout:
            self._layout = layout
            self._groups = {block.group.sets: block.group for block in layout}

    def _sweep(self) -> None:
        """Forgets what the last accepted scrape did not have: churned label sets must not pile up."""
        self._groups = {block.group.sets: block.group for block in self._layout}
        self._sets = {s.text: s for group in self._groups.values() for s in group.sets}
        self._sweep_at = 2 * len(self._sets) + _SWEEP_FLOOR


class _Scan:
    """One pass over one body."""

    def __init__(self, memory: Exposition, body: bytes, guess: list[Block]) -> None:
        self.layout: list[Block] = []
        self.ended = False
        self._memory = memory
        self._body = body
        self._stream = io.BytesIO(body)
        self._guess = guess
        self._moved: dict[Group, Group] = {}
        """Group of the last scrape -> what became of it in this one: the other metrics change in the same way."""

    def __iter__(self) -> Iterator[Run]:
        pos, turn, end = 0, 0, len(self._body)
        places: dict[str, int] | None = None
        while pos < end:
            block = self._guess[turn] if turn < len(self._guess) else None
            if block is not None and self._body.startswith(block.lead, pos):
                comments, pos = block.comments, pos + len(block.comments)
            else:
                comments, pos = self._comments(pos)
                if pos == end:
                    return
                if places is None:
                    places = {b.name: i for i, b in reversed(list(enumerate(self._guess)))}
                place = places.get(self._name(pos))
                block = None if place is None else self._guess[place]
                turn = turn - 1 if place is None else place  # a new metric: the expected one may come after it
            run = None if block is None else self._bulk(block, pos) or self._patched(block, pos)
            run = run or self._exact(pos, block)
            self._append(run, comments, block)
            yield run
            pos, turn = self._stream.tell(), turn + 1

    def _append(self, run: Run, comments: bytes, block: Block | None) -> None:
        if block is None or block.group is not run.group or block.comments != comments:
            if run.group.sets[0].text == b"":
                return  # no label part to remember
            prefix = run.name.encode() + b"{"
            block = Block(run.name, comments, prefix, comments + prefix, run.group)
        self.layout.append(block)

    def _bulk(self, block: Block, pos: int) -> Run | None:
        """The lines from `pos` if they are those of `block` with other values, else None."""
        group = self._moved.get(block.group, block.group)
        prefix, stream = block.prefix, self._stream
        stream.seek(pos)
        lines = islice(stream, group.count)
        strip = bytes.removeprefix
        texts = list(map(strip, map(strip, lines, repeat(prefix)), group.texts))
        joined = b",".join(texts)
        end = stream.tell()
        heads = group.size + group.count * len(prefix)
        if end - pos - heads != len(joined) - group.count + 1 or self._body.startswith(prefix, end):
            return None
        return Run(block.name, group, texts, joined, pos)

    def _patched(self, block: Block, pos: int) -> Run | None:
        """The lines from `pos` if they are those of `block` but for a few label parts, which are read exactly."""
        group = self._moved.get(block.group, block.group)
        prefix, strip = block.prefix, bytes.removeprefix
        self._stream.seek(pos)
        lines = list(islice(self._stream, group.count))
        end = self._stream.tell()
        rests = list(map(strip, lines, repeat(prefix)))
        texts = list(map(strip, rests, group.texts))
        other = list(compress(count(), map(eq, map(len, rests), map(len, texts))))
        named = end - pos - sum(map(len, rests)) == group.count * len(prefix)
        if not named or len(other) > group.count * _FEW or self._body.startswith(prefix, end):
            return None
        offsets = list(accumulate(map(len, lines), initial=pos))
        changes: dict[int, LabelSet] = {}
        for i in other:
            changes[i], texts[i] = self._split(lines[i], len(prefix), offsets[i])
        try:
            self._moved[block.group] = changed = self._memory.regroup(group, changes)
        except ValueError:
            return None  # a series twice: the exact path says where
        return Run(block.name, changed, texts, b",".join(texts), pos)

    def _comments(self, pos: int) -> tuple[bytes, int]:
        """Comments and empty lines from `pos`: their text and the offset of the first sample line (or the end)."""
        self._stream.seek(pos)
        begin = pos
        for line in self._stream:
            text = line.strip(b" \t\r\n")
            if text and not text.startswith(b"#"):
                break
            self.ended = self.ended or text == b"# EOF"
            pos += len(line)
        comments = self._body[begin:pos]
        if not comments.isascii():
            self._decode(comments, begin)
        if self.ended and pos < len(self._body):
            raise ScrapeRefused("not_exposition", f"line {line_number(self._body, pos)} follows `# EOF`")
        return comments, pos

    def _name(self, pos: int) -> str:
        head = HEAD.match(self._body, pos)
        return head[1].decode() if head else ""

    def _exact(self, pos: int, block: Block | None) -> Run:
        """All consecutive lines from `pos` that begin with the first one's `NAME{`; a line of other form alone."""
        head = HEAD.match(self._body, pos)
        if head is None:
            raise not_a_sample(self._body, pos)
        prefix = head[1] + b"{"
        if not self._body.startswith(prefix, pos):
            return self._single(pos)
        self._stream.seek(pos)
        sets, texts, at = [], [], pos
        for line in self._stream:
            if not line.startswith(prefix):
                break
            labels, text = self._split(line, len(prefix), at)
            sets.append(labels)
            texts.append(text)
            at += len(line)
        self._stream.seek(at)
        try:
            group = self._memory.group(tuple(sets))
        except ValueError:
            raise self._twice(pos, sets) from None
        if block is not None and block.group is not group:
            self._moved[block.group] = group
        return Run(head[1].decode(), group, texts, b",".join(texts), pos)

    def _split(self, line: bytes, skip: int, pos: int) -> tuple[LabelSet, bytes]:
        """Label set and value text of a line that begins with `NAME{` (`skip` bytes)."""
        rest = line[skip:]
        cut = rest.rfind(b"} ") + 2
        # A known label part is a whole one, so it can only end where labels end: the guess by the last brace is safe.
        known = self._memory.label_set(rest[:cut])
        if known is not None:
            return known, rest[cut:]
        head = HEAD.match(line)
        if head is None or head[2] is None:
            raise not_a_sample(self._body, pos)
        return self._labels(head[2], pos), line[head.end() :]

    def _single(self, pos: int) -> Run:
        """A line of unusual form: no labels, or blanks where exporters put none."""
        self._stream.seek(pos)
        line = self._stream.readline()
        head = HEAD.match(line)
        if head is None:
            raise not_a_sample(self._body, pos)
        text = line[head.end() :]
        group = self._memory.group((self._labels(head[2], pos),))
        return Run(head[1].decode(), group, [text], text, pos)

    def _labels(self, inner: bytes | None, pos: int) -> LabelSet:
        if inner is not None and b"\0" in inner:  # PostgreSQL's text cannot hold it, and no exporter writes it
            line = line_number(self._body, pos)
            raise ScrapeRefused("not_exposition", f"line {line} has a NUL character among its labels")
        try:
            return self._memory.learn(inner)
        except UnicodeDecodeError:
            raise ScrapeRefused("not_utf8", f"line {line_number(self._body, pos)} is not UTF-8") from None
        except ValueError:
            raise not_a_sample(self._body, pos) from None

    def _decode(self, text: bytes, pos: int) -> None:
        try:
            text.decode()
        except UnicodeDecodeError as error:
            line = line_number(self._body, pos + error.start)
            raise ScrapeRefused("not_utf8", f"line {line} is not UTF-8") from None

    def _twice(self, pos: int, sets: list[LabelSet]) -> ScrapeRefused:
        first: dict[LabelSet, int] = {}
        repeated = next(i for i, labels in enumerate(sets) if first.setdefault(labels, i) != i)
        line = line_number(self._body, pos) + repeated
        return ScrapeRefused("duplicate_series", f"line {line} repeats a series of this scrape")
