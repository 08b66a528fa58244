"""What is remembered between scrapes makes reading fast, never different."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable

import pytest

from services.collector.enrich import understand
from services.collector.parse import Exposition
from services.collector.reader import ScrapeRefused, TargetReader
from services.collector.series import LabelSet
from services.contract.event import Event
from tests.support.exposition import Fleet, chosen

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
Lines = list[bytes]


def _value(rng: random.Random, lines: Lines) -> None:
    """Another value, often one that only the exact path reads."""
    odd = [
        b"NaN",
        b"+Inf",
        b"1e3",
        b"61.000000",
        b"9223372036854775794",
        b"-7",
        b"5 1700000000000",
        b"0.5",
        b" 6",
        b"x",
    ]
    at = _sample(rng, lines)
    lines[at] = lines[at].rpartition(b"} ")[0] + b"} " + rng.choice(odd)


def _drop(rng: random.Random, lines: Lines) -> None:
    del lines[rng.randrange(len(lines))]


def _repeat(rng: random.Random, lines: Lines) -> None:
    lines.insert(rng.randrange(len(lines)), rng.choice(lines))


def _swap(rng: random.Random, lines: Lines) -> None:
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]


def _cut(rng: random.Random, lines: Lines) -> None:
    at = rng.randrange(len(lines))
    lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]


def _head(rng: random.Random, lines: Lines) -> None:
    """A line that is only its value, or one whose name or labels are gone."""
    at = _sample(rng, lines)
    lines[at] = lines[at][rng.choice([lines[at].find(b"{"), lines[at].find(b"{") + 1, lines[at].rfind(b" ") + 1]) :]


def _label(rng: random.Random, lines: Lines) -> None:
    at = _sample(rng, lines)
    lines[at] = lines[at].replace(b'pod="', b'pod="' + rng.choice([b"x", b'} 1 \\"', b"\\\\"]), 1)


def _insert(rng: random.Random, lines: Lines) -> None:
    new = [
        b"",
        b"# a comment",
        b"go_goroutines 5",
        b'DCGM_FI_DEV_NEW{UUID="GPU-x"} 1',
        b"\t",
        b"61",
        b"# EOF",
        b"a{} 1",
    ]
    lines.insert(rng.randrange(len(lines)), rng.choice(new))


def _flip(rng: random.Random, lines: Lines) -> None:
    at = rng.randrange(len(lines))
    line = bytearray(lines[at] or b" ")
    line[rng.randrange(len(line))] = rng.choice(b'}{" ,=\\#\xff1aN')
    lines[at] = bytes(line)


MUTATIONS: list[Callable[[random.Random, Lines], None]] = [
    _value, _drop, _repeat, _swap, _cut, _head, _label, _insert, _flip
]  # fmt: skip


def _sample(rng: random.Random, lines: Lines) -> int:
    return rng.choice([i for i, line in enumerate(lines) if b"} " in line] or [0])


def outcome(reader: TargetReader, body: bytes) -> tuple[list[Event], int, int] | str:
    """Events without what depends on earlier scrapes, or the refusal."""
    try:
        reading = reader.read(body, NOW)
    except ScrapeRefused as refused:
        return f"{refused.reason}: {refused}"
    for event in reading.events:
        event.resets = None
    return reading.events, reading.samples, reading.non_gpu


@pytest.mark.parametrize("seed", range(40))
def test_warm_reads_as_cold(seed: int) -> None:
    """Forty targets, each scraped 15 times with accidents of every kind: a reader with a memory sees what a new one
    sees, and refuses what it refuses."""
    rng = random.Random(seed)
    fleet = Fleet(rng.choice([1, 3, 12]), metrics=chosen(8), seed=seed)
    reader = TargetReader("n:1", {})
    for _ in range(15):
        fleet.churn(rng.choice([0, 0, 0.4]))
        lines = fleet.body().split(b"\n")[:-1]
        for _ in range(rng.choice([0, 1, 1, 2, 5])):
            rng.choice(MUTATIONS)(rng, lines)
        body = b"\n".join(lines) + rng.choice([b"\n", b"\n", b"\n", b""])
        expected = outcome(TargetReader("n:1", {}), body)
        found = outcome(reader, body)
        assert found == expected or "lacks the `# EOF`" in str(found)


def test_mutations_are_told_apart() -> None:
    """The test above would prove nothing if all bodies were refused, or none."""
    rng, refused = random.Random(1), 0
    for _ in range(300):
        lines = Fleet(3, metrics=chosen(8)).body().split(b"\n")[:-1]
        rng.choice(MUTATIONS)(rng, lines)
        refused += isinstance(outcome(TargetReader("n:1", {}), b"\n".join(lines) + b"\n"), str)
    assert 60 < refused < 240


def test_fast_path_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """New values, and labels that change on all series of a GPU: no line but those of one metric is parsed again."""
    fleet = Fleet(50, metrics=chosen(20))
    exposition = Exposition(understand)
    list(exposition.runs(fleet.body()))
    calls: list[bytes] = []
    known = exposition.label_set

    def counted(text: bytes) -> LabelSet | None:
        calls.append(text)
        return known(text)

    monkeypatch.setattr(exposition, "label_set", counted)
    list(exposition.runs(fleet.body()))
    assert not calls
    fleet.churn(0.1)
    list(exposition.runs(fleet.body()))
    assert len(calls) == 5
    fleet.metrics = fleet.metrics[::-1]
    calls.clear()
    list(exposition.runs(fleet.body()))
    assert not calls


def test_churn_does_not_pile_up() -> None:
    """Pods come and go for 200 scrapes: at most twice the label sets in use, and a floor, are remembered."""
    fleet = Fleet(100, metrics=chosen(3))
    reader = TargetReader("n:1", {})
    exposition = reader._exposition
    for _ in range(200):
        fleet.churn(0.5)
        reader.read(fleet.body(), NOW)
    assert exposition.label_sets <= 2 * 100 + 256 + 50
    assert len(exposition._groups) == 1
    assert reader._past.roster is not None
    assert len(reader._past.roster.contexts) == 100
    assert not reader._past.away


def test_refused_scrapes_do_not_pile_up() -> None:
    """Each has other pods, and a bad line at its end."""
    fleet = Fleet(100, metrics=chosen(3))
    reader = TargetReader("n:1", {})
    for _ in range(50):
        fleet.churn(1)
        with pytest.raises(ScrapeRefused):
            reader.read(fleet.body() + b"oops\n", NOW)
    assert reader._exposition.label_sets <= 256 + 100
    assert len(reader._exposition._groups) <= 4
