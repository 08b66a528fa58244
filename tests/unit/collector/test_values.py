"""Numbers: exact, in range, or missing with the reason."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.collector.values import NotANumberError, Sort, read_unknown, read_values, to_value, topic
from services.contract.catalogue import BY_COLUMN, BY_DCGM_NAME, METRICS, Metric
from services.contract.sentinels import SENTINELS, Missing

metrics = st.sampled_from(METRICS)
integer_texts = st.integers(-(2**65), 2**65).map(str) | st.integers(0, 300).map(str)
float_texts = st.floats(allow_nan=False, allow_infinity=False).map(repr) | st.floats(0, 400).map(lambda v: f"{v:f}")
odd_texts = st.sampled_from(
    ["61.000000", "1e3", "1.5e1", "0.5e1", ".5", "6.", "+5", "007", "-0", "0.30000000000000004", "1e-400", "1e999999"]
)
blank_texts = st.sampled_from(sorted(SENTINELS)).flatmap(lambda n: st.sampled_from([str(n), f"{n}.000000"]))
words = st.sampled_from(["NaN", "nan", "+Inf", "-Inf", "Inf", "infinity"])
texts = integer_texts | float_texts | odd_texts | blank_texts | words


def expected(metric: Metric, text: str) -> int | float | Missing | None:
    """The same rules, by rational numbers."""
    if text[-1].isalpha():
        return Missing.FAILED
    if text == "1e999999":
        return None
    exact = Fraction(text.removeprefix("+"))
    for blank, reason in SENTINELS.items():
        if exact == blank:
            return reason
    if not Fraction(metric.low) <= exact <= Fraction(metric.high):
        return None
    if not metric.sql.is_integer:
        return float(text)
    return exact.numerator if exact.denominator == 1 else None


@settings(deadline=None)
@given(metrics, texts)
def test_value_of_its_column(metric: Metric, text: str) -> None:
    value = to_value(metric, text)
    assert value == expected(metric, text)
    assert type(value) is type(expected(metric, text))


@settings(deadline=None)
@given(metrics, st.lists(texts, min_size=1, max_size=40))
def test_in_one_call_as_one_by_one(metric: Metric, given_texts: list[str]) -> None:
    lines = [f"{text}\n".encode() for text in given_texts]
    values, odd = read_values(topic(metric.dcgm), lines, b",".join(lines))
    single = [to_value(metric, text) for text in given_texts]
    assert values == [None if isinstance(v, Missing) else v for v in single]
    assert [type(v) for v in values] == [type(None) if isinstance(v, Missing) else type(v) for v in single]
    assert [(o.index, o.reason, o.raw) for o in odd] == [
        (i, v or Missing.FAILED, None if v else text)
        for i, (v, text) in enumerate(zip(single, given_texts, strict=True))
        if v is None or isinstance(v, Missing)
    ]


@settings(deadline=None)
@given(st.lists(st.floats(0, 8000), min_size=1, max_size=20))
def test_floats_to_the_last_digit(numbers: list[float]) -> None:
    lines = [f"{number!r}\n".encode() for number in numbers]
    assert read_values(topic("DCGM_FI_DEV_POWER_USAGE"), lines, b",".join(lines)) == (numbers, [])


@pytest.mark.parametrize("text", [b"1,2\n", b"\n", b'"1"\n', b"null\n", b"1_0\n", b"[1]\n", b"1 2 3\n", b"0x1\n"])
@pytest.mark.parametrize("place", [0, 20, 39])
def test_no_number(text: bytes, place: int) -> None:
    lines = [b"1\n"] * 40
    lines[place] = text
    for read in (lambda: read_values(topic("DCGM_FI_DEV_GPU_TEMP"), lines, b",".join(lines)),
                 lambda: read_unknown(lines, b",".join(lines))):  # fmt: skip
        with pytest.raises(NotANumberError) as error:
            read()
        assert error.value.index == place


def test_unknown_values_stay_as_written() -> None:
    lines = [b"5\n", b"0.25\n", b"NaN\n", b"+Inf\n", b"9223372036854775794\n", b"1e3 1700000000000\n"]
    assert read_unknown(lines, b",".join(lines)) == [5.0, 0.25, "NaN", "+Inf", "9223372036854775794", 1000.0]


def test_every_name_has_its_column() -> None:
    for name, metric in BY_DCGM_NAME.items():
        assert topic(name).metric is metric
        assert topic(name + "_total").column == metric.column
        assert topic(name + "_created").sort is Sort.IGNORED
        assert topic(name).wide == (metric.high >= min(SENTINELS))
    assert topic("DCGM_FI_DEV_SOMETHING_NEW").sort is topic("dcgm_gpu_temp").sort is Sort.UNKNOWN
    assert topic("go_goroutines").sort is topic("nvidia_smi_index").sort is Sort.FOREIGN


def test_text_of_a_value_is_not_guessed() -> None:
    """A fraction in an integer column is not rounded, a value out of range is not clipped."""
    assert to_value(BY_COLUMN["gpu_temp"], "61.000000") == 61
    assert to_value(BY_COLUMN["gpu_temp"], "61.5") is None
    assert to_value(BY_COLUMN["gpu_util"], "101") is None
    assert to_value(BY_COLUMN["total_energy_consumption"], "9007199254740993.0") is None
    assert to_value(BY_COLUMN["total_energy_consumption"], "9007199254740991") == 2**53 - 1
