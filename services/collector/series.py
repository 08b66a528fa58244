"""What a parsed exposition is made of: label sets, groups of them, runs of lines."""

from __future__ import annotations

from dataclasses import dataclass

from services.collector.enrich import Meaning


class LabelSet:
    """The label part of a line, parsed once. Compared by identity: one object per distinct text."""

    __slots__ = ("owner", "text")

    def __init__(self, text: bytes, owner: Meaning) -> None:
        self.text = text
        """What follows the opening brace, up to and with `} `."""
        self.owner = owner


class Group:
    """The label sets of consecutive lines, in order. Shared by all metrics that have the same lines."""

    __slots__ = ("count", "owners", "sets", "size", "strangers", "texts")

    def __init__(self, sets: tuple[LabelSet, ...]) -> None:
        self.sets = sets
        self.texts = [s.text for s in sets]
        self.owners = [s.owner for s in sets]
        self.count = len(sets)
        self.size = sum(map(len, self.texts))
        self.strangers = [owner.key for owner in self.owners].count(None)
        """Lines that belong to no GPU."""


@dataclass(slots=True)  # not frozen: that makes building one, the most frequent thing here, several times slower
class Run:
    """Consecutive lines of one metric: `texts[i]` is the text after the head of the line labelled `group.sets[i]`.

    A text holds the value and whatever may follow it (time stamp, exemplar, line feed); `joined` is all of them
    separated by commas.
    """

    name: str
    group: Group
    texts: list[bytes]
    joined: bytes
    start: int
    """Byte offset of the first line in the body."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """What a run looked like in the last scrape, comments in front of it included."""

    name: str
    comments: bytes
    prefix: bytes
    """`NAME{`"""
    lead: bytes
    """`comments` and `prefix`: what the body holds where this block begins."""
    group: Group
