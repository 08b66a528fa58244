"""The parser against prometheus-client's, on expositions nobody would write by hand."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from services.collector.enrich import understand
from services.collector.lines import number_text, parse_labels
from services.collector.parse import Exposition

Sample = tuple[str, frozenset[tuple[str, str]], str]

names = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,8}", fullmatch=True)
label_names = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True).filter(lambda name: name[:2] != "__")
# Every character but surrogates (they have no UTF-8) and NUL (refused). Carriage returns and other separators must not
# end a line.
STORABLE = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
label_values = st.text(STORABLE, max_size=12) | st.sampled_from(
    ['a"b', "a\\", "\\n", "\n", "} 61", '"} 1', "a,b=c", "\\", "é\u2028\x85", "# {", ""]
)
numbers = (
    st.floats(allow_nan=True, allow_infinity=True).map(repr)
    | st.integers(-(2**70), 2**70).map(str)
    | st.sampled_from(["NaN", "+Inf", "-Inf", "61.000000", "1e3", "1E-3", "+5", ".5", "6.", "0x10"[:1], "00061", "-0"])
)
blank = st.sampled_from([" ", "  ", "\t", " \t "])
maybe_blank = st.sampled_from(["", "", "", " ", "\t"])


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


@st.composite
def sample_lines(draw: st.DrawFn, name: str | None = None) -> str:
    labels = draw(st.dictionaries(label_names, label_values, max_size=4))
    pad = draw(maybe_blank)
    pairs = [f'{pad}{n}{pad}={pad}"{_escaped(v)}"{pad}' for n, v in labels.items()]
    comma = draw(st.sampled_from(["", ","])) if pairs else ""
    empty: bool = draw(st.booleans())
    braces = "{" + ",".join(pairs) + comma + "}" if pairs or empty else ""
    stamp = draw(st.sampled_from(["", "", "", " 1700000000000", "\t-5"]))
    head = f"{pad}{name or draw(names)}{draw(maybe_blank) if braces else ''}{braces}"
    return f"{head}{draw(blank)}{draw(numbers)}{stamp}{pad}"


comments = st.sampled_from(["", "# a comment", "# HELP x y \\n \\\\", "# TYPE zz gauge", "  ", "#"])


@st.composite
def bodies(draw: st.DrawFn) -> str:
    lines = draw(st.lists(sample_lines() | comments, max_size=8))
    for name in draw(st.lists(names, max_size=3, unique=True)):
        lines.append(f"# TYPE {name} {draw(st.sampled_from(['counter', 'gauge', 'untyped']))}")
        lines += draw(st.lists(sample_lines(name), max_size=4))
    return "".join(f"{line}\n" for line in lines)


def shown(value: float) -> str:
    return "NaN" if math.isnan(value) else repr(float(value) + 0.0)  # -0 is 0


def ours(body: bytes, exposition: Exposition | None = None) -> list[Sample]:
    found = []
    for run in (exposition or Exposition(understand)).runs(body):
        for labels, text in zip(run.group.sets, run.texts, strict=True):
            number = number_text(text)
            assert number is not None
            pairs = frozenset(parse_labels(labels.text[:-2]).items())
            found.append((run.name.removesuffix("_total"), pairs, shown(float(number))))
    return found


def theirs(text: str) -> list[Sample]:
    """prometheus-client renames the samples of a counter to NAME_total, also where the text has no such name."""
    return [
        (sample.name.removesuffix("_total"), frozenset(sample.labels.items()), shown(sample.value))
        for family in text_families(text)
        for sample in family.samples
    ]


def unique(samples: list[Sample]) -> bool:
    """Repeated series are refused by ours (they cannot both be stored) and taken by theirs."""
    return len({(name, labels) for name, labels, _ in samples}) == len(samples)


@settings(deadline=None)
@given(bodies())
@example('a{b="} 1"} 2\n')
@example('a{b="\\\\"} 2\na{b="\\\\\\""} 3\n')
@example("a 1 1700000000000\na{} 2\n")
def test_same_samples_as_prometheus_client(text: str) -> None:
    expected = theirs(text)
    if unique(expected):
        assert Counter(ours(text.encode())) == Counter(expected)


@settings(deadline=None)
@given(bodies(), bodies())
def test_what_is_remembered_changes_nothing(first: str, second: str) -> None:
    """A parser that has seen other text reads a body as a fresh one does; also the second time."""
    if not unique(theirs(first)) or not unique(theirs(second)):
        return
    exposition = Exposition(understand)
    for text in (first, second, second, first, second):
        assert ours(text.encode(), exposition) == ours(text.encode())


@pytest.mark.parametrize(
    "line",
    ['a{b="c"} 1_000', 'a{b="c"} 0x1p3', 'a{b="c"}', 'a{b="c"} ', 'a{b="c} 1', 'a{b=c} 1', 'a{b="c" d="e"} 1',
     'a{b="c"} 1 2 3', 'a{b="c"} one', '9a 1', 'a-b 1', 'a{b="c"}} 1', 'a{{b="c"} 1', 'a b="c" 1', 'a{b="c",,} 1',
     'a{b="c",b="d"} 1', 'a{b="c"} 1,2', 'a{b="c"} "1"', 'a{b="c"} true', 'a{b="c"} [1]', 'a{b="c"} 1 # {', '61'],
)  # fmt: skip
def test_not_a_sample(line: str) -> None:
    """Neither cold nor warm, where the same place held a good line in the last scrape."""
    from services.collector.reader import ScrapeRefused, TargetReader
    from tests.unit.collector.test_reader import NOW

    good = 'DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-1"} 61\n'
    for warm in (False, True):
        reader = TargetReader("h:9400", {})
        if warm:
            reader.read(f'{good}a{{b="c"}} 1\n{good.replace("1", "2")}'.encode(), NOW)
        with pytest.raises(ScrapeRefused, match="line 2 ") as refused:
            reader.read(f"{good}{line}\n{good.replace('1', '2')}".encode(), NOW)
        assert refused.value.reason == "not_exposition"


def _openmetrics(type_: str, lines: list[str]) -> str:
    return f"# HELP x a\\nb\n# TYPE x {type_}\n" + "\n".join(lines) + "\n# EOF\n"


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e15), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_openmetrics_counters(values: list[float], exemplar: bool, stamp: bool) -> None:
    """`_total` and `_created` samples, exemplars and time stamps in seconds."""
    lines = []
    for i, value in enumerate(values):
        tail = " 1700000000.5" if stamp else ""
        tail += ' # {trace_id="a}b"} 1.5 1700000000.25' if exemplar else ""
        lines += [
            f'x_total{{gpu="{i}"}} {value!r}{tail}',
            f'x_created{{gpu="{i}"}} 1700000000.5{tail.partition(" #")[0]}',
        ]
    text = _openmetrics("counter", lines)
    expected = [
        (s.name.removesuffix("_total"), frozenset(s.labels.items()), shown(s.value))
        for f in openmetrics_families(text)  # type: ignore[no-untyped-call]  # the library has no types here
        for s in f.samples
    ]
    assert Counter(ours(text.encode())) == Counter(expected)
