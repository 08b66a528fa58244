"""Whatever a broken pipe or a broken driver makes of the document: NotALogError or sound readings, nothing else."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from services.contract.catalogue import BY_COLUMN, Metric, Unit
from services.contract.sentinels import Missing
from services.exporter.smi.values import number
from services.exporter.smi.xml import Log, NotALogError, cut, parse
from tests.support.fake_smi import FIXTURES, fixture

DOCUMENTS = {name: fixture(name) for name in FIXTURES}
CELLS = re.compile(rb">([^<>\n]+)<")
SPOILT = [
    b"N/A",
    b"[N/A]",
    b"Unknown Error",
    b"GPU is lost",
    b"ERR!",
    b"",
    b"-1",
    b"1e9",
    b"9" * 5000,
    b"\xff\xfe",
    b"None",
]
NAMES = st.sampled_from(FIXTURES)


def sound(xml: bytes) -> Log | None:
    try:
        log = parse(xml, processes=True)
    except NotALogError:
        return None
    for reading in log.readings:
        assert reading.device.uuid
        assert not reading.values.keys() & reading.missing.keys()
        for column, value in reading.values.items():
            assert BY_COLUMN[column].low <= value <= BY_COLUMN[column].high
            assert isinstance(value, int) == BY_COLUMN[column].sql.is_integer
    assert len({(r.device.index, r.device.instance_id) for r in log.readings}) == len(log.readings)
    return log


@settings(max_examples=150, deadline=None)
@given(NAMES, st.floats(0, 1))
def test_truncated(name: str, part: float) -> None:
    xml = DOCUMENTS[name]
    log = sound(xml[: int(len(xml) * part)])
    assert log is None or part > 0.99  # but the last line break may be cut off


@settings(max_examples=300, deadline=None)
@given(NAMES, st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=6)), min_size=1, max_size=5))
def test_bytes_replaced(name: str, edits: list[tuple[float, bytes]]) -> None:
    xml = bytearray(DOCUMENTS[name])
    for place, data in edits:
        at = int(place * len(xml))
        xml[at : at + len(data)] = data
    sound(bytes(xml))
    cut(bytes(xml))


@settings(max_examples=300, deadline=None)
@given(NAMES, st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from(SPOILT)), min_size=1, max_size=40))
def test_cells_replaced(name: str, edits: list[tuple[float, bytes]]) -> None:
    xml = DOCUMENTS[name]
    for place, text in edits:
        cells = list(CELLS.finditer(xml))
        match = cells[int(place * len(cells))]
        xml = xml[: match.start(1)] + text + xml[match.end(1) :]
    log = sound(xml)
    if log is not None:
        assert log.shown == DOCUMENTS[name].count(b"<gpu id=")
        assert len({r.device.index for r in log.readings}) + len(log.lost) == log.shown


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    assert sound(data) is None
    cut(data)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([m for m in BY_COLUMN.values() if m.smi and m.unit is not Unit.BITMASK]), st.text(max_size=30))
def test_any_cell(metric: Metric, text: str) -> None:
    found = number(metric, text)
    assert isinstance(found, Missing) or metric.low <= found <= metric.high
